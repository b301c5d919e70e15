"""When the frames of a live source are shown, and which of them make up a frame rate."""

import math
import time

__all__ = ["LiveTimes"]

_RATE_TOLERANCE = 0.25
"""Share of a step by which a frame may come too early, since timestamps are rounded or jitter."""

_MAX_JUMP = 60.0
"""Seconds by which timestamps may run ahead of the clock: more is damage, or another stream."""


class LiveTimes:
    """Seconds of frames from the first one, by timestamps as long as these ascend.

    Args:
        rate: frames per second at most; all of them if None.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate, self._step = rate, -1
        self._zero: float | None = None  # the timestamp that stands for 0 seconds
        self._last = 0.0
        self._read_at: float | None = None

    def seconds(self, timestamp: float | None) -> float:
        """Return the seconds of the next frame, which are more than those of the one before.

        Args:
            timestamp: the frame's own, in seconds from any time. Where there is none, or it does
                not ascend, or jumps far ahead, the time counts that has gone by, and timestamps go
                on from there.
        """
        now = time.monotonic()
        elapsed = 0.0 if self._read_at is None else now - self._read_at
        self._read_at = now
        if timestamp is not None and self._zero is not None:
            own = timestamp - self._zero
            if 0 < own - self._last < elapsed + _MAX_JUMP:
                self._last = own
                return own
        self._last += elapsed
        self._zero = None if timestamp is None else timestamp - self._last
        return self._last

    def is_due(self, seconds: float) -> bool:
        """Return whether a frame, to be asked of each in turn, is one of `rate` per second."""
        if self._rate is None:
            return True
        step = math.floor(seconds * self._rate + _RATE_TOLERANCE)
        due, self._step = step > self._step, max(step, self._step)
        return due
