"""Fields of a checkpoint's dictionary, read by their type and checked as they are read."""

import math
from collections.abc import Mapping
from types import EllipsisType
from typing import Any, TypeAlias, TypeVar

from checkpoints.errors import CheckpointError, list_names, show, type_name

__all__ = ["Fields"]

MAX_INT = 1_000_000  # no number of a model comes near it, and nothing overflows with it
MAX_NAME_LENGTH = 100
MAX_ITEMS = 1000

D = TypeVar("D")
# The class has methods of these names.
Str: TypeAlias = str
Int: TypeAlias = int
Float: TypeAlias = float
Bool: TypeAlias = bool


class Fields:
    """A dictionary of a file, read by types: `fields.int("data.frame_count")`.

    A field is named by the keys on the way to it, joined by dots. One that is None counts as
    missing. Numbers may be plain or NumPy ones, tensors or digits. What is missing and has no
    default, or has another type, is a CheckpointError.

    Args:
        values: the dictionary; anything else has no fields.
        place: what an error calls it, such as "hyper_parameters: ".
        fallback: where to look for what is missing here.

    Attributes:
        assumed: "NAME DEFAULT" of each default that was returned, but for None.
    """

    def __init__(self, values: Any, place: Str = "", fallback: Any = None) -> None:
        self._values = values
        self._place = place
        self._fallback = fallback
        self.assumed: list[Str] = []

    def get(self, name: Str) -> Any:
        """Return a field as it is, or None."""
        for values in (self._values, self._fallback):
            value = values
            for key in name.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        return None

    def _default(self, name: Str, default: D | EllipsisType) -> D:
        """Return the default of a field that is missing."""
        if isinstance(default, EllipsisType):
            parent = name.rpartition(".")[0]
            held = self.get(parent) if parent else self._values
            names = list_names(held) if isinstance(held, Mapping) else type_name(held)
            raise CheckpointError(f"{self._place}the entry {name!r} is missing, got {names}")
        if default is not None:
            self.assumed.append(f"{name} {default}")
        return default

    def _error(self, name: Str, wanted: Str, value: Any) -> CheckpointError:
        return CheckpointError(f"{self._place}{name} must be {wanted}, got {show(value)}")

    def float(self, name: Str, default: D | EllipsisType = ...) -> Float | D:
        """Return a finite number."""
        value = self.get(name)
        return self._default(name, default) if value is None else self._number(name, value)

    def int(self, name: Str, default: D | EllipsisType = ...) -> Int | D:
        """Return an integer of at most a million."""
        value = self.get(name)
        if value is None:
            return self._default(name, default)
        number = self._number(name, value)
        if not number.is_integer() or abs(number) > MAX_INT:
            raise self._error(name, f"an integer up to {MAX_INT:,}", value)
        return Int(number)

    def floats(self, name: Str) -> tuple[Float, ...]:
        """Return a short list of finite numbers, such as a mean of every channel."""
        value = self.get(name)
        if value is None:
            return self._default(name, ...)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_ITEMS:
            raise self._error(name, f"a list of 1 to {MAX_ITEMS:,} numbers", value)
        return tuple(self._number(name, item) for item in value)

    def str(self, name: Str, default: D | EllipsisType = ...) -> Str | D:
        """Return a short string."""
        value = self.get(name)
        if value is None:
            return self._default(name, default)
        if not isinstance(value, Str) or len(value) > MAX_NAME_LENGTH:
            raise self._error(name, f"a string of at most {MAX_NAME_LENGTH} characters", value)
        return value

    def bool(self, name: Str, default: D | EllipsisType = ...) -> Bool | D:
        """Return a bool, of which 0 and 1 are other names."""
        value = self.get(name)
        if value is None:
            return self._default(name, default)
        if not isinstance(value, Bool | Int) or value not in (0, 1):
            raise self._error(name, "a bool", value)
        return Bool(value)

    def _number(self, name: Str, value: Any) -> Float:
        try:
            number = Float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise self._error(name, "a number", value) from error
        if not math.isfinite(number):
            raise self._error(name, "a finite number", value)
        return number
