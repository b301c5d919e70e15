"""The README's section "How it is built" shows the layout as it is; imports run one way."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub_programs import REPOSITORY, source_files

FILES = [file for file in source_files() if file.name not in ("__init__.py", "setup.py")]
THIRD_PARTY = {"torch", "torchvision", "numpy", "PIL"}
"""What may be imported at module level beside the standard library."""


def layout() -> dict[str, set[str]]:
    """File -> files that it imports, in the order of the README's table."""
    section = (REPOSITORY / "README.md").read_text().partition("## How it is built")[2]
    rows = re.findall(r"^\| `([^`|]+)` \|[^|]+\| (.*) \|$", section.partition("\n## ")[0], re.M)
    return {file: set(re.findall(r"`([^`]+)`", imports)) for file, imports in rows}


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


def test_every_file_has_its_row() -> None:
    assert {str(path) for path in FILES} == set(layout())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_local_imports_are_those_of_the_table_and_point_down(path: Path) -> None:
    files = {module_name(file): str(file) for file in FILES}
    names = imported_modules(ast.parse((REPOSITORY / path).read_text()))
    own = set(files) | {Path(file).parts[0] for file in files.values() if "/" in file}
    local = {name for name in names if name.split(".")[0] in {o.split(".")[0] for o in own}}
    unknown = local - set(files)
    assert not unknown, f"import a module, not a folder, so that hub can redirect it: {unknown}"
    table = layout()
    assert {files[name] for name in local} == table[str(path)]
    order = list(table)
    assert all(order.index(str(path)) < order.index(target) for target in table[str(path)])


@pytest.mark.parametrize("path", FILES, ids=str)
def test_other_packages_are_imported_where_they_are_needed(path: Path) -> None:
    tree = ast.parse((REPOSITORY / path).read_text())
    at_module_level = ast.Module(
        [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], []
    )
    tops = {name.split(".")[0] for name in imported_modules(at_module_level)}
    local = {file.with_suffix("").parts[0] for file in FILES}
    assert tops - set(sys.stdlib_module_names) - local <= THIRD_PARTY


def test_importing_everything_is_silent_and_light() -> None:
    modules = [module_name(path) for path in FILES]
    code = (
        "import importlib, sys, torch\n"
        "import torchvision.transforms.v2\n"  # which does change filters and environment
        f"sys.path.append({str(REPOSITORY / 'tests')!r})\n"
        "from global_state import changes, snapshot\n"
        "before, loaded = snapshot(), set(sys.modules)\n"  # older torchvisions import av
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "heavy = {'av', 'matplotlib', 'pretrainedmodels', 'safetensors'} & set(sys.modules)\n"
        "assert heavy <= loaded, heavy\n"
        "assert not changes(before), changes(before)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
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
        if name != ".ci/run" and path.is_file() and path.suffix != ".npz":
            assert "../" + "shared" not in path.read_text(encoding="utf-8"), name


def test_a_clone_that_comes_first_is_what_is_imported(tmp_path: Path) -> None:
    """Folders without `__init__.py` would give way to any module of their name, anywhere."""
    for name in {path.parts[0] for path in FILES if len(path.parts) > 1}:
        (tmp_path / f"{name}.py").write_text("raise ImportError('of somebody else')")
    code = "".join(f"import {module_name(path)}\n" for path in FILES if len(path.parts) > 1)
    path = os.pathsep.join([str(REPOSITORY), str(tmp_path)])
    command = [sys.executable, "-P", "-c", code]  # the working directory does not count
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=True)
