"""Options that models and clips share, their checks, and lists in messages."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import SupportsIndex, cast

__all__ = [
    "MODALITIES",
    "class_counts",
    "default_length",
    "first_few",
    "one_of",
    "positive_integer",
]

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


def first_few(items: Iterable[object], limit: int = 5, separator: str = ", ") -> str:
    """Return the first items and how many more there are, for a message: "a, b and 3 more".

    Line breaks in items, and what else a terminal would obey, are escaped.
    """
    items = list(items)
    texts = [t if t.isprintable() else ascii(t)[1:-1] for t in map(str, items[:limit])]
    more = f"{separator.replace(',', '')}and {len(items) - limit:,} more"
    return separator.join(texts) + more * (len(items) > limit)


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
