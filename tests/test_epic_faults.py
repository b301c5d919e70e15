"""Faults are listed together, each with what has it."""

import pytest

from epic.faults import raise_faults, repeated


def test_all_faults_are_listed():
    raise_faults([])
    raise_faults([("empty", [])])
    faults = [("late", range(1000)), ("empty", []), ("odd", ["b", "a\n"])]
    with pytest.raises(ValueError, match="late") as error:
        raise_faults(faults, ["x must be 1", "y is missing"])
    assert str(error.value) == (
        r"x must be 1; y is missing; late (1,000): 0, 1, 2, 3, 4 and 995 more; odd (2): b, a\n"
    )
    with pytest.raises(ValueError, match=r"^x must be 1$"):
        raise_faults([("empty", [])], ["x must be 1"])


def test_names_that_come_more_than_once():
    assert repeated("abcbaa") == ["a", "b"]
    assert repeated([]) == []
