"""Entries of a checkpoint's dictionary, checked: weights, numbers, numbers of segments."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from weights.files import CheckpointError
from weights.wording import kind_of, shown

__all__ = [
    "UnknownSegmentsError",
    "agreed_segments",
    "flag",
    "number",
    "numbers",
    "text",
    "weights_of",
    "whole_number",
]


_LARGEST = 1_000_000
"""What no whole number of a model comes near, and with which nothing overflows."""
_SHARING = 4
"""How many times its size memory may be used: each tensor that shares it gets its own."""
_LONGEST, _MOST = 100, 1000
"""Characters of a name, and numbers in a list."""


class UnknownSegmentsError(CheckpointError):
    """A file that does not tell its number of segments, where the caller did not either."""


def number(name: str, value: Any) -> float:
    """A finite number of a file: a plain or NumPy one, a tensor, or digits.

    Raises:
        CheckpointError: if it is anything else.
    """
    try:
        converted = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{name} must be a number, got {shown(value)}") from error
    if not math.isfinite(converted):
        raise CheckpointError(f"{name} must be a finite number, got {shown(value)}")
    return converted


def whole_number(name: str, value: Any) -> int:
    """A whole number of a file, of any of the kinds that `number` takes.

    Raises:
        CheckpointError: if it is anything else, or beyond a million.
    """
    converted = number(name, value)
    if not converted.is_integer() or abs(converted) > _LARGEST:
        raise CheckpointError(
            f"{name} must be a whole number up to {_LARGEST:,}, got {shown(value)}"
        )
    return int(converted)


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """A short list of numbers in a file, such as a mean of every channel.

    Raises:
        CheckpointError: if it is anything else.
    """
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST:
        raise CheckpointError(
            f"{name} must be a list of 1 to {_MOST:,} numbers, got {shown(value)}"
        )
    return tuple(number(name, item) for item in value)


def text(name: str, value: Any) -> str:
    """A name in a file.

    Raises:
        CheckpointError: if it is anything but a short text.
    """
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise CheckpointError(
            f"{name} must be a text of at most {_LONGEST} characters, got {shown(value)}"
        )
    return value


def flag(name: str, value: Any) -> bool:
    """A yes or no of a file: a bool, or 0 or 1.

    Raises:
        CheckpointError: if it is anything else.
    """
    if isinstance(value, bool | int) and value in (0, 1):
        return bool(value)
    raise CheckpointError(f"{name} must be a bool, got {shown(value)}")


def agreed_segments(recorded: int | None, given: int | None) -> int:
    """The number of segments that a file tells, or else the caller.

    Args:
        recorded: T according to the file; None where it does not tell.
        given: `num_segments` of the caller; None where it is left to the file.

    Raises:
        UnknownSegmentsError: if nobody tells.
        CheckpointError: if both tell, and differently.
    """
    if recorded is None and given is None:
        raise UnknownSegmentsError(
            "the file does not record its number of segments: pass num_segments, as in "
            "load_checkpoint(path, num_segments=8); programs: --num-segments 8"
        )
    if recorded is None:
        return whole_number("num_segments", given)
    if given is not None and given != recorded:
        raise CheckpointError(
            f"num_segments is only for files that do not record it: this one says {recorded}, "
            f"got {given}"
        )
    return recorded


def weights_of(entry: Any, report: list[str]) -> dict[str, Tensor]:
    """The weights in the entry `state_dict`, without DataParallel's prefix.

    Args:
        entry: the entry.
        report: what was renamed is added here, a sentence each.

    Raises:
        CheckpointError: if it holds anything but dense tensors under names, or if these claim more
            memory than they share.
    """
    if not isinstance(entry, Mapping) or not entry:
        raise CheckpointError(f"state_dict must be a dictionary of tensors, got {kind_of(entry)}")
    for name, value in entry.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"state_dict must hold tensors under names, got {kind_of(value)} under "
                f"{shown(name)}"
            )
        if (
            value.layout != torch.strided
            or value.is_quantized
            or value.device.type != "cpu"
            or value.numel() == 0
        ):
            kind = f"{'quantized, ' * value.is_quantized}{value.layout}, of shape"
            raise CheckpointError(
                f"state_dict must hold dense tensors with values, got one that is {kind} "
                f"{tuple(value.shape)}, on the device {value.device}, under {shown(name)}"
            )
    claimed = sum(value.nbytes for value in entry.values())
    storages = [value.untyped_storage() for value in entry.values()]
    held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if claimed > _SHARING * held:
        raise CheckpointError(
            f"state_dict claims {claimed:,} bytes of weights, but they share {held:,} in memory"
        )
    prefix = "module."
    if all(name.startswith(prefix) for name in entry):
        report.append(f"removed the prefix {prefix!r} from all {len(entry)} names")
        return {name.removeprefix(prefix): value for name, value in entry.items()}
    return dict(entry)
