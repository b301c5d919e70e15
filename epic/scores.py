"""Score files: what models say about the segments of a dataset, one row of logits a segment.

They are those of https://github.com/epic-kitchens/C1-Action-Recognition, whose programs read what
`write_scores` writes.

Differences from the original:
    A file is read by its content, whatever its suffix, and never runs code. Several files are fused
    with weights, if wanted. A file may hold the scores of one task alone.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints.errors import CheckpointError, list_names, type_name
from checkpoints.files import atomic_write, read_file
from data.options import first_few
from epic.score_fields import FIELDS, TASKS, Scores, validate_scores
from epic.score_pickles import NUMPY_ARRAYS, read_pickle

__all__ = ["Scores", "fuse_scores", "read_scores", "write_scores"]

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
    scores = {name: contents[key] for key, name in FIELDS.items() if key in contents}
    try:
        return validate_scores(scores, file_size=path.stat().st_size)
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
    valid = validate_scores(scores)
    columns = {
        # All rows share one memory, and so one record of the file.
        key: torch.from_numpy(valid[name]) if isinstance(valid[name], np.ndarray) else valid[name]
        for key, name in FIELDS.items()
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
    fused, *others = ordered = [_sort(validate_scores(one)) for one in scores]
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
    return {name: scores[name].shape[1] for tasks in TASKS for name in tasks if name in scores}


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
    keys = [key for key in FIELDS if key in first]
    wrong = [
        i
        for i, row in enumerate(rows)
        if not isinstance(row, dict) or [key for key in FIELDS if key in row] != keys
    ]
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong):,} of {len(rows):,} elements of the list are no dictionaries "
            f"with the keys of the first, {', '.join(keys)}: elements {first_few(wrong)}"
        )
    return {key: [row[key] for row in rows] for key in keys}
