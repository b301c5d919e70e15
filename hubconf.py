"""torch.hub entry points: the public names in `__init__.py`.

    import torch

    repo = "path/to/this/clone"  # or "OWNER/NAME" of a GitHub repository, without source="local"
    model = torch.hub.load(repo, "TSM", (125, 352), 8, "RGB", pretrained="epic-kitchens",
                           source="local").eval()
    names = torch.hub.load(repo, "fetch_class_names", source="local")
    predictor = torch.hub.load(repo, "Predictor", model, names, source="local")
    print(predictor("clip.mp4"))

    frames = torch.hub.load(repo, "load_clip", "clip.mp4", num_segments=8, source="local")
    verbs, nouns = model(model.evaluation_transform()(frames).unsqueeze(0))

Modules: torch.hub's users get them in a package `epic_kitchens_models_<hash>`. The hash is of this
folder and its code, so several versions can live in one process.

Pickles: another process does not have that package. So a pickled object names this folder, and
unpickling (in a worker of a DataLoader, in a later session) has torch.hub load the package from it.
Classes and functions themselves are pickled by name, as usual.
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
    """The private package in pickles: it unpickles the objects of its classes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def register(self, module: _ModuleType) -> None:
        """Register `reduce` for the objects of a module's classes."""
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__:
                _copyreg.pickle(cls, self.reduce)  # for `copy` too

    def reduce(self, instance: _Any) -> tuple[_Any, ...]:
        """Return `instance.__reduce_ex__(2)` with the names of class and module for the class."""
        function, arguments, *state = instance.__reduce_ex__(2)
        cls = type(instance)
        if function is cls:  # exceptions; all else is `copyreg.__newobj__(cls, ...)`
            function, arguments = None, (cls, *arguments)
        return self, (cls.__module__, cls.__name__, function, *arguments[1:]), *state

    def __call__(self, module: str, name: str, function: _Any, *arguments: _Any) -> _Any:
        module = module.partition(".")[2]  # without the package, which may be another version
        cls = getattr(_importlib.import_module(f"{self.name}.{module}"), name)
        return function(cls, *arguments) if function else cls(*arguments)

    def __reduce__(self) -> tuple[_Any, ...]:
        return _functools.partial(_load, source="local"), (str(_ROOT), "_package", self.name)


def _package(name: str) -> _Package:
    """Return the package of that name if this process has it, else this folder's, to unpickle."""
    return _Package(name if name in _sys.modules else _NAME)


def _run(path: _Path) -> _Any:
    """Run a module outside `sys.modules`, where the caller may have one of its name."""
    spec: _Any = _util.spec_from_file_location(path.stem, path)
    module = _util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import_package() -> _Any:
    """Import the private package, once for all threads."""
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
