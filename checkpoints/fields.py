"""Fields of a checkpoint's dictionary, read by their type and checked as they are read."""

import builtins
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from checkpoints.errors import CheckpointError, list_names, show, type_name

__all__ = ["Fields"]

Default = TypeVar("Default")

MAX_INT = 1_000_000
"""No number of a model comes near it, and nothing overflows with it."""
MAX_NAME_LENGTH = 100
MAX_ITEMS = 1000


class _Required:
    """Stands for a default that does not exist."""


_REQUIRED = _Required()


class Fields:
    """A dictionary of a file, read by types: `fields.int("data.frame_count")`.

    A field is named by the keys on the way to it, joined by dots. One that is None counts as
    missing. Numbers may be plain or NumPy ones, tensors or digits.

    Every method that reads a field takes its name and, for what may be missing, a default; it
    raises a CheckpointError if the field has another type, or is missing and has no default.

    Args:
        values: the dictionary; anything else has no fields.
        place: what an error calls it, such as "hyper_parameters: ".
        fallback: where to look for what is missing here.

    Attributes:
        assumed: "NAME DEFAULT" of each default that was returned, but for None.
    """

    def __init__(self, values: Any, place: builtins.str = "", fallback: Any = None) -> None:
        self._values = values
        self._place = place
        self._fallback = fallback
        self.assumed: list[builtins.str] = []

    def get(self, name: builtins.str) -> Any:
        """Return a field as it is, or None."""
        for values in (self._values, self._fallback):
            value = values
            for key in name.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        return None

    def _default(self, name: builtins.str, default: Default | _Required) -> Default:
        """Return the default of a field that is missing."""
        if isinstance(default, _Required):
            parent = name.rpartition(".")[0]
            held = self.get(parent) if parent else self._values
            names = list_names(held) if isinstance(held, Mapping) else type_name(held)
            raise CheckpointError(f"{self._place}the entry {name!r} is missing, got {names}")
        if default is not None:
            self.assumed.append(f"{name} {default}")
        return default

    def _error(self, name: builtins.str, wanted: builtins.str, value: Any) -> CheckpointError:
        return CheckpointError(f"{self._place}{name} must be {wanted}, got {show(value)}")

    def float(
        self, name: builtins.str, default: Default | _Required = _REQUIRED
    ) -> builtins.float | Default:
        """Return a finite number."""
        value = self.get(name)
        return self._default(name, default) if value is None else self._number(name, value)

    def int(
        self, name: builtins.str, default: Default | _Required = _REQUIRED
    ) -> builtins.int | Default:
        """Return a whole number of at most a million."""
        value = self.get(name)
        if value is None:
            return self._default(name, default)
        number = self._number(name, value)
        if not number.is_integer() or abs(number) > MAX_INT:
            raise self._error(name, f"a whole number up to {MAX_INT:,}", value)
        return builtins.int(number)

    def floats(self, name: builtins.str) -> tuple[builtins.float, ...]:
        """Return a short list of finite numbers, such as a mean of every channel."""
        value = self.get(name)
        if value is None:
            return self._default(name, _REQUIRED)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_ITEMS:
            raise self._error(name, f"a list of 1 to {MAX_ITEMS:,} numbers", value)
        return tuple(self._number(name, item) for item in value)

    def str(
        self, name: builtins.str, default: Default | _Required = _REQUIRED
    ) -> builtins.str | Default:
        """Return a short string."""
        value = self.get(name)
        if value is None:
            return self._default(name, default)
        if not isinstance(value, builtins.str) or len(value) > MAX_NAME_LENGTH:
            raise self._error(name, f"a string of at most {MAX_NAME_LENGTH} characters", value)
        return value

    def bool(
        self, name: builtins.str, default: Default | _Required = _REQUIRED
    ) -> builtins.bool | Default:
        """Return a bool, of which 0 and 1 are other names."""
        value = self.get(name)
        if value is None:
            return self._default(name, default)
        if not isinstance(value, builtins.bool | builtins.int) or value not in (0, 1):
            raise self._error(name, "a bool", value)
        return builtins.bool(value)

    def _number(self, name: builtins.str, value: Any) -> builtins.float:
        try:
            number = builtins.float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise self._error(name, "a number", value) from error
        if not math.isfinite(number):
            raise self._error(name, "a finite number", value)
        return number
