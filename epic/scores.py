"""Score files: what models say about the segments of a dataset, one row of logits a segment.

They are those of https://github.com/epic-kitchens/C1-Action-Recognition, whose programs read what
`write_scores` writes.

Differences from the original:
    A file is read by its content, whatever its suffix, and never runs code. Several files are fused
    with weights, if wanted. A file may hold the scores of one task alone.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints.errors import CheckpointError, join_names, list_names, show, type_name
from checkpoints.files import atomic_write, read_file
from checkpoints.stand_ins import NUMPY_ARRAYS, NumpyArray
from epic.score_pickles import read_pickle

__all__ = ["Scores", "fuse_scores", "read_scores", "write_scores"]

Scores = dict[str, Any]
"""Scores of S segments: `ids`, a list of S strings without duplicates, and logits, an array of
float32 (or float64) for each task: `verb` (S, V) and `noun` (S, N), or `label` (S, C) where a model
has one task. `video_ids`, a list of S strings, is optional."""

_FIELDS = {
    "narration_id": "ids",
    "verb_output": "verb",
    "noun_output": "noun",
    "label_output": "label",
    "video_id": "video_ids",
}
"""Key in a file -> key in `Scores`."""
_TASKS = (("verb", "noun"), ("label",))
_MAX_CLAIM = 10
"""Bytes of arrays to bytes of their file, at most. A torch file may be compressed; beyond that, a
tensor or a pickle claims the same bytes many times."""
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The beginning of a file of torch.save before PyTorch 1.6, a pickle as well."""


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Read a score file, in whichever layout the original's programs write it.

    The layouts are a dictionary of arrays or tensors, and a list of dictionaries, one a segment,
    either of them pickled or saved by `torch.save`. Their keys are `verb_output` and `noun_output`
    (or `label_output`), `narration_id` and, optionally, `video_id`.

    Args:
        path: the file. No code in it ever runs.

    Returns:
        The scores, in the order of the file. float16 becomes float32; NaN stays. Ids that are
        integers, such as the uids of EPIC-KITCHENS-55, become strings.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is no such file; lists what is wrong with its fields.
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(len(_LEGACY_TORCH))
    try:
        if start[:1] == b"\x80" and start != _LEGACY_TORCH:
            contents = read_pickle(path)
        else:
            contents = read_file(path, allowed=NUMPY_ARRAYS)
    except CheckpointError as error:
        raise ValueError(f"not a score file: {error}") from error
    if isinstance(contents, list):
        contents = _to_columns(path, contents)
    if not isinstance(contents, dict):
        raise ValueError(
            f"{path}: expected a dictionary of arrays or a list of dictionaries, one a segment, "
            f"got {type_name(contents)}"
        )
    scores = {name: contents[key] for key, name in _FIELDS.items() if key in contents}
    try:
        return _validate(scores, max_bytes=_MAX_CLAIM * path.stat().st_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error} (the file has {list_names(contents)})") from error


def write_scores(path: str | os.PathLike[str], scores: Mapping[str, Any]) -> Path:
    """Write a score file, at once and whole; an existing file is replaced.

    It is a `torch.save` of a list of dictionaries, one a segment, of tensors and strings: every
    PyTorch reads it, and so do the programs of the original.

    Args:
        path: destination, whose suffix is `.pt`.
        scores: what `Scores` describes; arrays may be tensors.

    Returns:
        The path.

    Raises:
        OSError: if there is no such folder, or the destination is one.
        ValueError: if the suffix is another, or something is wrong with the scores: all of it.
    """
    path = Path(path)
    if path.suffix.lower() != ".pt":
        raise ValueError(f"path must end in .pt, by which others know how to read it: got {path}")
    valid = _validate(scores)
    columns = {
        # All rows share one memory, and so one record of the file.
        key: torch.from_numpy(valid[name]) if isinstance(valid[name], np.ndarray) else valid[name]
        for key, name in _FIELDS.items()
        if name in valid
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with atomic_write(path) as file:
        torch.save(rows, file)
    return path


def fuse_scores(
    scores: Sequence[Mapping[str, Any]], weights: Sequence[float] | None = None
) -> Scores:
    """Return the mean of the logits of several models, segment by segment.

    Args:
        scores: scores of the same segments, in any order.
        weights: a positive weight for each of them. Where they are equal, or None, the mean is the
            original's, bit for bit, which is computed in the precision of the scores; otherwise it
            is computed in float64 and rounded.

    Returns:
        The scores, sorted by id; `video_ids` are those of the first.

    Raises:
        ValueError: if ids, tasks or numbers of classes differ, or the weights are wrong.
    """
    if not scores:
        raise ValueError("scores must hold at least one element, got none")
    if weights is not None and (
        len(weights) != len(scores) or not all(math.isfinite(w) and w > 0 for w in weights)
    ):
        raise ValueError(
            f"weights must be {len(scores)} positive numbers, one for each of the scores, "
            f"got {list(weights)}"
        )
    fused, *others = ordered = [_sort(_validate(one)) for one in scores]
    for number, other in enumerate(others, 2):
        if fused["ids"] != other["ids"]:
            first, second = set(fused["ids"]), set(other["ids"])
            raise ValueError(
                f"scores must be of the same segments: {len(first - second):,} are in scores 1 "
                f"alone ({list_names(first - second) or 'none'}) and {len(second - first):,} in "
                f"scores {number} alone ({list_names(second - first) or 'none'})"
            )
        if _num_class(fused) != _num_class(other):
            raise ValueError(
                f"scores must have the same classes: scores 1 have {_num_class(fused)}, scores "
                f"{number} have {_num_class(other)}"
            )
    plain = weights is None or len(set(weights)) == 1
    for task in _num_class(fused):
        stacked = np.stack([one[task] for one in ordered])
        mean = np.average(stacked, axis=0, weights=None if plain else np.array(weights, np.float64))
        fused[task] = mean.astype(stacked.dtype, copy=False)
    return fused


def _num_class(scores: Scores) -> dict[str, int]:
    return {name: scores[name].shape[1] for tasks in _TASKS for name in tasks if name in scores}


def _sort(scores: Scores) -> Scores:
    ids = scores["ids"]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return {
        name: value[order] if isinstance(value, np.ndarray) else [value[i] for i in order]
        for name, value in scores.items()
    }


def _to_columns(path: Path, rows: list[Any]) -> dict[str, list[Any]]:
    """Convert a list of dictionaries to a dictionary of lists."""
    first = rows[0] if rows else None
    if not isinstance(first, dict):
        raise ValueError(f"{path}: expected dictionaries, one a segment, got {type_name(first)}")
    keys = [key for key in _FIELDS if key in first]
    wrong = [
        str(i)
        for i, row in enumerate(rows)
        if not isinstance(row, dict) or [key for key in _FIELDS if key in row] != keys
    ]
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong):,} of {len(rows):,} elements of the list are no dictionaries "
            f"with the keys of the first, {', '.join(keys)}: elements {join_names(wrong)}"
        )
    return {key: [row[key] for row in rows] for key in keys}


def _validate(scores: Mapping[str, Any], max_bytes: float = math.inf) -> Scores:
    """Return scores of the types that `Scores` says, or raise one error about all that is wrong."""
    if tuple(name for tasks in _TASKS for name in tasks if name in scores) not in _TASKS:
        raise ValueError("the scores must be verb_output and noun_output, or label_output alone")
    valid: Scores = {}
    faults = [] if "ids" in scores else ["narration_id is missing"]
    for key, name in _FIELDS.items():
        convert: Callable[[Any, float], Any] = _to_strings if name.endswith("ids") else _to_logits
        if name in scores:
            try:
                valid[name] = convert(scores[name], max_bytes)
            except ValueError as error:
                faults.append(f"{key} {error}")
    counts: Counter[str] = Counter(valid.get("ids"))
    if duplicates := [name for name, count in counts.items() if count > 1]:
        faults.append(f"narration_id has {len(duplicates):,} duplicates: {list_names(duplicates)}")
    lengths = {key: len(valid[name]) for key, name in _FIELDS.items() if name in valid}
    if len(set(lengths.values())) > 1:
        faults.append(f"the numbers of segments differ: {lengths}")
    if faults:
        raise ValueError("; ".join(faults))
    return valid


def _to_logits(value: Any, max_bytes: float) -> np.ndarray[Any, Any]:
    """Return an array (S, classes) of its own memory: of an array, or of a list of rows."""
    arrays = _to_arrays(value if isinstance(value, list) else [value], max_bytes)
    shapes = {array.shape for array in arrays}
    dtypes = {array.dtype for array in arrays}
    if {dtype.kind for dtype in dtypes} != {"f"} or max(d.itemsize for d in dtypes) > 8:
        raise ValueError(f"must be float32, got {', '.join(sorted(map(str, dtypes)))}")
    if len(shapes) != 1:
        raise ValueError(f"has rows of {len(shapes)} shapes: {list_names(map(str, shapes))}")
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
