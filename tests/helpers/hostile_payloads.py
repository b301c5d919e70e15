"""What runs code in whoever reads it without care, and the places of a checkpoint to hide it in."""

import functools
import importlib
import marshal
import operator
import os
import pickle
import runpy
import subprocess
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from helpers.original_format import Global, write


class EvilNamespace(Namespace):
    """Looks like the options that every published file holds, and runs code when it is made."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return EvilNamespace, (self.command,), {"state": 1}

    def __setstate__(self, state: object) -> None:
        os.system(self.command)


class Function(Global):
    """What pickles as a call that returns a function, which is called in turn."""

    def __call__(self, *_: object) -> None:
        raise AssertionError("only its pickle is called")


def _touch(marker: Path) -> str:
    return f"touch '{marker}'"


def _source(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


def _program(marker: Path) -> str:
    path = marker.with_suffix(".py")
    path.write_text(_source(marker))
    return str(path)


def _inner(marker: Path) -> str:
    return str(write(Global(os.system, _touch(marker)), marker.with_suffix(".inner")))


_OS = Global(importlib.import_module, "os")
PAYLOADS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda m: Global(os.system, _touch(m)),
    "eval": lambda m: Global(eval, _source(m)),
    "exec": lambda m: Global(exec, _source(m)),
    "open": lambda m: Global(open, str(m), "w"),
    "a process": lambda m: Global(subprocess.check_call, ["touch", str(m)]),
    "nested reduce": lambda m: Global(Function(getattr, _OS, "system"), _touch(m)),
    "partial": lambda m: Global(functools.partial(os.system, _touch(m))),
    "methodcaller": lambda m: Global(operator.methodcaller("system", _touch(m)), _OS),
    "a lambda": lambda m: Global(
        Function(
            Function(getattr, Global(importlib.import_module, "types"), "FunctionType"),
            Global(marshal.loads, marshal.dumps(compile(_source(m), "lambda", "exec"))),
            {"__builtins__": {"open": open}},
        )
    ),
    "a Namespace subclass": lambda m: EvilNamespace(_touch(m)),
    "a code object": lambda m: Global(exec, Global(compile, _source(m), "a", "exec")),
    "a pickle within": lambda m: Global(pickle.loads, pickle.dumps(Global(os.system, _touch(m)))),
    "a program": lambda m: Global(runpy.run_path, _program(m)),
    "map": lambda m: Global(list, Global(map, os.system, [_touch(m)])),
    "torch's own loader": lambda m: Global(
        functools.partial(torch.load, weights_only=False), _inner(m)
    ),
}
"""What creates the file `marker` when a reader that runs code reads it."""

WEIGHTS = OrderedDict(weight=torch.arange(6.0).reshape(2, 3))
CONTENTS = {"model_type": "tsn", "epoch": 3, "state_dict": WEIGHTS}


def _with_metadata(evil: Any) -> Any:
    state = WEIGHTS.copy()
    state._metadata = {"": evil}  # type: ignore[attr-defined]  # as `nn.Module.state_dict` has it
    return state


PLACES: dict[str, Callable[[Any], Any]] = {
    "the whole file": lambda evil: evil,
    "an entry": lambda evil: {**CONTENTS, "epoch": evil},
    "args": lambda evil: {**CONTENTS, "args": Namespace(lr=[{"a": (evil,)}])},
    "optimizer": lambda evil: {**CONTENTS, "optimizer": {"state": {0: {"m": evil}}}},
    "state_dict": lambda evil: {**CONTENTS, "state_dict": OrderedDict(weight=evil)},
    "metadata of state_dict": lambda evil: {**CONTENTS, "state_dict": _with_metadata(evil)},
    "hyper_parameters": lambda evil: {"state_dict": WEIGHTS, "hyper_parameters": {"data": evil}},
}
