"""What the README, docs/ and the notebook show runs, and what they claim is true."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hostile_bombs import BOMBS
from helpers.hostile_payloads import PAYLOADS, PLACES
from helpers.hub_cache import hub_cache_fixture, write_class_names  # noqa: F401 -- a fixture

from data.synthetic import make_video
from model_loader import save_checkpoint
from tsm import TSM
from tsn import TSN
from weights.published import PUBLISHED, Accuracies, find_published

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = {
    path.stem: path.read_text()
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
}
OPTIONAL = ("huggingface_hub", "onnxruntime", "onnxscript")
"""Packages that a recipe needs and the library does not."""


def examples() -> dict[str, str]:
    """The README's blocks and recipes one by one, those of other pages from top to bottom."""
    found: dict[str, str] = {}
    for page, text in PAGES.items():
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
        if page in ("README", "recipes"):
            found.update({f"{page} {index}": block for index, block in enumerate(blocks, 1)})
        elif blocks:
            found[page] = "\n".join(blocks)
    return found


EXAMPLES = examples()


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what examples would download: weights, and tables of class names."""
    folder = tmp_path_factory.mktemp("stand_ins")
    for variant, kind in (("TSN", TSN), ("TSM", TSM)):
        published = find_published(variant, "resnet50", "RGB", num_segments=8, new_length=1)
        torch.manual_seed(0)
        model = kind((125, 352), 8, "RGB", pretrained=None)
        save_checkpoint(model, folder / published.file_name)
    write_class_names(folder)
    return folder


@pytest.fixture
def run(
    stand_ins: Path, hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    """Runs code in a folder like the clone's, but for what the code writes."""
    monkeypatch.setenv("EPIC_MODELS_DIR", str(stand_ins))
    monkeypatch.setenv("MPLBACKEND", "agg")
    clone = tmp_path / "clone"
    for folder in ("clips", "notebooks"):
        (clone / folder).mkdir(parents=True)
    (clone / "hubconf.py").symlink_to(REPOSITORY / "hubconf.py")
    make_video(clone / "clip.mp4", 12)
    (clone / "clips" / "one.mp4").symlink_to(clone / "clip.mp4")
    torch.manual_seed(0)

    def execute(code: str, folder: str) -> None:
        monkeypatch.chdir(clone / folder)
        exec(compile(code, "example", "exec"), {"__name__": "__main__"})

    return execute


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow) if "onnx" in EXAMPLES[name] else name


@pytest.mark.parametrize("name", [slow(name) for name in EXAMPLES])
def test_examples_run_when_pasted(name: str, run: Callable[[str, str], None]) -> None:
    for package in OPTIONAL:
        if package in EXAMPLES[name]:
            pytest.importorskip(package)
    run(EXAMPLES[name], ".")


@pytest.mark.parametrize("weights", ["None", '"epic-kitchens"'])
def test_the_notebook_runs(
    weights: str, run: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads((REPOSITORY / "notebooks" / "quickstart.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert "WEIGHTS = None" in code
    run(code.replace("WEIGHTS = None", f"WEIGHTS = {weights}"), "notebooks")
    assert ("the labels below mean nothing" in capsys.readouterr().out) == (weights == "None")


TEXT = "\n".join(PAGES.values()).replace("\\\n", " ")
PROGRAMS = sorted(set(re.findall(r"python (\S+)\.py\b", TEXT)))


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_exist_with_their_options(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(program.replace("/", ".")).main(["--help"])
    known = capsys.readouterr().out
    for call in re.findall(rf"python {program}\.py([^`\n]*)", TEXT):
        for option in re.findall(r"--[\w-]+", call):
            assert option in known, call


def test_make_targets_and_test_files_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|\$ )make (?:\w+=\S+ )*([a-z-]+)", TEXT))
    assert {"demo", "test", "docs"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"pytest ([\w/]+\.py)", TEXT):
        assert (REPOSITORY / path).is_file(), path


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in headings}


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#([^)]+))?\)", PAGES["README"])
    assert len(links) > 10
    for path, anchor in links:
        assert (REPOSITORY / path).exists(), path
        assert not anchor or anchor in anchors(REPOSITORY / path), f"{path}#{anchor}"


def rows(page: str) -> list[list[str]]:
    """Cells of all rows of the tables of a page."""
    lines = re.findall(r"^\| (.+) \|$", PAGES[page], re.M)
    return [line.split(" | ") for line in lines]


def test_tables_of_published_scores() -> None:
    def cells(scores: Accuracies) -> list[str]:
        values = (scores.verb, scores.noun, scores.action)
        return ["—¹" if value is None else f"{value:.2f}" for value in values]

    expected = []
    for published in PUBLISHED:
        names, scores = [published.variant], published.scores
        if published.dataset == "epic-kitchens":
            names += [published.config.arch, published.config.modality]
            expected.append([*names, *cells(scores["seen"]), *cells(scores["unseen"])])
        elif published.config.modality == "RGB":
            expected.append([*names, f"{scores['validation'].action:.2f}"])
        else:
            expected[-1].append(f"{scores['validation'].action:.2f}")
    shown = [row for row in rows("models") if len(row) > 2 and re.fullmatch(r"\d\d\.\d\d", row[-2])]
    assert sorted(shown) == sorted(expected)


def test_the_readmes_table_of_models_repeats_scores_and_measurements() -> None:
    times = {(row[0], row[1]): row[2:4] for row in rows("performance") if len(row) == 7}
    memory = {(row[0], row[1]): row[3:] for row in rows("performance") if len(row) == 4}
    scores = {
        (entry.dataset, entry.variant, entry.config.arch): entry.scores
        for entry in PUBLISHED
        if entry.config.modality == "RGB"
    }
    compared = [row for row in rows("README") if (row[0], row[1]) in times and row[0] != "model"]
    assert len(compared) == 7
    for variant, backbone, kitchens, validation, *figures in compared:
        parts = [scores["epic-kitchens", variant, backbone][key] for key in ("seen", "unseen")]
        actions = ["—" if part.action is None else f"{part.action:.2f}" for part in parts]
        assert kitchens == " / ".join(actions)
        later = scores.get(("epic-kitchens-100", variant, backbone))
        assert validation == (f"{later['validation'].action:.2f}" if later else "—")
        assert figures == times[variant, backbone] + memory[variant, backbone]


@pytest.mark.parametrize(("backbone", "megabytes"), [("resnet50", 98), ("BNInception", 43)])
def test_sizes_of_weights(backbone: str, megabytes: int) -> None:
    with torch.device("meta"):
        model = TSN((125, 352), 8, "RGB", base_model=backbone, pretrained=None)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(4 * count / 1e6) == megabytes
    readme, performance = (" ".join(PAGES[page].split()) for page in ("README", "performance"))
    assert f"{megabytes} MB for {backbone}" in readme
    assert f"{count / 1e6:.1f} million parameters, {megabytes} MB" in performance


def test_reliability_claims_no_more_than_the_tests_try() -> None:
    reference = json.loads((REPOSITORY / "tests/reference/models.json").read_text())
    tried = {
        "test_hostile_files.py": 2 * len(PAYLOADS) * len(PLACES) + len(BOMBS),
        "test_reference.py": len(reference),
    }
    claims = re.findall(r"^\| (\d+) .*pytest .*tests/(\w+\.py)", PAGES["reliability"], re.M)
    assert {name for _, name in claims} == set(tried)
    for figure, name in claims:
        assert int(figure) == tried[name], name


def test_changelog_and_citation_name_the_version() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    match = re.search(r'^version = "(.+)"', project, re.M)
    assert match
    assert f"## {match[1]}" in (REPOSITORY / "CHANGELOG.md").read_text()
    assert f"\nversion: {match[1]}\n" in (REPOSITORY / "CITATION.cff").read_text()
