"""Checkpoints in safetensors files: tensors as tensors, everything else as JSON in the header.

The header's entry `checkpoint` holds the dictionary that `torch.save` would have got, in JSON. What
JSON has no kind for is an object of one entry, whose name starts with a dollar sign:

    {"$tensor": NAME}       the tensor of that name
    {"$tuple": [...]}, {"$set": [...]}, {"$size": [...]}
    {"$namespace": {...}}   argparse.Namespace
    {"$items": [[key, value], ...]}    a dictionary whose keys are not all text
    {"$float": "nan"}, {"$complex": [re, im]}, {"$bytes": HEX}, {"$dtype": "float32"},
    {"$device": "cpu"}

Weights bear their own names, so that other readers find them where they look; other tensors, such
as an optimiser's, are named after their place. A file without that entry is read as weights alone.

Source of the format: https://github.com/huggingface/safetensors
"""

import json
import math
import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints.assign import own_memory
from checkpoints.files import CheckpointError, atomic_write, corrupt_file_error
from checkpoints.plain import plain_values
from checkpoints.wording import key_text, shown

__all__ = ["is_safetensors", "read_safetensors", "write_safetensors"]

_LONGEST_HEADER = 4 * 2**20
"""Bytes; a ResNet-152 with its optimiser has 0.3 MB."""
_MOST_VALUES = 200_000
"""Values beside tensors: what a list holds twice is written twice, and a small one has 2^100."""
_LONGEST_NUMBER = 4096
"""Bits; Python reads and writes no more than 4,300 digits."""
_DTYPES = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
_STORED = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
}
"""What elements of tensors may be in every version of safetensors."""


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as safetensors do: with the length of a header, and the header."""
    with open(path, "rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length + 8 <= Path(path).stat().st_size


def read_safetensors(path: str | os.PathLike[str]) -> Any:
    """What `write_safetensors` wrote, or the weights of anybody else's file.

    Args:
        path: a file that `is_safetensors` accepts.

    Returns:
        The dictionary of the checkpoint; of a file without one, its tensors under their names.
        Tensors are on the CPU and in memory of their own. Mapping the file into memory would take
        the process with it as soon as anybody cut the file short, and be slower.

    Raises:
        CheckpointError: if the file is damaged.
        ModuleNotFoundError: if the package safetensors is not installed.
    """
    library = _library()
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise CheckpointError(
                f"{path} has a header of {length:,} bytes; {_LONGEST_HEADER:,} are the most"
            )
        file.seek(0)
        content = file.read()
    try:
        header = json.loads(content[8 : 8 + length])
        loaded = library.torch.load(content)
        tensors = {name: loaded[name] for name in header if name in loaded}  # in the file's order
        text = header.get("__metadata__", {}).get("checkpoint")
        return tensors if text is None else _decoded(json.loads(text), tensors)
    except Exception as error:  # of the library, of JSON, of whatever the values are made of
        raise corrupt_file_error(Path(path), error) from error


def write_safetensors(contents: Mapping[str, Any], path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Write a checkpoint dictionary beside its destination, and rename it into place.

    Args:
        contents: a dictionary with `state_dict`.
        path: destination; an existing file is replaced, at once and whole.

    Returns:
        What could not be represented, and so is not in the file, a sentence each.

    Raises:
        CheckpointError: if a weight cannot be represented, or if there are too many values, or
            nested too deeply.
        ModuleNotFoundError: if the package safetensors is not installed.
    """
    library = _library()
    encoder = _Encoder()
    try:
        checkpoint = encoder.encoded("", plain_values(dict(contents)))
    except RecursionError as error:
        raise CheckpointError("contents holds values that are nested too deeply") from error
    text = json.dumps(checkpoint, separators=(",", ":"))
    data = library.torch.save(
        own_memory(encoder.tensors), metadata={"format": "pt", "checkpoint": text}
    )
    with atomic_write(Path(path)) as file:
        file.write(data)
    return tuple(encoder.left_out)


def _library() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"safetensors files need the package {error.name!r}: pip install safetensors"
        ) from error
    return safetensors


class _Encoder:
    """Turns values into JSON, and collects the tensors among them.

    Attributes:
        tensors: what goes into the file under names.
        left_out: what cannot be represented, a sentence each.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.left_out: list[str] = []
        self._values = 0

    def encoded(self, place: str, value: Any) -> Any:
        """A value in JSON; `place` is where it stands, its keys joined by dots."""
        self._values += 1
        if self._values > _MOST_VALUES:
            raise CheckpointError(f"contents holds more than {_MOST_VALUES:,} values")
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int) and value.bit_length() <= _LONGEST_NUMBER:
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, Tensor):
            return self._tensor(place, value)
        if isinstance(value, dict):
            return self._dictionary(place, value)
        if isinstance(value, list):
            return self._items(place, value)
        for name, (kind, encode, _) in _KINDS.items():
            if isinstance(value, kind):
                return {name: self.encoded(place, encode(value))}
        self.left_out.append(f"left out {place}, {shown(value)}: safetensors has no kind for it")
        return None

    def _items(self, place: str, items: list[Any]) -> list[Any]:
        return [self.encoded(f"{place}.{index}", item) for index, item in enumerate(items)]

    def _dictionary(self, place: str, value: dict[Any, Any]) -> Any:
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: self.encoded(_inside(place, key), item) for key, item in value.items()}
        pairs = [
            [self.encoded(place, key), self.encoded(_inside(place, key_text(key)), item)]
            for key, item in value.items()
        ]
        return {"$items": pairs}

    def _tensor(self, place: str, tensor: Tensor) -> Any:
        name = place.removeprefix("state_dict.")
        if tensor.layout != torch.strided or tensor.dtype not in _STORED:
            problem = f"a tensor of {tensor.layout} and {tensor.dtype}"
            if place.startswith("state_dict."):
                raise CheckpointError(f"safetensors cannot hold the weight {name}, {problem}")
            self.left_out.append(f"left out {place}, {problem}: safetensors has no kind for it")
            return None
        while name in self.tensors:
            name += "_"
        self.tensors[name] = tensor.detach().cpu()
        return {"$tensor": name}


def _inside(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


_KINDS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "$size": (torch.Size, list, torch.Size),
    "$tuple": (tuple, list, tuple),
    "$set": (set, list, set),
    "$namespace": (
        Namespace,
        lambda value: plain_values(vars(value)),
        lambda entries: _namespace(dict(entries)),
    ),
    "$complex": (complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    "$bytes": (bytes, bytes.hex, bytes.fromhex),
    "$dtype": (torch.dtype, lambda value: str(value).removeprefix("torch."), _DTYPES.__getitem__),
    "$device": (torch.device, str, torch.device),
}
"""Name in JSON -> kind of value, what it becomes in the file, and what makes it again."""


def _namespace(entries: dict[str, Any]) -> Namespace:
    namespace = Namespace()
    vars(namespace).update(entries)  # no name among them means anything to Python
    return namespace


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_Encoder.encoded` encoded."""
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    name = next(iter(value), "")
    if len(value) != 1 or not name.startswith("$"):
        return {key: _decoded(item, tensors) for key, item in value.items()}
    content = value[name]
    if name == "$tensor":
        return tensors[content]
    if name == "$float":
        return float(content)
    content = _decoded(content, tensors)
    if name == "$items":
        return dict(content)
    return _KINDS[name][2](content)
