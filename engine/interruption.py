"""Ctrl-C, and SIGTERM, as the ordinary end of a run that would not end by itself, or so soon."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

__all__ = ["note_interrupt", "until_interrupted"]

Item = TypeVar("Item")


@contextmanager
def note_interrupt(react: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C or SIGTERM, instead of what it does otherwise.

    A second signal has its usual effect: Ctrl-C is a KeyboardInterrupt. Only the main thread may
    use it.

    Example:
        >>> with note_interrupt() as interrupted:
        ...     interrupted()
        False

    Args:
        react: called when the signal comes.

    Yields:
        A function that returns whether it came.
    """
    came = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        restore()
        react()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    # SIGTERM is how service managers and `timeout` end a program.
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield lambda: came
    finally:
        restore()


@contextmanager
def until_interrupted(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Give items that end at the first Ctrl-C or SIGTERM, which breaks off only the wait for one.

    What is done with an item is done to its end. Otherwise as `note_interrupt`.

    Example:
        >>> with until_interrupted(range(3)) as numbers:
        ...     list(numbers)
        [0, 1, 2]

    Args:
        items: whatever comes.
    """
    waits = False

    def break_off() -> None:
        if waits:
            raise KeyboardInterrupt

    def take() -> Iterator[Item]:
        nonlocal waits
        source = iter(items)
        while True:
            try:
                waits = True  # before the look at what may have come until now
                if interrupted():
                    return
                item = next(source)
            except StopIteration:
                return
            except KeyboardInterrupt:
                if interrupted():
                    return
                raise
            finally:
                waits = False
            yield item

    with note_interrupt(break_off) as interrupted:
        yield take()
