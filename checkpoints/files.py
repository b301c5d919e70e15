"""Checkpoint files: read without running code from them, written at once or not at all.

torch's own reader of plain values and tensors (`weights_only`) is the guard. What it does not see
is checked beforehand: archives that unpack to far more than they are, and files of another kind.
Nobody sees a small pickle that copies its values over and over until the memory is full.
"""

import os
import pickle
import re
import threading
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from checkpoints.errors import CheckpointError, corrupt_file_error
from checkpoints.safetensors_file import encode_safetensors, is_safetensors, read_safetensors
from checkpoints.stand_ins import ALLOWED

__all__ = ["atomic_write", "read_file", "write_file"]

_MAX_UNPACKED_RATIO, _ALWAYS_UNPACKED = 10, 64 * 2**20  # of a compressed archive; in bytes
_MAX_READ_ATTEMPTS = 10

_loading = threading.Lock()


def read_file(
    path: str | os.PathLike[str],
    *,
    trust: bool = False,
    allowed: Mapping[str, Any] = ALLOWED,
) -> Any:
    """Return what is in a checkpoint file, on the CPU, without running code from the file.

    Mapping it into memory would hardly be faster, and kill the process once the file is replaced.

    Args:
        path: a file of `torch.save`, of today or before PyTorch 1.6, or of safetensors.
        trust: whether the file may run any code while it is read: only for files whose writer you
            trust as much as a program.
        allowed: what the file may name beside tensors and plain values: name -> what it becomes.

    Returns:
        The object in the file. Unless it is trusted, what it names comes as `allowed` has it.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it cannot be read, is damaged, or holds what could run code.
        ModuleNotFoundError: if the package safetensors is needed and not installed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such checkpoint file: {path}")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    try:
        if is_safetensors(path):
            return read_safetensors(path)
        if trust:
            return torch.load(path, map_location="cpu", weights_only=False, mmap=False)
        return _load_plain(path, _validate_file(path), allowed)
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except CheckpointError:
        raise
    except ImportError as error:
        if error.name is None:  # the package safetensors, as the message says
            raise
        raise CheckpointError(
            f"{path} holds something of the module {error.name!r}, which cannot be imported: put "
            f"it where Python finds it"
        ) from error
    except Exception as error:  # a damaged file raises nearly anything from the depths of torch
        if name := _refused_name(error).removeprefix("builtins."):
            if name.startswith("mmengine."):
                raise CheckpointError(
                    f"{path} holds {name!r}: it is a training file of mmaction2. Where that is "
                    f"installed, save its entries 'meta' and 'state_dict' alone, and load those"
                ) from error
            # Only the readers of checkpoints offer their users to trust a file.
            advice = (
                ". If you trust whoever wrote the file, load it with trust=True (programs: "
                "--trust); better, ask them for one without it"
            )
            raise CheckpointError(
                f"{path} holds {name!r}, which is neither a dense tensor nor a plain value and "
                f"could run code{advice if allowed is ALLOWED else ''}"
            ) from error
        expected = "a checkpoint" if allowed is ALLOWED else "a file of torch.save"
        raise corrupt_file_error(path, error, expected) from error


def _validate_file(path: Path) -> int:
    """Refuse what torch's reader would take for something else; return the unpacked bytes."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                return _validate_archive(archive, size)
        except zipfile.BadZipFile as error:
            raise ValueError("it is cut short or damaged: copy or fetch it again") from error
    if start[:2] != b"\x80\x02":
        hints = {b"": "it is empty", b"vers": "a pointer of git-lfs: git lfs pull fetches the file"}
        page = "a web page, not the file" if start.lstrip()[:1] == b"<" else ""
        hint = page or hints.get(start, "it starts in another way")
        raise ValueError(f"neither a file of torch.save nor of safetensors: {hint}")
    return size


def _validate_archive(archive: zipfile.ZipFile, size: int) -> int:
    entries = archive.infolist()
    names = {entry.filename.lower() for entry in entries}
    # torch looks names up without regard to case, and would find the other of two.
    if len(names) != len(entries):
        raise ValueError("the archive has two records of one name")
    unpacked = sum(entry.file_size for entry in entries)
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if unpacked > (size if stored else max(_MAX_UNPACKED_RATIO * size, _ALWAYS_UNPACKED)):
        raise ValueError(f"its {size:,} bytes claim to unpack to {unpacked:,}")
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError("it is a program of TorchScript (torch.jit.save)")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if not pickles:
        raise ValueError("an archive without the record data.pkl")
    archive.read(pickles[0])  # which compares its check sum; torch does not
    return unpacked


def _load_plain(
    path: Path, limit: int, allowed: Mapping[str, Any], attempts: int = _MAX_READ_ATTEMPTS
) -> Any:
    """Return what torch's reader finds that is `allowed`; weights may claim `limit` bytes."""
    claimed = 0

    def keep_on_cpu(storage: Any, location: str) -> Any:  # torch's type is an old class
        nonlocal claimed
        claimed += storage.nbytes()
        if claimed > limit:  # older versions of torch would read on behind the file's content
            raise ValueError(f"it claims {claimed:,} bytes of weights, but holds {limit:,}")
        return storage

    try:
        with _allow_listed(allowed):
            return torch.load(path, map_location=keep_on_cpu, weights_only=True, mmap=False)
    except pickle.UnpicklingError as error:
        # Another thread's `torch.serialization.safe_globals` may have ended meanwhile, and taken a
        # name away that was there before.
        if attempts == 1 or _refused_name(error) not in allowed:
            raise
        return _load_plain(path, limit, allowed, attempts - 1)


def _refused_name(error: Exception) -> str:
    """Return the name that torch's reader refuses, or "" if it failed for another reason."""
    refused = re.search(r"GLOBAL ([\w.]+) (?:was not an allowed|whose module)", str(error))
    return refused[1] if isinstance(error, pickle.UnpicklingError) and refused else ""


@contextmanager
def _allow_listed(allowed: Mapping[str, Any] = ALLOWED) -> Iterator[None]:
    """Have torch's reader accept these names, and leave its allow-list as it was.

    The list is the process's: one reader at a time, and without the names that the caller has
    allowed already, since leaving the context takes away everything that it was given.
    """
    with _loading:
        present = {
            entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"
            for entry in torch.serialization.get_safe_globals()
        }
        missing = [(kind, name) for name, kind in allowed.items() if name not in present]
        with torch.serialization.safe_globals(missing):  # type: ignore[arg-type]  # pairs are legal
            yield


def write_file(
    contents: Mapping[str, Any], path: str | os.PathLike[str], *, legacy: bool = False
) -> Path:
    """Write a checkpoint dictionary, at once and whole; an existing file is replaced.

    Args:
        contents: what `checkpoints.documented.to_dictionary` returns.
        path: destination; the suffix `.safetensors` makes it one.
        legacy: whether to write the serialisation that PyTorch before 1.6 reads.

    Returns:
        The path.

    Raises:
        OSError: if there is no such folder, or the destination is one.
        ValueError: if safetensors cannot hold something in it, if `legacy` is wanted of them, or if
            something is nested too deeply.
        ModuleNotFoundError: if the package safetensors is needed and not installed.
    """
    path = Path(path)
    safetensors = path.suffix.lower() == ".safetensors"
    if safetensors and legacy:
        raise ValueError(f"legacy must be False for a safetensors file, got True with {path}")
    data = encode_safetensors(contents) if safetensors else None
    try:
        with atomic_write(path) as file:
            if data is not None:
                file.write(data)
            else:
                torch.save(dict(contents), file, _use_new_zipfile_serialization=not legacy)
    except RecursionError as error:
        raise CheckpointError("contents holds values that are nested too deeply") from error
    return path


@contextmanager
def atomic_write(destination: Path) -> Iterator[BinaryIO]:
    """Open a new file that becomes `destination` if the block succeeds, and vanishes otherwise.

    Raises:
        OSError: if there is no such folder, or the destination is one.
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
            try:
                yield file
            except RuntimeError as error:  # of torch.save, in the place of the disk's own
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            # The content must reach the disk before the name does, or a crash leaves neither.
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, destination)
    except OSError as error:
        if error.filename is None:  # as where no space is left
            error.filename = str(destination)
        raise
    finally:
        partial.unlink(missing_ok=True)
