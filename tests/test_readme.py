"""What the README shows runs, and what it says of the published weights is what the table says."""

import math
import re
from pathlib import Path

import pytest
import test_weights_download as downloads
import torch
from helpers.hostile_bombs import BOMBS
from helpers.hostile_payloads import PAYLOADS, PLACES
from helpers.hub_cache import write_class_names
from helpers.hub_programs import SITUATIONS
from helpers.repository import top_level_names
from test_checkpoints_foreign import RECORDED
from test_reference import SPECIFICATIONS
from test_weights_download_processes import PROCESSES

from data.synthetic import make_video
from model_loader import save_checkpoint
from ops.backbones import make_backbone
from tsm import TSM
from tsn import TSN
from weights.published import PUBLISHED, Scores, find_published

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


@pytest.fixture(scope="module")
def hub_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torch.hub's directory with stand-ins for what the README's examples would download."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "checkpoints").mkdir()
    for variant, model_class in (("TSN", TSN), ("TSM", TSM)):
        published = find_published(variant, "resnet50", "RGB", num_segments=8, new_length=1)
        model = model_class((125, 352), 8, "RGB", base_model="resnet50", pretrained=None)
        save_checkpoint(model, folder / "checkpoints" / published.file_name)
    backbone, _ = make_backbone("BNInception")
    torch.save(backbone.state_dict(), folder / "checkpoints" / "bn_inception-52deb4733.pth")
    annotations = folder / "epic_kitchens_annotations"
    annotations.mkdir()
    write_class_names(annotations)
    return folder


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_example_runs_when_pasted(
    index: int, hub_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(hub_directory))
    # The clone's folder, but for what the examples write.
    (tmp_path / "hubconf.py").symlink_to(REPOSITORY / "hubconf.py")
    make_video(tmp_path / "clip.mp4", 12)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(BLOCKS[index], f"README example {index + 1}", "exec"), {"__name__": "__main__"})


def test_commands_exist() -> None:
    for name in re.findall(r"python (\S+\.py)", README):
        assert (REPOSITORY / name).is_file(), name
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`|\$ make ([a-z-]+)", README)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.M), target


def test_score_table_is_the_table_of_published_weights() -> None:
    def cells(scores: Scores) -> list[str]:
        values = (scores.verb, scores.noun, scores.action)
        return ["—¹" if value is None else f"{value:.2f}" for value in values]

    rows = []
    for published in PUBLISHED:
        names, scores = [published.variant], published.scores
        if published.dataset == "epic-kitchens":
            names += [published.config.arch, published.config.modality]
            rows.append([*names, *cells(scores["seen"]), *cells(scores["unseen"])])
        elif published.config.modality == "RGB":
            rows.append([*names, f"{scores['validation'].action:.2f}"])
        else:
            rows[-1].append(f"{scores['validation'].action:.2f}")
    assert all(f"| {' | '.join(row)} |" in README for row in rows)
    assert len(re.findall(r"^\| M?TS?R?[NM] \| ", README, re.M)) == len(rows)


def test_what_you_can_rely_on_quotes_what_the_tests_try() -> None:
    marks = downloads.test_what_is_left_by_a_crash_at_any_byte.pytestmark
    crashes = (len(downloads.SMALL) + 1) * math.prod(len(mark.args[1]) for mark in marks)
    figures = {
        "test_hostile_files": 2 * len(PAYLOADS) * len(PLACES) + len(BOMBS),
        "crash_at_any_byte": crashes,
        "many_processes": PROCESSES,
        "callers": len(SITUATIONS) * len(top_level_names()),
        "test_reference": f"{len(SPECIFICATIONS)} + {len(RECORDED)}",
    }
    section = README.partition("## What you can rely on")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| .+ \| (.+) \| .+ \| `(.+)` \|$", section, re.M)
    assert len(rows) == len(figures)
    for (figure, command), (name, expected) in zip(rows, figures.items(), strict=True):
        assert name in command
        assert figure == str(expected), command


def test_changelog_and_citation_name_the_version() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    match = re.search(r'^version = "(.+)"', project, re.M)
    assert match
    assert f"## {match[1]}" in (REPOSITORY / "CHANGELOG.md").read_text()
    assert f"version: {match[1]}" in (REPOSITORY / "CITATION.cff").read_text()
