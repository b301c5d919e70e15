"""What scores are, in memory and under which names in files, and whether some are that."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from checkpoints.errors import list_names, show, type_name
from epic.faults import raise_faults, repeated
from epic.score_pickles import NumpyArray

__all__ = ["FIELDS", "TASKS", "Scores", "validate_scores"]

Scores = dict[str, Any]
"""Scores of S segments: `ids`, a list of S strings without duplicates, and logits, an array of
float32 (or float64) for each task: `verb` (S, V) and `noun` (S, N), or `label` (S, C) where a model
has one task. `video_ids`, a list of S strings, is optional."""

FIELDS = {
    "narration_id": "ids",
    "verb_output": "verb",
    "noun_output": "noun",
    "label_output": "label",
    "video_id": "video_ids",
}
"""Key in a file -> key in `Scores`."""
TASKS = (("verb", "noun"), ("label",))
_MAX_CLAIM = 10
"""Bytes of arrays to bytes of their file, at most. A torch file may be compressed; beyond that, a
tensor or a pickle claims the same bytes many times."""


def validate_scores(scores: Mapping[str, Any], *, file_size: float = math.inf) -> Scores:
    """Return scores of the types that `Scores` says, in memory of their own.

    Args:
        scores: the same, with tensors or lists of rows in the place of arrays, or integers in the
            place of strings.
        file_size: bytes of the file that they are from.

    Raises:
        ValueError: if they cannot be; lists all that is wrong.
    """
    max_bytes = _MAX_CLAIM * file_size
    if tuple(name for tasks in TASKS for name in tasks if name in scores) not in TASKS:
        raise ValueError("the scores must be verb_output and noun_output, or label_output alone")
    valid: Scores = {}
    faults = [] if "ids" in scores else ["narration_id is missing"]
    for key, name in FIELDS.items():
        convert: Callable[[Any, float], Any] = _to_strings if name.endswith("ids") else _to_logits
        if name in scores:
            try:
                valid[name] = convert(scores[name], max_bytes)
            except ValueError as error:
                faults.append(f"{key} {error}")
    lengths = {key: len(valid[name]) for key, name in FIELDS.items() if name in valid}
    if len(set(lengths.values())) > 1:
        faults.append(f"the numbers of segments differ: {lengths}")
    raise_faults([("narration_id has duplicates", repeated(valid.get("ids", [])))], faults)
    return valid


def _to_logits(value: Any, max_bytes: float) -> np.ndarray[Any, Any]:
    """Return an array (S, classes) of its own memory: of an array, or of a list of rows."""
    arrays = _to_arrays(value if isinstance(value, list) else [value], max_bytes)
    shapes = {array.shape for array in arrays}
    dtypes = {array.dtype for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"has rows of {len(shapes)} shapes: {list_names(map(str, shapes))}")
    if {dtype.kind for dtype in dtypes} != {"f"} or max(d.itemsize for d in dtypes) > 8:
        raise ValueError(f"must be float32, got {', '.join(sorted(map(str, dtypes)))}")
    array = np.stack(arrays) if isinstance(value, list) else arrays[0]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"must be of shape (segments, classes), got {array.shape}")
    return np.array(array, np.float64 if array.dtype.itemsize == 8 else np.float32, order="C")


def _to_strings(value: Any, max_bytes: float) -> list[str]:
    if not isinstance(value, list | tuple):
        value = _to_arrays([value], max_bytes)[0].tolist()
    wrong = [v for v in value if not isinstance(v, str | int) or isinstance(v, bool)]
    if wrong:
        raise ValueError(f"has {len(wrong):,} elements that are no strings, first {show(wrong[0])}")
    return [str(v) for v in value]


def _to_arrays(values: list[Any], max_bytes: float) -> list[np.ndarray[Any, Any]]:
    """Return NumPy arrays of arrays and tensors, without copies."""
    arrays = []
    for value in values:
        if isinstance(value, NumpyArray):
            value = value.array
        elif isinstance(value, Tensor):
            try:
                value = value.detach().cpu().numpy()
            except (TypeError, RuntimeError) as error:
                raise ValueError(f"must be float32, got {show(value)} of {value.dtype}") from error
        if not isinstance(value, np.ndarray):
            raise ValueError(f"must hold arrays, got {type_name(value)}")
        arrays.append(value)
    if (claimed := sum(array.nbytes for array in arrays)) > max_bytes:
        raise ValueError(f"claims {claimed:,} bytes, of a file of {max_bytes // _MAX_CLAIM:,}")
    return arrays
