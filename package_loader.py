"""The modules of this folder as a package, under whatever name.

They import one another by the plain names that they have in a clone (`from ops.relation import
...`), which a caller may well use too. In a package these imports are redirected into it as they
are compiled, so that the plain names neither enter `sys.modules` nor ever come from the caller.
`__init__.py` makes `epic_action_models` in this way, and hubconf.py a private package.
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
    """Read the modules of a folder: the files in it, and in its folders with `__init__.py`.

    Returns:
        Name -> path and content of the file. The name is "tsn", "ops", "ops.relation", and "" for
        the folder's own `__init__.py`.
    """
    modules = {}
    for place in (folder, *(path.parent for path in sorted(folder.glob("*/__init__.py")))):
        for path in sorted(place.glob("*.py")):
            if path.is_file():  # the lock of an editor is a link to nowhere
                parts = path.relative_to(folder).with_suffix("").parts
                name = ".".join(part for part in parts if part != "__init__")
                modules[name] = str(path), path.read_bytes()
    return modules


def install(package: ModuleSpec) -> None:
    """Have the modules of a package found here, unless the package itself was.

    Args:
        package: the spec of a package that is being imported.
    """
    if hasattr(package.loader, "finder"):
        return
    for finder in list(sys.meta_path):  # of an import that failed; the files may be mended
        if isinstance(finder, Finder) and finder.package == package.name:
            sys.meta_path.remove(finder)
    assert package.origin
    modules = read_modules(Path(package.origin).parent)
    del modules[""]
    sys.meta_path.insert(0, Finder(package.name, modules))  # before an editable install's


class Finder(MetaPathFinder):
    """Finds the modules of one package, as they were when they were read.

    Args:
        package: its name.
        modules: what `read_modules` returns.
        on_import: called with each module that has run.
    """

    def __init__(
        self,
        package: str,
        modules: Mapping[str, tuple[str, bytes]],
        on_import: Callable[[ModuleType], None] | None = None,
    ) -> None:
        self.package = package
        self.own = {name.partition(".")[0] for name in modules}
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
    """Runs one module with its imports redirected; no bytecode is cached under plain names."""

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
    """`from ops.relation import X` becomes `from <package>.ops.relation import X`."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.level == 0 and node.module and node.module.split(".")[0] in self.finder.own:
            node.module = f"{self.finder.package}.{node.module}"
        return node
