"""Values beside weights, in plain dictionaries, lists, numbers and strings."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints.errors import CheckpointError, show
from checkpoints.stand_ins import ConfigNode

__all__ = ["is_dense", "to_plain"]

_PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes, Tensor,
                torch.Size, torch.dtype, torch.device)  # fmt: skip


def to_plain(value: Any, name: str | None = None) -> Any:
    """Return a value in plain ones: paths as strings, NumPy scalars as numbers, and so on.

    Args:
        value: what `checkpoints.files.read_file` returns, or options of a program.
        name: what an error calls the value; None: what has no plain form stays as it is.

    Raises:
        CheckpointError: if it is nested too deeply.
        ValueError: if it has a name and holds what could not be read without running code.
    """
    # Each value is copied once: a small file can hold 2^100 paths to it. It is kept beside its
    # copy, so that no other gets its identity.
    done: dict[int, tuple[Any, Any]] = {}

    def copy(value: Any, place: str) -> Any:
        if id(value) in done:
            return done[id(value)][1]
        plain: Any
        if isinstance(value, Mapping):
            plain = done.setdefault(id(value), (value, {}))[1]
            for key, item in value.items():
                plain[copy(key, place)] = copy(item, f"{place}[{show(key)}]")
        elif isinstance(value, list):
            plain = done.setdefault(id(value), (value, []))[1]
            plain.extend(copy(item, f"an item of {place}") for item in value)
        elif isinstance(value, tuple | set) and not isinstance(value, torch.Size):
            items = (copy(item, f"an item of {place}") for item in value)
            plain = set(items) if isinstance(value, set) else tuple(items)
        elif isinstance(value, Namespace):
            plain = done.setdefault(id(value), (value, Namespace()))[1]
            vars(plain).update(copy(vars(value), place))
        elif isinstance(value, ConfigNode):
            done[id(value)] = value, None  # a node within itself holds nothing
            plain = copy(value.content, place)
        else:
            return _leaf(value, place if name else None)
        done[id(value)] = value, plain
        return plain

    try:
        return copy(value, name or "")
    except RecursionError as error:
        raise CheckpointError("the file holds values that are nested too deeply") from error
    except TypeError as error:
        raise CheckpointError("the file holds a dictionary's key that is no plain value") from error


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor is neither sparse, nested nor quantized."""
    return tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized)


def _leaf(value: Any, place: str | None) -> Any:
    if value is ConfigNode:
        return "omegaconf"
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if place is not None and (
        type(value) not in _PLAIN_TYPES or (isinstance(value, Tensor) and not is_dense(value))
    ):
        raise ValueError(
            f"{place} must be a plain value (a number, a string, a path, a list or dictionary of "
            f"these), which can be read without running code, got {show(value)}"
        )
    return value
