"""torch.hub entry points: TSN, TRN, MTRN, TSM and load_checkpoint.

    import torch
    model = torch.hub.load("path/to/this/clone", "TSN", (125, 352), 8, "RGB", source="local")

Modules of this repository have plain names (`ops`, `data`, `tsn`), which a caller may well use too.
They are therefore imported under a private package, `epic_kitchens_models_<hash>`: their own
imports of one another are redirected into it as they are compiled, so that the plain names neither
enter `sys.modules` nor ever come from the caller. The hash is of this folder and of the code in it;
several versions can live in one process.
"""

import ast as _ast
import hashlib as _hashlib
import importlib as _importlib
import sys as _sys
from importlib import machinery as _machinery
from importlib import util as _util
from pathlib import Path as _Path
from types import CodeType as _CodeType
from typing import Any as _Any

dependencies = ["torch", "torchvision", "numpy", "PIL"]

_ROOT = _Path(__file__).resolve().parent
_FILES = sorted(
    path for folder in (".", "ops", "weights", "data") for path in _ROOT.glob(f"{folder}/*.py")
)
_OWN = {path.relative_to(_ROOT).parts[0].removesuffix(".py") for path in _FILES}


class _Redirect(_ast.NodeTransformer):
    """`from ops.relation import X` becomes `from <package>.ops.relation import X`."""

    def __init__(self, package: str) -> None:
        self.package = package

    def visit_ImportFrom(self, node: _ast.ImportFrom) -> _ast.ImportFrom:
        if node.level == 0 and node.module and node.module.split(".")[0] in _OWN:
            node.module = f"{self.package}.{node.module}"
        return node


class _Loader(_machinery.SourceFileLoader):
    """Compiles one module with its imports redirected; no bytecode is cached under plain names."""

    def get_code(self, fullname: str) -> _CodeType:
        tree = _ast.parse(self.get_data(self.path), self.path)
        return compile(_Redirect(fullname.partition(".")[0]).visit(tree), self.path, "exec")


class _Finder:
    """Finds the modules of one private package in this folder."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: _Any = None, target: _Any = None
    ) -> _machinery.ModuleSpec | None:
        package, _, rest = name.partition(".")
        if package != self.package:
            return None
        location = _ROOT.joinpath(*rest.split("."))
        if location.is_dir():
            return _machinery.ModuleSpec(name, None, is_package=True)
        file = str(location.with_suffix(".py"))
        if not _Path(file).is_file():
            return None
        return _util.spec_from_file_location(name, file, loader=_Loader(name, file))


def _module(name: str) -> _Any:
    """A module of this repository from its private package."""
    digest = _hashlib.sha256(str(_ROOT).encode())
    for path in _FILES:
        digest.update(path.read_bytes())
    package = f"epic_kitchens_models_{digest.hexdigest()[:12]}"
    if not any(getattr(finder, "package", None) == package for finder in _sys.meta_path):
        _sys.meta_path.append(_Finder(package))
    return _importlib.import_module(f"{package}.{name}")


TSN = _module("tsn").TSN
TRN = _module("trn").TRN
MTRN = _module("trn").MTRN
TSM = _module("tsm").TSM
load_checkpoint = _module("model_loader").load_checkpoint
