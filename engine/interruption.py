"""Ctrl-C, and SIGTERM, as the ordinary end of what has none of its own, such as a camera."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

__all__ = ["until_interrupted"]

Item = TypeVar("Item")


@contextmanager
def until_interrupted(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Give items that end at the first Ctrl-C or SIGTERM, which breaks off only the wait for one.

    What is done with an item is done to its end. A second signal has its usual effect: Ctrl-C is a
    KeyboardInterrupt. Only the main thread may use it.

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
        restore()
        if waits:
            raise KeyboardInterrupt

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def take() -> Iterator[Item]:
        nonlocal waits
        source = iter(items)
        while True:
            try:
                waits = True  # before the look at what may have come until now
                if interrupted:
                    return
                item = next(source)
            except StopIteration:
                return
            except KeyboardInterrupt:
                if interrupted:
                    return
                raise
            finally:
                waits = False
            yield item

    # SIGTERM is how service managers and `timeout` end a program.
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield take()
    finally:
        restore()
