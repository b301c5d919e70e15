"""Checkpoints in safetensors files: weights, and what is known of them as JSON in the header.

The header's entry `config` holds the documented format's dictionary (`checkpoints.documented`)
without the weights, in JSON; `args` is an object there. A file without that entry is read as
weights alone. What JSON cannot hold, such as the state of an optimiser, stays in `.pth.tar` files.

Source of the format: https://github.com/huggingface/safetensors
"""

import json
from argparse import Namespace
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from checkpoints.errors import CheckpointError, corrupt_file_error, show
from checkpoints.values import to_plain

__all__ = ["encode_safetensors", "is_safetensors", "read_safetensors", "to_json"]

_MAX_JSON_PIECES = 200_000


def is_safetensors(path: Path) -> bool:
    """Return whether a file starts with the length of a header, and the header."""
    with open(path, "rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length + 8 <= path.stat().st_size


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the dictionary of a checkpoint, or the weights alone of anybody else's file."""
    library = _library()
    content = path.read_bytes()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
        loaded = library.torch.load(content)
        tensors = {name: loaded[name] for name in header if name in loaded}  # in the file's order
        config = json.loads(metadata["config"]) if "config" in metadata else None
    except Exception as error:  # of the library, or of JSON
        raise corrupt_file_error(path, error) from error
    if "checkpoint" in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file of an early version of this library, with values in a "
            f"grammar of its own, which is no longer read: convert the file that it is from again"
        )
    if config is None:
        return tensors
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: the header's config must be an object, got {show(config)}")
    return {**config, "state_dict": tensors}


def encode_safetensors(contents: Mapping[str, Any]) -> bytes:
    """Return the content of a safetensors file with a dictionary of the documented format.

    Raises:
        ValueError: if it holds the state of an optimiser, or what safetensors cannot hold.
    """
    library = _library()
    if contents.get("optimizer") is not None:
        raise ValueError(
            "optimizer must be None for a safetensors file, which holds weights and their config: "
            "a file whose name ends in .pth.tar holds the optimiser's state too"
        )
    config = {
        name: to_json(name, vars(value) if isinstance(value, Namespace) else value)
        for name, value in contents.items()
        if name not in ("state_dict", "optimizer")
    }
    try:
        # Copied, since safetensors holds nothing that shares memory or has another layout.
        state = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in contents["state_dict"].items()
        }
        data: bytes = library.torch.save(
            state, metadata={"format": "pt", "config": json.dumps(config)}
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"state_dict holds what safetensors cannot hold: {error}") from error
    return data


def to_json(name: str, value: Any) -> Any:
    """Return a value as JSON gives it back, or raise a ValueError if JSON has no form for it."""
    try:
        # In pieces, since what a list holds twice is written twice, and a small one has 2^100.
        pieces = json.JSONEncoder(allow_nan=False).iterencode(to_plain(value))
        text = "".join(islice(pieces, _MAX_JSON_PIECES))
        if next(pieces, None) is not None:
            raise ValueError(f"more than {_MAX_JSON_PIECES:,} values")
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} must be JSON in a safetensors file (numbers, strings, lists, dictionaries): "
            f"{error}; a file whose name ends in .pth.tar holds more"
        ) from error


def _library() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"safetensors files need the package {error.name!r}: pip install safetensors"
        ) from error
    return safetensors
