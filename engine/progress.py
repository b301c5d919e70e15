"""Progress of a run: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["show_progress"]

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 30.0


def show_progress(
    items: Iterable[Item],
    total: float,
    *,
    unit: str,
    done: int = 0,
    amount: Callable[[Item], float] = lambda _: 1,
    note: Callable[[], str] | None = None,
    hidden: bool = False,
) -> Iterator[Item]:
    """Yield items, and show on stderr how many are done, their rate and the remaining time.

    Args:
        items: what is done one after the other.
        total: number of items (of units, with `amount`), those done before among them.
        unit: what an item is, in the plural.
        done: number of items that were done before.
        amount: how many units an item is, where it is not one.
        note: returns what else to show, such as the loss; called after an item, or not at all.
        hidden: whether to show nothing, as all processes but one do.

    Raises:
        ModuleNotFoundError: on a terminal, if the package tqdm is not installed.
    """
    if hidden:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total, unit, done, amount, note)
    else:
        yield from _lines(items, total, unit, done, amount, note)


def _bar(
    items: Iterable[Item],
    total: float,
    unit: str,
    done: float,
    amount: Callable[[Item], float],
    note: Callable[[], str] | None,
) -> Iterator[Item]:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the progress bar needs the package tqdm: pip install tqdm"
        ) from error
    with tqdm(total=round(total, 2), initial=done, unit=f" {unit}", dynamic_ncols=True) as bar:
        for item in items:
            yield item  # comes back when the item is done
            done += amount(item)
            if note:
                bar.set_postfix_str(note(), refresh=False)
            bar.update(round(done, 2) - bar.n)


def _lines(
    items: Iterable[Item],
    total: float,
    unit: str,
    done: float,
    amount: Callable[[Item], float],
    note: Callable[[], str] | None,
) -> Iterator[Item]:
    began = printed = time.monotonic()
    before = done
    for item in items:
        yield item
        done += amount(item)
        now = time.monotonic()
        finished = done > total - 1e-6 and amount(item) > 0
        if now - printed >= _SECONDS_BETWEEN_LINES or finished:
            printed = now
            rate = max(done - before, 1e-9) / max(now - began, 1e-9)
            left = max(total - done, 0) / rate
            parts = [
                f"{round(done, 2)} of {round(total, 2)} {unit}",
                f"{rate:.3g} a second",
                f"{left:.0f} s left",
                note() if note else "",
            ]
            print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)
