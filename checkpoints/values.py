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

__all__ = ["to_plain"]

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
    try:
        return _Walker(strict=name is not None).plain(value, name or "")
    except RecursionError as error:
        raise CheckpointError("the file holds values that are nested too deeply") from error


class _Walker:
    """Copies each value once, however often others refer to it: a small file can hold 2^100 paths.

    Args:
        strict: whether to refuse what has no plain form.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        # The value is kept beside its copy, so that no other gets its identity.
        self._done: dict[int, tuple[Any, Any]] = {}

    def plain(self, value: Any, place: str) -> Any:
        """Return a value in plain ones; `place` is where it stands, for an error."""
        if id(value) in self._done:
            return self._done[id(value)][1]
        plain: Any
        if isinstance(value, Mapping):
            plain = self._done.setdefault(id(value), (value, {}))[1]
            for key, item in value.items():
                plain[self.plain(key, place)] = self.plain(item, f"{place}[{show(key)}]")
        elif isinstance(value, list):
            plain = self._done.setdefault(id(value), (value, []))[1]
            plain.extend(self.plain(item, f"an item of {place}") for item in value)
        elif isinstance(value, tuple | set) and not isinstance(value, torch.Size):
            items = (self.plain(item, f"an item of {place}") for item in value)
            plain = set(items) if isinstance(value, set) else tuple(items)
        elif isinstance(value, Namespace):
            plain = self._done.setdefault(id(value), (value, Namespace()))[1]
            vars(plain).update(self.plain(vars(value), place))
        elif isinstance(value, ConfigNode):
            self._done[id(value)] = value, None  # a node within itself holds nothing
            plain = self.plain(value.content, place)
        else:
            return self._leaf(value, place)
        self._done[id(value)] = value, plain
        return plain

    def _leaf(self, value: Any, place: str) -> Any:
        if value is ConfigNode:
            return "omegaconf"
        if isinstance(value, PurePath):
            return str(value)
        if isinstance(value, np.generic):
            return value.item()
        sparse = isinstance(value, Tensor) and (value.layout != torch.strided or value.is_quantized)
        if self._strict and (type(value) not in _PLAIN_TYPES or sparse):
            raise ValueError(
                f"{place} must be a plain value (a number, a string, a path, a list or dictionary "
                f"of these), which can be read without running code, got {show(value)}"
            )
        return value
