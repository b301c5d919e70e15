"""Averages and winners over a video's time, in the same memory whatever its length."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["TimeAverages"]

_NUM_COLUMNS = 1024  # of which at least half are in use once half a second has come


class TimeAverages:
    """Averages of vectors over columns of equal width, which doubles when the video outgrows them.

    Each column also has winners: the indices of the largest elements of a part, while those of an
    average may be of none. Winners that hold for most of a column are found for certain (the
    majority vote of Boyer and Moore).

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
        self._winners = np.full((_NUM_COLUMNS, len(sizes)), -1)
        self._votes = np.zeros(_NUM_COLUMNS)  # seconds

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
        winners = np.array([[vector.argmax() for vector in vectors]])
        self._winners[first:end], self._votes[first:end] = _vote(
            self._winners[first:end], self._votes[first:end], winners, covered
        )

    def columns(
        self,
    ) -> tuple[
        NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]], NDArray[np.int64]
    ]:
        """Return the columns from `start` to `stop`.

        Returns:
            The times of their edges in seconds, (columns + 1,); how many seconds of parts are in
            each, (columns,); the means of the vectors, (columns, size), zeros where no part is; the
            indices of the winners, (columns, vectors), -1 where no part is.
        """
        shown = slice(int(self.start / self._width), math.ceil(self.stop / self._width))
        edges = np.arange(shown.start, shown.stop + 1) * self._width
        covered = self._covered[shown]
        divisors = np.where(covered > 0, covered, 1)[:, None]
        means = [sums[shown] / divisors for sums in self._sums]
        return edges.clip(self.start, self.stop), covered, means, self._winners[shown]

    def _double_width(self) -> None:
        """Merge pairs of columns."""
        half = _NUM_COLUMNS // 2
        self._winners[:half], self._votes[:half] = _vote(
            self._winners[::2], self._votes[::2], self._winners[1::2], self._votes[1::2]
        )
        self._winners[half:], self._votes[half:] = -1, 0
        for array in (self._covered, *self._sums):
            array[:half] = array[::2] + array[1::2]
            array[half:] = 0
        self._width *= 2


def _vote(
    winners: NDArray[np.int64],
    votes: NDArray[np.float64],
    rivals: NDArray[np.int64],
    rival_votes: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the winners of each column after a vote against rivals, and their votes left."""
    agree = (winners == rivals).all(axis=1)
    beaten = (rival_votes > votes) | (winners < 0).any(axis=1)
    left = np.where(agree, votes + rival_votes, abs(votes - rival_votes))
    return np.where(beaten[:, None], rivals, winners), left
