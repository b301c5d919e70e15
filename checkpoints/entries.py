"""Entries of a checkpoint's dictionary, checked: weights, numbers, numbers of segments."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from checkpoints.files import CheckpointError
from checkpoints.wording import kind_of, names_of, shown

__all__ = [
    "UnknownSegmentsError",
    "agreed_segments",
    "clean_state_dict",
    "flag",
    "number",
    "numbers",
    "text",
    "whole_number",
]


_LARGEST = 1_000_000
"""What no whole number of a model comes near, and with which nothing overflows."""
_SHARING = 4
"""How many times its size memory may be used: each tensor that shares it gets its own."""
_LONGEST, _MOST = 100, 1000
"""Characters of a name, and numbers in a list."""
_WRAPPERS = ("_orig_mod", "module", "model")
"""What wrappers add to names: torch.compile; DataParallel, DistributedDataParallel and
AveragedModel; modules of Lightning."""
_ROOTS = ("base_model.", "new_fc.", "fc_verb.", "fc_noun.", "consensus.")
"""What the names of this library's weights begin with."""


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


def agreed_segments(
    recorded: int | None, given: int | None, model_type: str, report: list[str]
) -> int:
    """Return the number of segments to build a model for.

    Args:
        recorded: T according to the file; None where it does not tell.
        given: `num_segments` of the caller; None where it is left to the file.
        model_type: one of `checkpoints.settings.MODEL_TYPES`. The weights of a TSN or TSM do not
            depend on T; those of a TRN or MTRN do.
        report: a number other than the file's is added here.

    Raises:
        UnknownSegmentsError: if nobody tells.
        CheckpointError: if both tell, and differently, of a model whose weights depend on T.
    """
    if given is None:
        if recorded is None:
            raise UnknownSegmentsError(
                "the file does not record its number of segments: pass num_segments, as in "
                "load_checkpoint(path, num_segments=8); programs: --num-segments 8"
            )
        return recorded
    segments = whole_number("num_segments", given)
    if recorded in (None, segments):
        return segments
    if model_type in ("trn", "mtrn"):
        raise CheckpointError(
            f"num_segments must be {recorded} or left out, got {segments}: the file holds a "
            f"{model_type.upper()}, whose relations have weights for {recorded} segments alone"
        )
    report.append(f"took num_segments as {segments}, as asked; the file records {recorded}")
    return segments


def clean_state_dict(entry: Any, report: list[str], *, strict: bool = False) -> dict[str, Tensor]:
    """Return the weights of a file under the network's own names, without those of wrappers.

    The components `_orig_mod`, `module` and `model` are dropped wherever they stand in a name.
    Where there is a network of this library, what else the module around it holds is left out,
    such as the weights of a loss or the counter `n_averaged` of an AveragedModel.

    Args:
        entry: what the file holds as `state_dict`.
        report: what was dropped is added here, in one message.
        strict: whether nothing but the network is expected where its names have no wrapper: what
            else there is stays, to be refused where weights are put into the model.

    Raises:
        CheckpointError: if it holds anything but dense tensors under names, if these claim more
            memory than they share, or if two of them get the same name.
    """
    _require_tensors(entry)
    parts = {name: name.split(".") for name in entry}
    cleaned = {
        name: ".".join([*(part for part in place if part not in _WRAPPERS), leaf])
        for name, (*place, leaf) in parts.items()
    }
    ours = {name: clean for name, clean in cleaned.items() if clean.startswith(_ROOTS)}
    is_around = bool(ours) and not (strict and all(name == ours[name] for name in ours))
    original: dict[str, str] = {}
    for name, clean in cleaned.items():
        if clean == "n_averaged" or (is_around and name not in ours):
            continue
        if clean in original:
            raise CheckpointError(
                f"state_dict holds two weights for {shown(clean)}: {shown(original[clean])} and "
                f"{shown(name)}; remove those that are not wanted"
            )
        original[clean] = name
    dropped = []
    renamed = [name for clean, name in original.items() if name != clean]
    if renamed:
        prefixes = [part for part in _WRAPPERS if any(part in parts[name] for name in renamed)]
        listed = " and ".join(f"'{part}.'" for part in prefixes)
        everywhere = "all " * (len(renamed) == len(original))
        dropped.append(
            f"removed the prefix{'es' * (len(prefixes) > 1)} {listed} from {everywhere}"
            f"{len(renamed)} names"
        )
    if left_out := entry.keys() - original.values():
        dropped.append(f"left out what is not the model's: {names_of(left_out)}")
    if dropped:
        report.append("; ".join(dropped))
    return {clean: entry[name] for clean, name in original.items()}


def _require_tensors(entry: Any) -> None:
    """Refuse what holds anything but dense tensors under names that have the memory they claim."""
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
