"""Importing the modules of this folder as a package of any name.

The modules import one another by the names that they have in a clone (`from ops.relation import
...`). A caller may have modules of the same names. So a package redirects these imports into itself
when its modules are compiled: the names neither enter `sys.modules` nor find the caller's modules.
`__init__.py` makes `epic_action_models` in this way, hubconf.py a private package.
"""

import ast
import sys
from collections.abc import Callable, Mapping
from importlib import util
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

__all__ = ["Finder", "install", "read_modules"]


def read_modules(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Read the Python files of a folder and of its folders with `__init__.py`.

    Returns:
        Module name -> path and content of the file. Names are "tsn", "ops", "ops.relation", and ""
        for the folder's own `__init__.py`.
    """
    modules = {}
    for package in (folder, *(path.parent for path in sorted(folder.glob("*/__init__.py")))):
        for path in sorted(package.glob("*.py")):
            if path.is_file():  # not a broken link, as editors make to lock a file
                parts = path.relative_to(folder).with_suffix("").parts
                name = ".".join(part for part in parts if part != "__init__")
                modules[name] = str(path), path.read_bytes()
    return modules


def install(package: ModuleSpec) -> None:
    """Install a finder for the modules of a package, unless a finder found the package itself.

    Args:
        package: the spec of a package that is being imported.
    """
    if hasattr(package.loader, "finder"):
        return
    for finder in list(sys.meta_path):  # left by an import that failed; the files may have changed
        if isinstance(finder, Finder) and finder.package == package.name:
            sys.meta_path.remove(finder)
    assert package.origin
    modules = read_modules(Path(package.origin).parent)
    del modules[""]
    sys.meta_path.insert(0, Finder(package.name, modules))  # before an editable install's


class Finder(MetaPathFinder):
    """Finder of the modules of one package, with the content that they had when they were read.

    Args:
        package: name of the package.
        modules: what `read_modules` returns.
        on_import: called with each module after its import.
    """

    def __init__(
        self,
        package: str,
        modules: Mapping[str, tuple[str, bytes]],
        on_import: Callable[[ModuleType], None] | None = None,
    ) -> None:
        self.package = package
        self.top_level_names = {name.partition(".")[0] for name in modules}
        self.on_import = on_import
        self._modules = {f"{package}.{name}".rstrip("."): modules[name] for name in modules}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module of the package, None for all others."""
        if fullname not in self._modules:
            return None
        path, source = self._modules[fullname]
        loader = _Loader(fullname, path, source, self)
        return util.spec_from_file_location(fullname, path, loader=loader)


class _Loader(SourceFileLoader):
    """Loader of one module with redirected imports, whose bytecode is not cached on disk."""

    def __init__(self, name: str, path: str, source: bytes, finder: Finder) -> None:
        super().__init__(name, path)
        self.source = source
        self.finder = finder

    def get_data(self, path: str) -> bytes:
        return self.source

    def get_code(self, fullname: str) -> CodeType:
        tree = _Redirect(self.finder).visit(ast.parse(self.source, self.path))
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if self.finder.on_import:
            self.finder.on_import(module)


class _Redirect(ast.NodeTransformer):
    """Transformer of `from ops.relation import X` to `from <package>.ops.relation import X`."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        names = self.finder.top_level_names
        if node.level == 0 and node.module and node.module.split(".")[0] in names:
            node.module = f"{self.finder.package}.{node.module}"
        return node
