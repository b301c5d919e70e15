"""Scores and labels meet by id; all that is wrong with them is said at once."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data.segments import Segment
from epic.labelled_scores import as_matrix, match_labels, row_blocks, unusable_rows


def segments(*classes: tuple[str, int | None, int | None]) -> list[Segment]:
    return [Segment(id_, "v", verb_class=verb, noun_class=noun) for id_, verb, noun in classes]


THREE = segments(("a", 0, 1), ("b", 2, 0), ("c", 1, 3))


def scores(ids: str) -> dict[str, Any]:
    return {"ids": list(ids), "verb": np.zeros((len(ids), 3)), "noun": np.zeros((len(ids), 4))}


@pytest.mark.essential
def test_the_order_of_the_ids_is_kept() -> None:
    matched, matrices, labels = match_labels(scores("cab"), THREE, ("verb", "noun"))
    assert [segment.id for segment in matched] == ["c", "a", "b"]
    assert labels["verb"].tolist() == [1, 0, 2]
    assert labels["noun"].tolist() == [3, 1, 0]
    assert matrices["verb"].shape == (3, 3)


def test_ids_that_are_numbers() -> None:
    """A uid of EPIC-KITCHENS-55 is a number in many a file."""
    given = {"ids": np.array([7, 39563]), "verb": torch.zeros(2, 3)}
    wanted = segments(("39563", 0, None), ("7", 2, None))
    assert match_labels(given, wanted, ["verb"])[2]["verb"].tolist() == [2, 0]
    numbers = [SimpleNamespace(id=int(each.id), verb_class=each.verb_class) for each in wanted]
    given["ids"] = torch.tensor([7, 39563])
    assert match_labels(given, numbers, ["verb"])[2]["verb"].tolist() == [2, 0]


def test_classes_that_are_no_integers() -> None:
    """A table with empty cells has its classes as floating-point numbers."""
    given = {"ids": list("abc"), "verb": np.zeros((3, 3))}
    wanted = [
        SimpleNamespace(id=id_, verb_class=verb)
        for id_, verb in (("a", np.int64(2)), ("b", 1.7), ("c", math.nan))
    ]
    with pytest.raises(
        ValueError, match=r"no integer verb_class below 3, .* b \(1.7\), c \(nan\)$"
    ):
        match_labels(given, wanted, ["verb"])


def test_all_faults_are_listed() -> None:
    given = scores("abbdxyzuvw")
    given["noun"][0, 1] = np.nan
    given["verb"][3] = -np.inf
    wanted = segments(("a", 0, 1), ("b", None, 4), ("c", 0, 0), ("c", 0, 0), ("d", -1, 0))
    with pytest.raises(ValueError, match="scores") as error:
        match_labels(given, wanted, ("verb", "noun"))
    assert str(error.value).split("; ") == [
        "ids scored more than once (1): b",
        "ids of more than one segment (1): c",
        "ids scored without a segment (6): x, y, z, u, v and 1 more",
        "segments without scores (1): c",
        "no integer verb_class below 3, the columns of verb (3): b (None), b (None), d (-1)",
        "NaN, inf or no number in the verb scores (1): d",
        "no integer noun_class below 4, the columns of noun (2): b (4), b (4)",
        "NaN, inf or no number in the noun scores (1): a",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verb": None}, r"verb must be real numbers .* got object \(\)"),
        ({"noun": np.zeros((2, 4))}, r"in all keys, got \{'ids': 3, 'verb': 3, 'noun': 2\}"),
        ({"ids": ["a"]}, "got {'ids': 1, 'verb': 3, 'noun': 3}"),
    ],
)
def test_shapes_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_labels({**scores("abc"), **change}, THREE, ("verb", "noun"))


def test_no_scores_at_all() -> None:
    with pytest.raises(ValueError, match="one or more segments"):
        match_labels(scores(""), THREE, ("verb", "noun"))
    with pytest.raises(ValueError, match=r"must have noun, label, they have ids, verb$"):
        match_labels({"ids": [], "verb": []}, THREE, ("verb", "noun", "label"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8])
def test_blocks_hold_every_row_once(dtype: torch.dtype) -> None:
    rows = torch.arange(600)[:, None].remainder(100).to(dtype)
    for matrix in (rows, rows.float().numpy()):
        blocks = list(row_blocks(matrix))
        assert all(block.dtype == np.float64 for _, block in blocks)
        assert [i for rows, _ in blocks for i in range(600)[rows]] == list(range(600))
        together = np.concatenate([block for _, block in blocks])
        np.testing.assert_array_equal(together, np.arange(600)[:, None] % 100)


def test_unusable_rows() -> None:
    inf, nan = np.inf, np.nan
    matrix = as_matrix("verb", [[0, 1], [nan, 1], [inf, 1], [-inf, 1], [-inf, -inf], [-inf, nan]])
    assert unusable_rows(matrix).tolist() == [1, 2, 4, 5]
