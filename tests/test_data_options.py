"""Checks of numbers; lists in messages are short, and harmless to a terminal."""

import math
from fractions import Fraction

import numpy as np
import pytest

from data.options import first_few, fraction, positive_number


@pytest.mark.parametrize(
    ("items", "options", "text"),
    [
        ([], {}, ""),
        (range(5), {}, "0, 1, 2, 3, 4"),
        (range(6), {}, "0, 1, 2, 3, 4 and 1 more"),
        (range(2000), {"limit": 1}, "0 and 1,999 more"),
        ("abc", {"limit": 2, "separator": "; "}, "a; b; and 1 more"),
        ("abc", {"limit": 2, "separator": "\n  "}, "a\n  b\n  and 1 more"),
        (["é", "a\nb", "\x1b[2J'"], {}, r"é, a\nb, \x1b[2J'"),
    ],
)
def test_first_few(items, options, text):
    assert first_few(iter(items), **options) == text


@pytest.mark.parametrize("value", [1e-9, 3, Fraction(1, 2), np.float32(0.5)])
def test_positive_numbers_become_floats(value):
    assert type(positive_number("rate", value)) is float
    assert positive_number("rate", value) == value


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1", None, 1j])
def test_other_numbers_are_refused(value):
    with pytest.raises(ValueError, match="rate must be a positive number, got") as error:
        positive_number("rate", value)
    assert repr(value) in str(error.value)


def test_fractions():
    assert [fraction("dropout", value) for value in (0, 0.5, 1)] == [0.0, 0.5, 1.0]
    for value in (-0.1, 1.1, math.nan, "0.5", None):
        with pytest.raises(ValueError, match="dropout must be a number from 0 to 1, got"):
            fraction("dropout", value)
