"""Fields are read by their types, and errors name the field, what it holds and what is wanted."""

from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.errors import CheckpointError
from checkpoints.fields import Fields

TREE = {"a": {"count": "8", "rate": np.float64(0.5), "name": "x", "on": 1, "none": None}, "b": 2.0}


def test_fields_by_their_types() -> None:
    fields = Fields(TREE)
    assert (fields.int("a.count"), fields.int("b"), fields.float("a.rate")) == (8, 2, 0.5)
    assert (fields.str("a.name"), fields.bool("a.on")) == ("x", True)
    assert Fields({"mean": [1, torch.tensor(2.5)]}).floats("mean") == (1, 2.5)


def test_what_is_missing_has_its_default_or_is_looked_up_elsewhere() -> None:
    fields = Fields(TREE, fallback={"lr": 0.1, "b": 7})
    assert (fields.float("lr"), fields.int("b"), fields.int("a.none", 4)) == (0.1, 2, 4)
    assert fields.str("a.c.d", None) is None
    assert fields.assumed == ["a.none 4"]


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("int", 0.5, "an integer up to 1,000,000, got 0.5"),
        ("int", 10**7, "an integer up to"),
        ("float", float("nan"), "a finite number, got nan"),
        ("float", "much", "a number, got 'much'"),
        ("float", torch.ones(2), r"a number, got a tensor of shape \(2,\)"),
        ("str", 5, "a string of at most 100 characters, got 5"),
        ("str", "x" * 101, "a string of at most 100 characters"),
        ("bool", 2, "a bool, got 2"),
        ("floats", 0.5, "a list of 1 to 1,000 numbers, got 0.5"),
        ("floats", [], "a list of 1 to 1,000 numbers"),
        ("floats", ["x"], "a number, got 'x'"),
    ],
)
def test_what_has_another_type(kind: str, value: Any, wanted: str) -> None:
    fields = Fields({"a": {"b": value}}, "hyper_parameters: ")
    with pytest.raises(CheckpointError, match=rf"^hyper_parameters: a\.b must be {wanted}"):
        getattr(fields, kind)("a.b")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("c", "the entry 'c' is missing, got a, b"),
        ("a.c", "the entry 'a.c' is missing, got count, name, none, on, rate"),
        ("b.c", "the entry 'b.c' is missing, got float"),
        ("c.d", "the entry 'c.d' is missing, got NoneType"),
    ],
)
def test_what_is_missing_without_a_default(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Fields(TREE).int(name)
