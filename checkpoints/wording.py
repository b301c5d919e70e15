"""What errors and reports say of the values and names in a file, short whatever the file holds."""

import reprlib
from collections.abc import Iterable
from typing import Any

from torch import Tensor

__all__ = ["key_text", "kind_of", "names_of", "shown", "summarise"]

_SHOWN = 5
"""How many names are listed before it is said how many more there are."""


class _Short(reprlib.Repr):
    """Plain values as Python writes them, cut short; of everything else its kind alone."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 60

    def repr_instance(self, x: object, level: int) -> str:
        if x is None or isinstance(x, bool | float | complex):
            return repr(x)
        if isinstance(x, bytes):
            return repr(x[: self.maxstring])
        if isinstance(x, Tensor):
            return f"a tensor of shape {tuple(x.shape)}"
        return f"a value of type {type(x).__name__}"

    def repr_int(self, x: int, level: int) -> str:
        return str(x) if x.bit_length() < 200 else f"a number of {x.bit_length()} bits"


_short = _Short()


def shown(value: object) -> str:
    """A value for an error: short, on one line, and without following it to any depth."""
    return _short.repr(value)


def kind_of(value: object) -> str:
    """The type of a value, for an error."""
    name = type(value).__name__
    return f"an empty {name}" if isinstance(value, dict) and not value else name


def names_of(entries: Iterable[Any]) -> str:
    """The first few names of a dictionary, in order."""
    return summarise(sorted(map(key_text, entries)))


def key_text(key: object) -> str:
    """A key of a dictionary as text."""
    return key if isinstance(key, str) else shown(key)


def summarise(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    listed = ", ".join(map(_on_one_line, names[:_SHOWN]))
    more = len(names) - _SHOWN
    return f"{listed} and {more} more" if more > 0 else listed


def _on_one_line(name: str) -> str:
    """A name without what a terminal would obey, and not too long."""
    short = name if len(name) <= 200 else f"{name[:200]}..."
    return short if short.isprintable() else ascii(short)[1:-1]
