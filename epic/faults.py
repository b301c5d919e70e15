"""Faults of scores and segments, all listed in one error."""

from collections import Counter
from collections.abc import Iterable, Sequence

from checkpoints.errors import join_names

__all__ = ["raise_faults", "repeated"]


def raise_faults(
    faults: Iterable[tuple[str, Sequence[object]]], messages: Iterable[str] = ()
) -> None:
    """Raise a ValueError that lists faults, if there are any.

    Args:
        faults: what may be wrong, and with which: with none of them if it is not.
        messages: other faults.
    """
    lines = [*messages]
    lines += [
        f"{fault} ({len(what):,}): {join_names(map(str, what))}" for fault, what in faults if what
    ]
    if lines:
        raise ValueError("; ".join(lines))


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that come more than once, each of them once."""
    return [name for name, count in Counter(names).items() if count > 1]
