"""Stand-ins for classes that checkpoint files name beside tensors: they keep state and run nothing.

Lightning writes its hyper-parameters as the objects that they are, an omegaconf tree or a
dictionary of its own kind, and names its callbacks by their classes. It need not be installed.
"""

import re
from argparse import Namespace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

__all__ = ["ALLOWED", "ConfigNode", "NumpyType", "numpy_scalar", "to_dtype"]


class ConfigNode:
    """Stands for any node of an omegaconf tree: a dictionary, a list or a value.

    Attributes:
        content: what the node holds: nodes in a dictionary or a list, or a plain value.
    """

    content: Any = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Parents and types, which a node holds too, are not wanted.
        self.content = state["_content"] if "_content" in state else state["_val"]


class _Unread:
    """Stands for what is of no interest, and keeps nothing of it."""

    def __setstate__(self, state: Any) -> None:
        pass


def _empty_dictionary(*arguments: object) -> dict[Any, Any]:
    """Stand for `collections.defaultdict`, whose factory would be code from the file."""
    return {}


class NumpyType:
    """Stands for a NumPy dtype, which takes forged sizes at their word and can crash Python."""

    def __init__(self, code: str, *options: object) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,6}", code):
            raise ValueError(f"unknown kind of NumPy value: {code!r}")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise ValueError(f"unknown byte order of a NumPy scalar: {state[1]!r}")
        self.code = f"{state[1]}{self.code}"


def numpy_scalar(kind: "NumpyType | np.dtype[Any]", data: bytes) -> Any:
    """Return the plain value of a NumPy scalar: bool, int, float, complex, str or bytes.

    NumPy's own type comes from a caller who has allowed it to all of torch.
    """
    return np.frombuffer(data, to_dtype(kind), count=1)[0].item()


def to_dtype(kind: "NumpyType | np.dtype[Any]") -> np.dtype[Any]:
    """Return NumPy's own type."""
    return kind if isinstance(kind, np.dtype) else np.dtype(kind.code)


_OMEGACONF_NODES = ("dictconfig.DictConfig", "listconfig.ListConfig", *(
    f"nodes.{kind}Node"
    for kind in ("Any", "Boolean", "Bytes", "Float", "Integer", "Path", "String")
))  # fmt: skip
_KEPT_AS_NAMES = (
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str")),
    *(f"typing.{name}" for name in ("Any", "Dict", "List", "Optional", "Union")),
    *(
        f"{package}.callbacks.{callback}"
        for package in ("pytorch_lightning", "lightning.pytorch")
        for callback in ("early_stopping.EarlyStopping", "model_checkpoint.ModelCheckpoint")
    ),
)
_LIGHTNING_DICTIONARIES = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)

ALLOWED: dict[str, Any] = {
    "argparse.Namespace": Namespace,
    # Paths become their Pure kind, which has no access to any file system; 3.13 has `_local`.
    **{
        f"{module}.{pure}{name}": kind
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for name, kind in (("PosixPath", PurePosixPath), ("WindowsPath", PureWindowsPath))
    },
    "numpy.dtype": NumpyType,
    "numpy.core.multiarray.scalar": numpy_scalar,
    "numpy._core.multiarray.scalar": numpy_scalar,
    **{f"omegaconf.{name}": ConfigNode for name in _OMEGACONF_NODES},
    "omegaconf.base.Metadata": _Unread,
    "omegaconf.base.ContainerMetadata": _Unread,
    "collections.defaultdict": _empty_dictionary,
    **{name: name for name in _KEPT_AS_NAMES},
    **dict.fromkeys(_LIGHTNING_DICTIONARIES, dict),
}
"""What a file may name beside tensors and plain values: name -> what it becomes."""
