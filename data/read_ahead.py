"""Frames decoded in a thread, ahead of whoever computes with them."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.frames import FrameSource
from data.options import positive_integer
from data.views import View

__all__ = ["ReadAhead"]


class ReadAhead(View):
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

    def __len__(self) -> int:
        return len(self._source)

    @property
    def numbers(self) -> NDArray[np.int64] | None:
        """Numbers of the source's frames."""
        return self._source.numbers

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
