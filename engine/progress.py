"""Progress of a run: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["show_progress"]

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 30.0


def show_progress(
    items: Iterable[Item], total: int, *, unit: str, done: int = 0, hidden: bool = False
) -> Iterator[Item]:
    """Yield items, and show on stderr how many are done, their rate and the remaining time.

    Args:
        items: what is done one after the other.
        total: number of items, those that were done before among them.
        unit: what an item is, in the plural.
        done: number of items that were done before.
        hidden: whether to show nothing, as all processes but one do.

    Raises:
        ModuleNotFoundError: on a terminal, if the package tqdm is not installed.
    """
    if hidden:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total, unit, done)
    else:
        yield from _lines(items, total, unit, done)


def _bar(items: Iterable[Item], total: int, unit: str, done: int) -> Iterator[Item]:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the progress bar needs the package tqdm: pip install tqdm"
        ) from error
    yield from tqdm(items, total=total, initial=done, unit=f" {unit}", dynamic_ncols=True)


def _lines(items: Iterable[Item], total: int, unit: str, done: int) -> Iterator[Item]:
    began = printed = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item  # comes back when the item is done
        now = time.monotonic()
        if now - printed >= _SECONDS_BETWEEN_LINES or done + count == total:
            printed = now
            rate = count / max(now - began, 1e-9)
            left = (total - done - count) / rate
            print(
                f"{done + count} of {total} {unit}, {rate:.3g} a second, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
