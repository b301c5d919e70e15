"""Files of `torch.save`, read without running code from them and written at once or not at all."""

import os
import pickle
import tempfile
import threading
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

__all__ = ["CheckpointError", "read_file", "write_file"]

_loading = threading.Lock()


class CheckpointError(ValueError):
    """A file that is not a checkpoint, or one that does not fit what it is wanted for."""


def _allowed() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What a checkpoint may hold beside tensors and plain values; nothing that runs code.

    Paths become their Pure kind, which has no access to any file system, whatever system the file
    was written on. NumPy's scalars are known under the names of its first and second version.
    """
    scalar = np.float64(0).__reduce__()[0]
    encode = (b"").__reduce_ex__(2)[0]  # how protocol 2 pickles bytes: _codecs.encode or bytes
    kinds = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdFDSU"}
    paths = [("PosixPath", PurePosixPath), ("WindowsPath", PureWindowsPath)]
    allowed: list[Any] = [Namespace, np.dtype, *sorted(kinds, key=str)]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed.append((scalar, f"{module}.scalar"))
    for name, pure in paths:
        for module in ("pathlib", "pathlib._local"):
            allowed += [(pure, f"{module}.{name}"), (pure, f"{module}.Pure{name}")]
    if encode is not bytes:
        allowed.append(encode)
    return allowed


def read_file(path: str | os.PathLike[str], *, trust: bool = False) -> Any:
    """What `torch.save` wrote, on the CPU, without running code from the file.

    Args:
        path: a file in either serialisation of `torch.save`.
        trust: whether the file may run any code while it is read. Only for files whose writer
            you trust as much as a program that you would start.

    Returns:
        The object in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is not one that `torch.save` wrote, is damaged, or holds
            something that could run code.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such checkpoint file: {path}")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    mmap = not trust and zipfile.is_zipfile(path)  # the legacy serialisation cannot be mapped
    try:
        if trust:
            return torch.load(path, map_location="cpu", weights_only=False)
        # The allow-list is the process's: under a lock, and without what the caller has allowed
        # already, since leaving the context takes away everything that it was given.
        with _loading:
            present = {_allowed_name(entry) for entry in torch.serialization.get_safe_globals()}
            missing = [entry for entry in _allowed() if _allowed_name(entry) not in present]
            with torch.serialization.safe_globals(missing):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        refused = _refused_name(str(error))
        if refused is None:
            raise CheckpointError(f"{path} is not a checkpoint: {_first_line(error)}") from error
        raise CheckpointError(
            f"{path} holds {refused!r}, which is neither a tensor nor a plain value and could run "
            f"code. If you trust whoever wrote the file, pass trust=True; better, ask them for "
            f"one without it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError,
            IndexError, ImportError, zipfile.BadZipFile) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is not a checkpoint, or is damaged: "
            f"{_first_line(error)}"
        ) from error


def _allowed_name(entry: Any) -> str:
    """Name under which an entry of torch's allow-list is looked up."""
    if isinstance(entry, tuple):
        return str(entry[1])
    return f"{entry.__module__}.{entry.__qualname__}"


def _refused_name(message: str) -> str | None:
    """The type that torch's reader refused, from its message."""
    for marker in (
        "Unsupported global: GLOBAL ",
        "Unsupported class ",
        "Trying to call reduce for ",
    ):
        if marker in message:
            return message.partition(marker)[2].split()[0].rstrip(".,")
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def write_file(
    contents: Mapping[str, Any], path: str | os.PathLike[str], *, legacy: bool = False
) -> Path:
    """Write a checkpoint dictionary beside its destination, and rename it into place.

    Args:
        contents: what `weights.checkpoint.to_dictionary` returns.
        path: destination; an existing file is replaced, at once and whole.
        legacy: write the serialisation that PyTorch before 1.6 reads.

    Returns:
        The path.

    Raises:
        FileNotFoundError: if the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(dict(contents), file, _use_new_zipfile_serialization=not legacy)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's are private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
