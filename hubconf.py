"""torch.hub entry points: the public names of the package that `__init__.py` makes.

    import torch
    model = torch.hub.load("path/to/this/clone", "TSN", (125, 352), 8, "RGB", source="local")

For torch.hub the package is called `epic_kitchens_models_<hash>`. The hash is of this folder and of
the code in it, so that several versions can live in one process.

Another process knows no such package. A pickle therefore says in which folder the package is made,
and whoever reads it (a worker of a DataLoader, a later session) has torch.hub load it from there.
Only objects are pickled that way: classes and functions themselves travel by name.
"""

import copyreg as _copyreg
import functools as _functools
import hashlib as _hashlib
import importlib as _importlib
import sys as _sys
from importlib import util as _util
from pathlib import Path as _Path
from types import ModuleType as _ModuleType
from typing import Any as _Any

from torch.hub import load as _load

dependencies = ["torch", "torchvision", "numpy", "PIL"]

_ROOT = _Path(__file__).resolve().parent


class _Package:
    """A private package, as pickles know it: makes objects of its classes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def register(self, module: _ModuleType) -> None:
        """Have objects of a module's classes pickled by this package."""
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                _copyreg.pickle(kind, self.reduce)  # `copy` uses it too

    def reduce(self, thing: _Any) -> tuple[_Any, ...]:
        """`thing.__reduce_ex__`, with the names of class and module in the place of the class."""
        function, arguments, *state = thing.__reduce_ex__(2)
        kind = type(thing)
        if function is kind:  # exceptions; all else is `copyreg.__newobj__(kind, ...)`
            function, arguments = None, (kind, *arguments)
        return self, (kind.__module__, kind.__name__, function, *arguments[1:]), *state

    def __call__(self, module: str, name: str, function: _Any, *arguments: _Any) -> _Any:
        own = module.partition(".")[2]  # what was pickled may be of another version
        kind = getattr(_importlib.import_module(f"{self.name}.{own}"), name)
        return function(kind, *arguments) if function else kind(*arguments)

    def __reduce__(self) -> tuple[_Any, ...]:
        return _functools.partial(_load, source="local"), (str(_ROOT), "_package", self.name)


def _package(name: str) -> _Package:
    """What pickles load: the package of that name if this process has it, else this folder's."""
    return _Package(name if name in _sys.modules else _NAME)


def _run(path: _Path) -> _Any:
    """A module that is run for this file alone: plain names may be taken in `sys.modules`."""
    spec: _Any = _util.spec_from_file_location(path.stem, path)
    module = _util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import_package() -> _Any:
    """The private package, imported by the first who gets here; threads may do so at once."""
    finder = _loader.Finder(_NAME, _MODULES, _Package(_NAME).register)
    _sys.meta_path.insert(0, finder)
    try:
        return _importlib.import_module(_NAME)
    finally:
        spec = getattr(_sys.modules.get(_NAME), "__spec__", None)
        if spec is None or spec.loader.finder is not finder:
            _sys.meta_path.remove(finder)


_loader = _run(_ROOT / "package_loader.py")
_MODULES = _loader.read_modules(_ROOT)
_NAME = (
    "epic_kitchens_models_"
    + _hashlib.sha256(repr((str(_ROOT), _MODULES)).encode()).hexdigest()[:12]
)
_PACKAGE = _import_package()
globals().update({name: getattr(_PACKAGE, name) for name in _PACKAGE.__all__})
