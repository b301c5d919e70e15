"""Imports run one way, from the ground up."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers.repository import REPOSITORY, source_files, top_level_names

FILES = [file for file in source_files() if file.name not in ("__init__.py", "setup.py")]
THIRD_PARTY = {"torch", "torchvision", "numpy", "PIL"}
"""What may be imported at module level beside the standard library."""
_MODELS = {
    *("data", "checkpoints", "weights", "epic", "ops", "transforms", "presets"),
    *("tsn", "trn", "tsm"),
}
_USERS = {*_MODELS, "model_loader", "predictor", "snippets", "long_videos", "streaming"}
_PICTURES = {"pictures", "evaluation_pictures", "timeline_pictures", "training_pictures"}
_PROGRAMS = {*_USERS, *_PICTURES, "engine", "training"}
RULES: dict[str, set[str]] = {
    "data": set(),
    "checkpoints": {"data.preprocessing", "data.options"},
    "weights": {"checkpoints", "data.preprocessing"},
    "epic": {"weights.download", "checkpoints", "data"},
    "ops": {"weights", "checkpoints", "data"},
    "transforms": {"data"},
    "presets": {"transforms", "data"},
    "tsn": {"ops", "presets", "weights", "checkpoints", "data"},
    "trn": {"tsn", "ops", "data"},
    "tsm": {"tsn", "ops", "data"},
    "model_loader": _MODELS,
    "predictor": _MODELS,
    "snippets": _MODELS,
    "long_videos": {*_MODELS, "snippets"},
    "streaming": _MODELS,
    "engine": _USERS,
    "training": {*_USERS, "engine"},
    "pictures": _USERS,
    "evaluation_pictures": {"pictures"},
    "timeline_pictures": {*_USERS, "pictures"},
    "training_pictures": {"pictures"},
    "demo": _PROGRAMS,
    "tools": _PROGRAMS,
    "package_loader": set(),
    "hubconf": set(),
}
"""Folder or file -> the folders, files and modules in folders that it may import, beside itself."""


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)


def imported_modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports do not survive torch.hub's redirection"
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def test_own_modules_are_imported_in_the_form_that_hub_redirects() -> None:
    own = {file.with_suffix("").parts[0] for file in FILES}
    for path in FILES:
        for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
                assert not names & own, f"{path}: from MODULE import NAME, not import MODULE"


def local_imports(path: Path) -> set[str]:
    """Dotted names of the modules of ours that a file imports, also inside functions."""
    modules = {module_name(file) for file in FILES}
    own = {name.partition(".")[0] for name in modules}
    names = imported_modules(ast.parse((REPOSITORY / path).read_text()))
    local = {name for name in names if name.partition(".")[0] in own}
    unknown = local - modules
    assert not unknown, f"{path}: import a module, not a folder, for hub to redirect: {unknown}"
    return local


def place(module: str) -> str:
    """The place of a module in `RULES`: its folder, or the file itself."""
    return module.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_keep_to_the_rules(path: Path) -> None:
    here = place(module_name(path))
    assert here in RULES, f"say in RULES what {here} may import"
    allowed = RULES[here] | {here}
    imported = {name for name in local_imports(path) if not {name, place(name)} & allowed}
    assert not imported, f"{path} may import {sorted(RULES[here])}"


def test_there_is_no_cycle() -> None:
    graph = {module_name(path): local_imports(path) for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError
    places = {here: {place(name) for name in allowed} for here, allowed in RULES.items()}
    list(TopologicalSorter(places).static_order())


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda p: p.name)
def test_test_files_do_not_import_one_another(path: Path) -> None:
    names = {name.partition(".")[0] for name in imported_modules(ast.parse(path.read_text()))}
    imported = {name for name in names if name.startswith("test_")}
    assert not imported, "tests/helpers is for what they share"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_other_packages_are_imported_where_they_are_needed(path: Path) -> None:
    tree = ast.parse((REPOSITORY / path).read_text())
    at_module_level = ast.Module(
        [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], []
    )
    tops = {name.split(".")[0] for name in imported_modules(at_module_level)}
    local = {file.with_suffix("").parts[0] for file in FILES}
    assert tops - set(sys.stdlib_module_names) - local <= THIRD_PARTY


def test_importing_everything_is_silent_and_light(tmp_path: Path) -> None:
    """And a clone that comes first is what is imported, whatever has its names behind it.

    Folders without `__init__.py` would give way to any module of their name, anywhere.
    """
    modules = [module_name(path) for path in FILES]
    for name in top_level_names():
        (tmp_path / f"{name}.py").write_text("raise ImportError('of somebody else')")
    code = (
        "import importlib, sys, torch\n"
        "import torchvision.transforms.v2\n"  # which does change filters and environment
        "from helpers.global_state import changes, snapshot\n"
        "before, loaded = snapshot(), set(sys.modules)\n"  # older torchvisions import av
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "heavy = {'av', 'matplotlib', 'pretrainedmodels', 'safetensors'} & set(sys.modules)\n"
        "assert heavy <= loaded, heavy\n"
        "assert not changes(before), changes(before)\n"
    )
    path = os.pathsep.join(map(str, [REPOSITORY, tmp_path, REPOSITORY / "tests"]))
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],  # the working directory does not count
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr == ""


def test_both_environments_install_the_same_list() -> None:
    text = (REPOSITORY / "environment.yml").read_text()
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert f"--requirement {name}" in text
        assert f"--requirement {name}" in (REPOSITORY / "Makefile").read_text()
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    assert not [line for line in lines if "<" in line.partition("#")[0]], "no upper pins"


def test_no_file_names_where_the_tests_data_lie() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        path = REPOSITORY / name
        if name != ".ci/run" and path.is_file() and path.suffix not in (".npz", ".png"):
            assert "../" + "shared" not in path.read_text(encoding="utf-8"), name
