"""Errors about checkpoint files, and how they show what is in a file: short, whatever it holds."""

import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from data.options import first_few

__all__ = ["CheckpointError", "UnknownSegmentsError", "corrupt_file_error", "join_names",
           "key_to_str", "list_names", "show", "type_name"]  # fmt: skip

_MAX_NAME_LENGTH = 200


class CheckpointError(ValueError):
    """A file that is not a checkpoint, or one that does not fit what it is wanted for."""


class UnknownSegmentsError(CheckpointError):
    """A file that does not record its number of segments, where the caller gave none either."""


def corrupt_file_error(
    path: Path, error: Exception, expected: str = "a checkpoint"
) -> CheckpointError:
    """Return the error for a file that could not be read, with the reason in one line."""
    # torch wraps the line that says what happened in advice or a trace.
    lines = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
    reason = f"{type(error).__name__}: {join_names(lines[:1])}" if lines else type(error).__name__
    return CheckpointError(
        f"{path} ({path.stat().st_size:,} bytes) is not {expected}, or is damaged ({reason})"
    )


class _Short(reprlib.Repr):
    """Plain values as Python writes them, cut short; of everything else its type alone."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 60

    def repr_instance(self, x: object, level: int) -> str:
        if x is None or isinstance(x, bool | float | complex):
            return repr(x)
        if isinstance(x, bytes):
            return repr(x[: self.maxstring])
        if isinstance(x, Tensor):
            return "a nested tensor" if x.is_nested else f"a tensor of shape {tuple(x.shape)}"
        return f"a value of type {type(x).__name__}"

    def repr_int(self, x: int, level: int) -> str:
        return str(x) if x.bit_length() < 200 else f"a number of {x.bit_length()} bits"


_short = _Short()


def show(value: object) -> str:
    """Return a value as text: short, on one line, and without following it to any depth."""
    return _short.repr(value)


def type_name(value: object) -> str:
    """Return the type of a value, for an error."""
    name = type(value).__name__
    return f"an empty {name}" if isinstance(value, dict) and not value else name


def key_to_str(key: object) -> str:
    """Return a key of a dictionary as text."""
    return key if isinstance(key, str) else show(key)


def list_names(keys: Iterable[Any]) -> str:
    """Return the first few keys of a dictionary, sorted, and how many more there are."""
    return join_names(sorted(map(key_to_str, keys)))


def join_names(names: Iterable[str]) -> str:
    """Return the first few names, and how many more there are."""
    return first_few(
        n if len(n) <= _MAX_NAME_LENGTH else f"{n[:_MAX_NAME_LENGTH]}..." for n in names
    )
