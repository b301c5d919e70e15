"""Entries of a checkpoint's dictionary, checked: weights, numbers, numbers of segments."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from weights.assign import summarise
from weights.files import CheckpointError

__all__ = [
    "UnknownSegmentsError",
    "agreed_segments",
    "kind_of",
    "names_of",
    "number",
    "weights_of",
    "whole_number",
]


class UnknownSegmentsError(CheckpointError):
    """A file that does not tell its number of segments, where the caller did not either."""


def kind_of(value: object) -> str:
    """The type of a value, for an error."""
    return f"an empty {type(value).__name__}" if value == {} else type(value).__name__


def names_of(entries: Iterable[Any]) -> str:
    """The first few names of a dictionary, for an error."""
    return summarise(sorted(map(str, entries)))


def number(name: str, value: Any) -> float:
    """A finite number of a file: a plain or NumPy one, a tensor, or digits.

    Raises:
        CheckpointError: if it is anything else.
    """
    try:
        converted = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{name} must be a number, got {value!r}") from error
    if not math.isfinite(converted):
        raise CheckpointError(f"{name} must be a finite number, got {value!r}")
    return converted


def whole_number(name: str, value: Any) -> int:
    """A whole number of a file, of any of the kinds that `number` takes.

    Raises:
        CheckpointError: if it is anything else.
    """
    converted = number(name, value)
    if not converted.is_integer():
        raise CheckpointError(f"{name} must be a whole number, got {value!r}")
    return int(converted)


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
            "load_checkpoint(path, num_segments=8)"
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
        CheckpointError: if it holds anything but dense tensors under names.
    """
    if not isinstance(entry, Mapping) or not entry:
        raise CheckpointError(f"state_dict must be a dictionary of tensors, got {kind_of(entry)}")
    for name, value in entry.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"state_dict must hold tensors under names, got {kind_of(value)} under {name!r}"
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            quantized = "quantized, " if value.is_quantized else ""
            raise CheckpointError(
                f"state_dict must hold dense tensors with values, got one that is {quantized}"
                f"{value.layout}, on the device {value.device}, under {name!r}"
            )
    prefix = "module."
    if all(name.startswith(prefix) for name in entry):
        report.append(f"removed the prefix {prefix!r} from all {len(entry)} names")
        return {name.removeprefix(prefix): value for name, value in entry.items()}
    return dict(entry)
