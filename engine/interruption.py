"""Ctrl-C as the ordinary end of something that has none of its own, such as a camera."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import TypeVar

__all__ = ["until_interrupted"]

Item = TypeVar("Item")


@contextmanager
def until_interrupted(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Give items that end at the first Ctrl-C, which breaks off nothing but the wait for one.

    What is done with an item is done to its end. A second Ctrl-C is a KeyboardInterrupt, as ever.
    Only the main thread may use it.

    Example:
        >>> with until_interrupted(range(3)) as numbers:
        ...     list(numbers)
        [0, 1, 2]

    Args:
        items: whatever comes.
    """
    interrupted, waits = Event(), Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, previous)
        if waits.is_set():
            raise KeyboardInterrupt

    def take() -> Iterator[Item]:
        source = iter(items)
        while True:
            try:
                waits.set()  # before the look at what may have come until now
                if interrupted.is_set():
                    return
                item = next(source)
            except StopIteration:
                return
            except KeyboardInterrupt:
                if interrupted.is_set():
                    return
                raise
            finally:
                waits.clear()
            yield item

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield take()
    finally:
        signal.signal(signal.SIGINT, previous)
