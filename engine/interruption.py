"""Ctrl-C as the ordinary end of something that has none of its own, such as a camera."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

__all__ = ["until_interrupted"]

Item = TypeVar("Item")


@contextmanager
def until_interrupted(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Give items that end at the first Ctrl-C, which breaks off nothing but the wait for one.

    What is done with an item is done to its end; a second Ctrl-C is a KeyboardInterrupt as ever.
    Only the main thread may use it.

    Example:
        >>> with until_interrupted(range(3)) as numbers:
        ...     list(numbers)
        [0, 1, 2]

    Args:
        items: whatever comes.
    """
    interrupted = waits = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, previous)
        if waits:
            raise KeyboardInterrupt

    def take() -> Iterator[Item]:
        nonlocal waits
        source = iter(items)
        while not interrupted:
            try:
                waits = True
                item = next(source)
                waits = False
            except StopIteration:
                return
            except KeyboardInterrupt:
                if interrupted:
                    return
                raise
            finally:
                waits = False
            yield item

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield take()
    finally:
        signal.signal(signal.SIGINT, previous)
