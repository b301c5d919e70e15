"""Averages over a video's time, in the same memory whatever its length."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["TimeAverages"]

_NUM_COLUMNS = 1024  # of which at least half are in use once half a second has come


class TimeAverages:
    """Averages of vectors over columns of equal width, which doubles when the video outgrows them.

    Args:
        sizes: the length of each vector.

    Attributes:
        start: seconds at which the first part begins; infinite if there is none.
        stop: seconds at which the last part ends; 0 if there is none.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.start, self.stop = math.inf, 0.0
        self._width = 2.0**-10  # seconds
        self._covered = np.zeros(_NUM_COLUMNS)  # seconds of parts in each column
        self._sums = [np.zeros((_NUM_COLUMNS, size)) for size in sizes]

    def add(self, start: float, stop: float, vectors: Sequence[NDArray[np.floating]]) -> None:
        """Add vectors that hold for a part of the video; where parts overlap, their mean counts.

        Args:
            start: seconds from the beginning of the video.
            stop: the same, of the part's end.
            vectors: floating point (size,), one for each of `sizes`.

        Raises:
            ValueError: if the times are not in order.
        """
        if not 0 <= start < stop < math.inf:
            raise ValueError(f"a part must have 0 <= start < stop, got {start} to {stop} seconds")
        while stop > _NUM_COLUMNS * self._width:
            self._double_width()
        self.start, self.stop = min(start, self.start), max(stop, self.stop)
        first, end = int(start / self._width), math.ceil(stop / self._width)
        edges = np.arange(first, end + 1) * self._width
        covered = np.diff(edges.clip(start, stop))
        self._covered[first:end] += covered
        for sums, vector in zip(self._sums, vectors, strict=True):
            sums[first:end] += np.outer(covered, vector)

    def columns(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]]]:
        """Return the columns from `start` to `stop`.

        Returns:
            The times of their edges in seconds, (columns + 1,); how many seconds of parts are in
            each, (columns,); the means of the vectors, (columns, size), zeros where no part is.
        """
        shown = slice(int(self.start / self._width), math.ceil(self.stop / self._width))
        edges = np.arange(shown.start, shown.stop + 1) * self._width
        covered = self._covered[shown]
        divisors = np.where(covered > 0, covered, 1)[:, None]
        means = [sums[shown] / divisors for sums in self._sums]
        return edges.clip(self.start, self.stop), covered, means

    def _double_width(self) -> None:
        """Merge pairs of columns."""
        for array in (self._covered, *self._sums):
            half = len(array) // 2
            array[:half] = array[::2] + array[1::2]
            array[half:] = 0
        self._width *= 2
