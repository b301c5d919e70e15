"""Frames decoded in a thread, ahead of whoever computes with them."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from data.frames import FrameSource
from data.options import positive_integer
from data.views import WholeView

__all__ = ["ReadAhead"]


class ReadAhead(WholeView):
    """Frames of another source, read by a thread while their user computes.

    Decoding and resizing leave Python's lock to others most of the time.

    Args:
        source: where the frames come from.
        count: frames that are read ahead, and held, at most.

    Raises:
        ValueError: if `count` is no positive integer.
    """

    def __init__(self, source: FrameSource, count: int) -> None:
        super().__init__(source)
        self._count = positive_integer("count", count)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        frames = self._source._frames(indices)
        with ThreadPoolExecutor(1, "read ahead") as thread:
            waiting = deque(thread.submit(next, frames, None) for _ in range(self._count))
            try:
                while item := waiting.popleft().result():
                    waiting.append(thread.submit(next, frames, None))
                    yield item
            finally:
                for future in waiting:
                    future.cancel()
