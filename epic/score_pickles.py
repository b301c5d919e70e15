"""Pickles of NumPy arrays, read without running code: the score files of the original's test.py.

This is the one reader beside torch's. `NUMPY_ARRAYS`, what a file may name, serves both.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import CheckpointError, show
from checkpoints.stand_ins import NumpyType, numpy_scalar, to_dtype

__all__ = ["NUMPY_ARRAYS", "NumpyArray", "read_pickle"]

_MAX_USES = 10
"""How often a pickle may copy each of its bytes; NumPy's does twice at most."""


class NumpyArray:
    """Stands for a NumPy array of numbers or strings, made of bytes that are in the file.

    Attributes:
        array: the array, which may be read-only.
    """

    array: np.ndarray[Any, Any] = np.empty(0)

    def __init__(self, *arguments: object) -> None:  # those of NumPy's empty array
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        array = np.frombuffer(data, to_dtype(kind))
        self.array = array.reshape(shape, order="F" if fortran else "C")


def _numpy_from_buffer(data: bytes, kind: Any, shape: Any, order: str, *_: object) -> NumpyArray:
    """Stand for what NumPy makes contiguous arrays with in pickles of protocol 5."""
    if order not in ("C", "F"):
        raise ValueError(f"unknown order of a NumPy array: {order!r}")
    array = NumpyArray()
    array.__setstate__((1, shape, kind, order == "F", data))
    return array


NUMPY_ARRAYS: dict[str, Any] = {
    "numpy.dtype": NumpyType,
    "numpy.ndarray": NumpyArray,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")  # of NumPy 1 and of NumPy 2
        for name, stand_in in (
            ("multiarray._reconstruct", NumpyArray),
            ("multiarray.scalar", numpy_scalar),
            ("numeric._frombuffer", _numpy_from_buffer),
        )
    },
}
"""What a file of NumPy arrays may name: name -> what it becomes."""


def _encode(text: str, encoding: str) -> bytes:
    """Return the bytes that pickles before protocol 3 hold as a string."""
    if encoding != "latin1":
        raise ValueError(f"bytes in an encoding that NumPy does not use: {encoding!r}")
    return text.encode(encoding)


_FUNCTIONS: dict[str, Callable[..., Any]] = {**NUMPY_ARRAYS, "_codecs.encode": _encode}


def read_pickle(path: Path) -> Any:
    """Return what a plain pickle holds, its arrays as `NumpyArray`.

    Args:
        path: a file of `pickle.dump` of protocol 2 to 5, by NumPy 1 or 2.

    Raises:
        CheckpointError: if it is damaged, or names anything but NumPy's constructors of arrays.
    """
    data = path.read_bytes()
    try:
        # Python's own reader reserves the memory that a pickle claims for its strings and its memo
        # before it sees how short the file is. This one fails for the first.
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if "PUT" in opcode.name and (argument or 0) > count:
                raise ValueError(f"its memo claims {argument:,} elements")
        return _Unpickler(data).load()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = f"{type(error).__name__}: {show(str(error))}"
        raise CheckpointError(
            f"{path} is no pickle of NumPy arrays, or is damaged ({reason})"
        ) from error


class _Unpickler(pickle.Unpickler):
    """A reader of pickles that calls nothing but the stand-ins for NumPy's constructors."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._max_bytes = _MAX_USES * len(data)

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in _FUNCTIONS:
            raise CheckpointError(
                f"it holds {full_name!r}, which is no array of NumPy and could run code"
            )
        # A new object each time: a pickle may set attributes of what it names.
        return partial(self._call, _FUNCTIONS[full_name])

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._max_bytes -= sum(len(a) for a in arguments if isinstance(a, str | bytes | bytearray))
        if self._max_bytes < 0:
            raise ValueError("it copies its values over and over")
        return function(*arguments)
