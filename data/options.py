"""Options that models and clips share, their checks, and lists in messages."""

import math
import re
from collections.abc import Iterable, Sequence
from numbers import Real
from operator import index
from typing import Any, SupportsIndex, TypeAlias, cast

__all__ = [
    "MODALITIES",
    "ClassNames",
    "check_class_names",
    "class_counts",
    "default_length",
    "first_few",
    "fraction",
    "names_by_task",
    "one_of",
    "positive_integer",
    "positive_number",
]

MODALITIES = {"RGB": 3, "Flow": 2, "RGBDiff": 3}
"""Modality -> channels of one frame."""

ClassNames: TypeAlias = tuple[Sequence[str], Sequence[str]] | Sequence[str]
"""(verbs, nouns), such as `epic.classes.ClassNames`; of a model with one task, a list."""


def check_class_names(value: object, num_class: int | tuple[int, int]) -> ClassNames:
    """Return class names in tuples, after a check that a model can have them.

    Args:
        value: (verbs, nouns), a list of names each; with one task, a list of names.
        num_class: how many there must be.

    Raises:
        ValueError: if they are anything else, or a name has line breaks or what else a terminal
            would obey.
    """
    counts = num_class if isinstance(num_class, tuple) else (num_class,)
    tasks: Any = [value] if len(counts) == 1 else value
    listed = isinstance(tasks, list | tuple) and all(map(_is_list_of_names, tasks))
    found = tuple(map(len, tasks)) if listed else type(value).__name__
    if found != counts:
        layout = "a list of names" if len(counts) == 1 else "(verbs, nouns), a list of names each"
        raise ValueError(f"class_names must be {layout}, for {counts} classes, got {found}")
    for name in (name for task in tasks for name in task):
        if re.search(r"[\x00-\x1f\x7f-\x9f]", name):
            raise ValueError(f"class_names must have no control characters, got {name[:100]!r}")
    verbs, *nouns = map(tuple, tasks)
    return (verbs, nouns[0]) if nouns else verbs


def names_by_task(names: ClassNames | None) -> dict[str, Sequence[str]]:
    """Return class names by "label", or by "verb" and "noun"."""
    if not names:
        return {}
    if isinstance(names[0], str):
        return {"label": cast(Sequence[str], names)}
    return dict(zip(("verb", "noun"), cast(Sequence[Sequence[str]], names), strict=True))


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


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


def fraction(argument: str, value: object) -> float:
    """Return `value`, a probability for example, as a float.

    Raises:
        ValueError: if it is no number from 0 to 1.
    """
    number = float(value) if isinstance(value, Real) else math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"{argument} must be a number from 0 to 1, got {value!r}")
    return number


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


def positive_number(argument: str, value: object) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: if it is no finite number above 0.
    """
    number = float(value) if isinstance(value, Real) else math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{argument} must be a positive number, got {value!r}")
    return number
