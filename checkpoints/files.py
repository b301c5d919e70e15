"""Files of `torch.save`, read without running code from them and written at once or not at all."""

import os
import pickle
import re
import threading
import uuid
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import torch

from checkpoints.lightning import LIGHTNING_NAMES
from checkpoints.screening import ForbiddenNameError, screen
from checkpoints.wording import summarise

__all__ = ["CheckpointError", "atomic_write", "corrupt_file_error", "read_file", "write_file"]

_loading = threading.Lock()

_ATTEMPTS = 10
"""How often a file is read that others keep from being read."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint, or one that does not fit what it is wanted for."""


class _NumpyType:
    """Stands for a NumPy dtype while a file is read.

    NumPy's own takes forged sizes at their word: a file could crash the interpreter with it.

    Args:
        code: kind and bytes of a scalar, such as "f8".
        options: what else NumPy passes; of no importance for scalars.
    """

    def __init__(self, code: str, *options: object) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,6}", code):
            raise ValueError(f"unknown kind of NumPy scalar: {code!r}")
        self._code = code
        self._byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise ValueError(f"unknown byte order of a NumPy scalar: {state[1]!r}")
        self._byte_order = state[1]

    def dtype(self) -> "np.dtype[Any]":
        """The NumPy dtype."""
        return np.dtype(f"{self._byte_order}{self._code}")


def _numpy_scalar(kind: "_NumpyType | np.dtype[Any]", data: bytes) -> Any:
    """Plain value of a NumPy scalar: bool, int, float, complex, str or bytes.

    NumPy's own type comes from a caller who has allowed it to all of torch.
    """
    dtype = kind if isinstance(kind, np.dtype) else kind.dtype()
    return np.frombuffer(data, dtype, count=1)[0].item()


def _allowed() -> dict[str, Any]:
    """What a checkpoint may hold beside tensors and plain values; nothing that runs code.

    Paths become their Pure kind, which has no access to any file system, whatever system the file
    was written on. NumPy's scalars, known under the names of its first and second version, become
    plain values. What Lightning writes beside weights becomes stand-ins.
    """
    allowed: dict[str, Any] = {
        **LIGHTNING_NAMES,
        "argparse.Namespace": Namespace,
        "numpy.dtype": _NumpyType,
        "numpy.core.multiarray.scalar": _numpy_scalar,
        "numpy._core.multiarray.scalar": _numpy_scalar,
    }
    for module in ("pathlib", "pathlib._local"):  # the latter is Python 3.13's
        for prefix in ("", "Pure"):
            allowed[f"{module}.{prefix}PosixPath"] = PurePosixPath
            allowed[f"{module}.{prefix}WindowsPath"] = PureWindowsPath
    return allowed


@contextmanager
def _allow_listed(allowed: Mapping[str, Any]) -> Iterator[None]:
    """Let torch's reader accept what `_allowed` lists, and leave its allow-list as it was.

    The list is the process's: one reader at a time, and without the names that the caller has
    allowed already, since leaving the context takes away everything that it was given.
    """
    with _loading:
        present = {_allowed_name(entry) for entry in torch.serialization.get_safe_globals()}
        missing = [(kind, name) for name, kind in allowed.items() if name not in present]
        with torch.serialization.safe_globals(missing):  # type: ignore[arg-type]  # pairs are legal
            yield


def _allowed_name(entry: Any) -> str:
    """Name under which an entry of torch's allow-list is looked up."""
    if isinstance(entry, tuple):
        return str(entry[1])
    return f"{entry.__module__}.{entry.__qualname__}"


def read_file(path: str | os.PathLike[str], *, trust: bool = False) -> Any:
    """What `torch.save` wrote, on the CPU, without running code from the file.

    The file is read rather than mapped into memory: mapping a ResNet-50 saves less than 0.1 s, and
    kills the process as soon as anybody overwrites the file.

    Args:
        path: a file in either serialisation of `torch.save`.
        trust: whether the file may run any code while it is read. Only for files whose writer
            you trust as much as a program that you would start.

    Returns:
        The object in the file. NumPy scalars come as plain values, paths as their Pure kind and
        omegaconf's nodes as `checkpoints.lightning.ConfigNode`, unless the file is trusted.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is not one that `torch.save` wrote, cannot be read, is damaged,
            or holds something that could run code.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such checkpoint file: {path}")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    try:
        if trust:
            return torch.load(path, map_location="cpu", weights_only=False, mmap=False)
        return _read_plain(path)
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except ForbiddenNameError as error:
        if error.name.startswith("mmengine."):
            raise CheckpointError(
                f"{path} holds {error.name!r}: it is a training file of mmaction2, whose layout is "
                f"not read here"
            ) from error
        raise CheckpointError(
            f"{path} holds {error.name!r}, which is neither a dense tensor nor a plain value and "
            f"could run code. If you trust whoever wrote the file, load it with trust=True "
            f"(programs: --trust); better, ask them for one without it"
        ) from error
    except ImportError as error:  # of a trusted file
        raise CheckpointError(
            f"{path} holds something of the module {error.name!r}, which cannot be imported: put "
            f"it where Python finds it"
        ) from error
    except Exception as error:  # a damaged file raises nearly anything from the depths of torch
        raise corrupt_file_error(path, error) from error


def _read_plain(path: Path) -> Any:
    """What is in a file that holds plain values and dense tensors alone."""
    allowed = _allowed()
    with open(path, "rb") as file:
        screen(file, allowed)
    for attempt in range(_ATTEMPTS):
        try:
            with _allow_listed(allowed):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
        except pickle.UnpicklingError:
            # Another thread's `torch.serialization.safe_globals` may have ended meanwhile, and
            # taken a name away that was there before.
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def corrupt_file_error(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that could not be read, with the reason in a line."""
    # torch wraps the line that says what happened in advice or a trace.
    lines = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
    reason = f"{type(error).__name__}: {summarise(lines[:1])}" if lines else type(error).__name__
    return CheckpointError(
        f"{path} ({path.stat().st_size:,} bytes) is not a checkpoint, or is damaged ({reason})"
    )


@contextmanager
def atomic_write(destination: Path) -> Iterator[BinaryIO]:
    """A new file that becomes `destination` if the block succeeds, and vanishes otherwise.

    Args:
        destination: an existing file of that name is replaced, at once and whole.

    Raises:
        FileNotFoundError: if the folder does not exist.
        IsADirectoryError: if the destination is a folder.
    """
    if destination.is_dir():
        raise IsADirectoryError(f"expected the name of a file, got a folder: {destination}")
    if not destination.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {destination.parent}")
    # The same folder, because only within one file system is a rename atomic; an own name, because
    # others may be writing the same file; not `tempfile`, whose files nobody else can read.
    partial = destination.with_name(f"{destination.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "xb") as file:
            yield file
            # The content must reach the disk before the name does, or a crash leaves neither.
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, destination)
    finally:
        partial.unlink(missing_ok=True)


def write_file(
    contents: Mapping[str, Any], path: str | os.PathLike[str], *, legacy: bool = False
) -> Path:
    """Write a checkpoint dictionary beside its destination, and rename it into place.

    Args:
        contents: what `checkpoints.checkpoint.to_dictionary` returns.
        path: destination; an existing file is replaced, at once and whole.
        legacy: write the serialisation that PyTorch before 1.6 reads.

    Returns:
        The path.

    Raises:
        FileNotFoundError: if the folder does not exist.
        IsADirectoryError: if the destination is a folder.
        CheckpointError: if something in it is nested too deeply to be written.
    """
    path = Path(path)
    try:
        with atomic_write(path) as file:
            torch.save(dict(contents), file, _use_new_zipfile_serialization=not legacy)
    except RecursionError as error:
        raise CheckpointError("contents holds values that are nested too deeply") from error
    return path
