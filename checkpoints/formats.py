"""Checkpoint files of any format: torch's present one, its old one, and safetensors."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoints.files import read_file, write_file
from checkpoints.safetensors_file import is_safetensors, read_safetensors, write_safetensors

__all__ = ["FORMATS", "format_for", "format_of", "read_any", "write_any"]

FORMATS = ("zip", "legacy", "safetensors")
"""What `torch.save` writes, what it wrote before PyTorch 1.6, and safetensors."""


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a checkpoint file, one of `FORMATS`, by what it holds.

    Args:
        path: a file that `read_any` reads.
    """
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return "zip"
    return "safetensors" if is_safetensors(path) else "legacy"


def format_for(path: str | os.PathLike[str], *, legacy: bool = False) -> str:
    """The format in which to write a file of that name.

    Args:
        path: what ends in `.safetensors` gets that format.
        legacy: whether torch's old format is wanted.

    Raises:
        ValueError: if both are wanted.
    """
    if Path(path).suffix.lower() != ".safetensors":
        return "legacy" if legacy else "zip"
    if legacy:
        raise ValueError(f"legacy must be False for a safetensors file, got True with {path}")
    return "safetensors"


def read_any(path: str | os.PathLike[str], *, trust: bool = False) -> Any:
    """The object in a checkpoint file, without running code from the file.

    Args:
        path: a file in any of `FORMATS`.
        trust: as for `read_file`; safetensors never run code.

    Returns:
        As `read_file` and `read_safetensors`.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: as `read_file` and `read_safetensors`.
        ModuleNotFoundError: if the package safetensors is needed and not installed.
    """
    try:
        safetensors = format_of(path) == "safetensors"
    except OSError:
        safetensors = False  # `read_file` says what is wrong
    return read_safetensors(path) if safetensors else read_file(path, trust=trust)


def write_any(
    contents: Mapping[str, Any], path: str | os.PathLike[str], file_format: str
) -> tuple[str, ...]:
    """Write a checkpoint dictionary beside its destination, and rename it into place.

    Args:
        contents: what `checkpoints.checkpoint.to_dictionary` returns.
        path: destination; an existing file is replaced, at once and whole.
        file_format: one of `FORMATS`.

    Returns:
        What could not be represented, and so is not in the file, a sentence each.

    Raises:
        FileNotFoundError: if the folder does not exist.
        IsADirectoryError: if the destination is a folder.
        CheckpointError: as `write_file` and `write_safetensors`.
        ModuleNotFoundError: if the package safetensors is needed and not installed.
    """
    if file_format == "safetensors":
        return write_safetensors(contents, path)
    write_file(contents, path, legacy=file_format == "legacy")
    return ()
