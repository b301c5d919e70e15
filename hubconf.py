"""torch.hub entry points: TSN, TRN, MTRN, TSM and load_checkpoint.

    import torch
    model = torch.hub.load("path/to/this/clone", "TSN", (125, 352), 8, "RGB", source="local")

Modules of this repository have plain names (`ops`, `data`, `tsn`), which a caller may well use too.
They are therefore imported under a private package, `epic_kitchens_models_<hash>`: their own
imports of one another are redirected into it as they are compiled, so that the plain names neither
enter `sys.modules` nor ever come from the caller. The hash is of this folder and of the code in it;
several versions can live in one process.

Another process knows no such package. A pickle therefore says in which folder the package is made,
and whoever reads it (a worker of a DataLoader, a later session) has torch.hub load it from there.
Only objects are pickled that way: classes and functions themselves travel by name.
"""

import ast as _ast
import copyreg as _copyreg
import functools as _functools
import hashlib as _hashlib
import importlib as _importlib
import sys as _sys
from importlib import machinery as _machinery
from importlib import util as _util
from pathlib import Path as _Path
from threading import Lock as _Lock
from types import CodeType as _CodeType
from types import ModuleType as _ModuleType
from typing import Any as _Any

from torch.hub import load as _load

dependencies = ["torch", "torchvision", "numpy", "PIL"]

_ROOT = _Path(__file__).resolve().parent
_SOURCES = {
    ".".join(path.relative_to(_ROOT).with_suffix("").parts): path.read_bytes()
    for folder in (".", "ops", "weights", "data")
    for path in sorted(_ROOT.glob(f"{folder}/*.py"))
    if path.is_file() and path.stem != "__init__"  # the lock of an editor is a link to nowhere
}
_OWN = {name.partition(".")[0] for name in _SOURCES}
_NAME = (
    "epic_kitchens_models_"
    + _hashlib.sha256(repr((str(_ROOT), _SOURCES)).encode()).hexdigest()[:12]
)


class _Redirect(_ast.NodeTransformer):
    """`from ops.relation import X` becomes `from <package>.ops.relation import X`."""

    def visit_ImportFrom(self, node: _ast.ImportFrom) -> _ast.ImportFrom:
        if node.level == 0 and node.module and node.module.split(".")[0] in _OWN:
            node.module = f"{_NAME}.{node.module}"
        return node


class _Loader(_machinery.SourceFileLoader):
    """Runs one module with its imports redirected; no bytecode is cached under plain names."""

    def get_code(self, fullname: str) -> _CodeType:
        source = _SOURCES[fullname.partition(".")[2]]  # what was hashed, whatever lies there now
        return compile(_Redirect().visit(_ast.parse(source, self.path)), self.path, "exec")

    def exec_module(self, module: _ModuleType) -> None:
        super().exec_module(module)
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                _copyreg.pickle(kind, _sys.modules[_NAME].reduce)  # `copy` uses it too


class _Package(_ModuleType):
    """The private package: finds its modules, and makes objects of their classes for pickles."""

    def __init__(self) -> None:
        super().__init__(_NAME)
        self.__spec__ = _machinery.ModuleSpec(_NAME, None, is_package=True)
        self.__path__ = []
        self.lock = _Lock()

    def find_spec(self, name: str, path: _Any = None, target: _Any = None) -> _Any:
        package, _, own = name.partition(".")
        if package == _NAME and own in _SOURCES:
            file = str(_ROOT.joinpath(*own.split(".")).with_suffix(".py"))
            return _util.spec_from_file_location(name, file, loader=_Loader(name, file))
        if package == _NAME and own in _OWN:
            return _machinery.ModuleSpec(name, None, is_package=True)
        return None

    def reduce(self, thing: _Any) -> tuple[_Any, ...]:
        """`thing.__reduce_ex__`, with the names of class and module in the place of the class."""
        function, arguments, *state = thing.__reduce_ex__(2)
        kind = type(thing)
        if function is kind:  # exceptions; all else is `copyreg.__newobj__(kind, ...)`
            function, arguments = None, (kind, *arguments)
        return self, (kind.__module__, kind.__name__, function, *arguments[1:]), *state

    def __call__(self, module: str, name: str, function: _Any, *arguments: _Any) -> _Any:
        own = module.partition(".")[2]  # what was pickled may be of another version
        kind = getattr(_module(own), name)
        return function(kind, *arguments) if function else kind(*arguments)

    def __reduce__(self) -> tuple[_Any, ...]:
        return _functools.partial(_load, source="local"), (str(_ROOT), "_package", _NAME)


def _package(name: str) -> _Any:
    """What pickles load: the package of that name if this process has it, else this folder's."""
    return _sys.modules.get(name, _PACKAGE)


def _module(name: str) -> _Any:
    """A module of this repository from its private package."""
    return _importlib.import_module(f"{_NAME}.{name}")


_PACKAGE: _Any = _sys.modules.setdefault(_NAME, _Package())
with _PACKAGE.lock:  # threads may get here at once
    if _PACKAGE not in _sys.meta_path:
        _sys.meta_path.append(_PACKAGE)

TSN = _module("tsn").TSN
TRN = _module("trn").TRN
MTRN = _module("trn").MTRN
TSM = _module("tsm").TSM
load_checkpoint = _module("model_loader").load_checkpoint
