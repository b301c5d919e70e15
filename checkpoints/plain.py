"""Values of a file in plain dictionaries, lists, numbers and texts, which every version reads."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from checkpoints.files import CheckpointError
from checkpoints.lightning import ConfigNode

__all__ = ["plain_values"]


def plain_values(value: Any) -> Any:
    """A value in plain ones: nodes of omegaconf become their content, paths text, and so on.

    Args:
        value: anything that `checkpoints.files.read_file` returns, or options of a program.

    Returns:
        The same, with plain dictionaries, lists and tuples around numbers, texts, and whatever else
        it holds.

    Raises:
        CheckpointError: if it is nested too deeply.
    """
    try:
        return _plain(value, {})
    except RecursionError as error:
        raise CheckpointError("the file holds values that are nested too deeply") from error


def _plain(value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    # Each value once, however often others refer to it: a small file can hold 2^100 paths. The
    # value is kept beside its result, so that no other gets its identity.
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, ConfigNode):
        done[id(value)] = value, None  # a node within itself holds nothing
        plain = _plain(value.content, done)
    elif value is ConfigNode:
        plain = "omegaconf"
    elif isinstance(value, PurePath):
        plain = str(value)
    elif isinstance(value, np.generic):
        plain = value.item()
    elif isinstance(value, Mapping):
        plain = {}
        done[id(value)] = value, plain
        plain.update((_plain(key, done), _plain(item, done)) for key, item in value.items())
    elif isinstance(value, list):
        plain = []
        done[id(value)] = value, plain
        plain.extend(_plain(item, done) for item in value)
    elif isinstance(value, tuple) and not isinstance(value, torch.Size):
        plain = tuple(_plain(item, done) for item in value)
    else:
        return value
    done[id(value)] = value, plain
    return plain
