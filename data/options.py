"""Options that models and clips share, and their checks."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import SupportsIndex, cast

__all__ = ["MODALITIES", "class_counts", "default_length", "one_of", "positive_integer"]

MODALITIES = {"RGB": 3, "Flow": 2, "RGBDiff": 3}
"""Modality -> channels of one frame."""


def class_counts(value: object) -> int | tuple[int, int]:
    """Return `num_class` as a positive number, or a pair of such.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        return positive_integer("num_class", value)
    if len(value) != 2:
        raise ValueError(
            f"num_class must be a number of classes or a pair (verbs, nouns), got {value!r}"
        )
    verbs, nouns = (positive_integer("each of num_class", count) for count in value)
    return verbs, nouns


def default_length(modality: str) -> int:
    """Return the default frames of a snippet: 1 for "RGB", 5 for other modalities."""
    return 1 if modality == "RGB" else 5


def one_of(argument: str, value: object, choices: Iterable[str]) -> str:
    """Return a name, given in any case, as it is spelled in `choices`.

    Raises:
        ValueError: if it is none of them.
    """
    choices = tuple(choices)
    for choice in choices:
        if isinstance(value, str) and value.lower() == choice.lower():
            return choice
    raise ValueError(f"{argument} must be one of {', '.join(choices)}, got {value!r}")


def positive_integer(argument: str, value: object) -> int:
    """Return `value` as an int.

    Raises:
        ValueError: if it is no integer of at least 1.
    """
    try:
        number = -1 if isinstance(value, bool) else index(cast(SupportsIndex, value))
    except TypeError:
        number = -1
    if number < 1:
        raise ValueError(f"{argument} must be a positive integer, got {value!r}")
    return number
