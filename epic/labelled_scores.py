"""Scores of segments and the segments' labels, matched by id and checked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt
import torch

from data.segments import Segment
from epic.faults import raise_faults, repeated

__all__ = ["Matrix", "as_matrix", "match_labels", "row_blocks", "unusable_rows"]

Matrix = torch.Tensor | npt.NDArray[Any]
"""Scores (segments, classes) of any real dtype."""

_BLOCK_ROWS = 256


def as_matrix(name: str, values: object) -> Matrix:
    """Return scores as a tensor or an array (segments, classes), uncopied where they are one.

    Raises:
        ValueError: they have other dimensions, no class, or are no real numbers.
    """
    if isinstance(values, torch.Tensor):
        matrix: Matrix = values.detach()
        is_real = not values.is_complex() and values.dtype != torch.bool
    else:
        matrix = np.asarray(values)
        is_real = matrix.dtype.kind in "fiu"
    if not is_real or matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(
            f"{name} must be real numbers of the shape (segments, classes), got "
            f"{matrix.dtype} {tuple(matrix.shape)}"
        )
    return matrix


def row_blocks(matrix: Matrix) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Yield some rows at a time, and the scores (rows, classes) in these: memory stays bounded."""
    for start in range(0, len(matrix), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block = matrix[rows]
        if isinstance(block, torch.Tensor):
            block = block.cpu().double().numpy()  # NumPy has no bfloat16, and mps no double
        yield rows, np.asarray(block, dtype=np.float64)


def unusable_rows(matrix: Matrix) -> npt.NDArray[np.intp]:
    """Return the rows that hold NaN or +inf, or -inf alone; single classes may have -inf."""
    best = [block.max(axis=1) for _, block in row_blocks(matrix)]
    return np.flatnonzero(~np.isfinite(np.concatenate(best)))  # the maximum with a NaN is NaN


def match_labels(
    scores: Mapping[str, Any],
    segments: Sequence[Segment],
    tasks: Iterable[str],
    *,
    allow_missing: bool = False,
) -> tuple[list[Segment], dict[str, Matrix], dict[str, npt.NDArray[np.int64]]]:
    """Return the segments, scores and labels of the tasks, in the order of `scores["ids"]`.

    Args:
        scores: `ids` (S), and scores (S, classes) of each task.
        segments: has a segment for each of the ids, with the class of each task.
        tasks: of "verb", "noun" and "label".
        allow_missing: whether segments may lack scores.

    Raises:
        ValueError: a key is missing or a shape wrong; else lists all that is wrong with the
            content: ids, labels, and scores that are no numbers.
    """
    tasks = tuple(tasks)
    if absent := [key for key in ("ids", *tasks) if key not in scores]:
        raise ValueError(f"scores must have {', '.join(absent)}, they have {', '.join(scores)}")
    given = scores["ids"]
    ids = [str(id_) for id_ in (given.tolist() if isinstance(given, torch.Tensor) else given)]
    matrices = {task: as_matrix(task, scores[task]) for task in tasks}
    lengths = {"ids": len(ids), **{task: len(matrix) for task, matrix in matrices.items()}}
    if len(set(lengths.values())) > 1 or not ids:
        raise ValueError(f"scores must be of one or more segments in all keys, got {lengths}")

    segments = list(segments)
    segment_ids = [str(segment.id) for segment in segments]
    by_id = dict(zip(segment_ids, segments, strict=True))
    matched = [by_id.get(id_) for id_ in ids]
    scored = set(ids)
    faults = [
        ("ids scored more than once", repeated(ids)),
        ("ids of more than one segment", repeated(segment_ids)),
        ("ids scored without a segment", [id_ for id_ in ids if id_ not in by_id]),
    ]
    if not allow_missing:
        faults.append(("segments without scores", [id_ for id_ in by_id if id_ not in scored]))
    labels = {}
    for task, matrix in matrices.items():
        classes = [None if s is None else getattr(s, f"{task}_class") for s in matched]
        labels[task] = np.array(
            [index(c) if isinstance(c, SupportsIndex) else -1 for c in classes], dtype=np.int64
        )
        wrong = np.flatnonzero((labels[task] < 0) | (labels[task] >= matrix.shape[1]))
        faults += [
            (
                f"no integer {task}_class below {matrix.shape[1]}, the columns of {task}",
                [f"{ids[row]} ({classes[row]})" for row in wrong if matched[row] is not None],
            ),
            (
                f"NaN, inf or no number in the {task} scores",
                [ids[row] for row in unusable_rows(matrix)],
            ),
        ]
    raise_faults(faults)
    return [segment for segment in matched if segment is not None], matrices, labels
