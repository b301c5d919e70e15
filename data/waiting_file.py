"""Pipes, and files that grow, as FFmpeg reads them: reading waits for data, and can be stopped."""

import os
import select
import time
from threading import Event

__all__ = ["WaitingFile", "wait_readable"]

_POLL_SECONDS = 0.05
"""How long a wait goes on before it looks whether it was stopped."""


def wait_readable(descriptor: int, timeout: float, stop: Event) -> bool:
    """Wait until a pipe or device has data, or its end; return False if it has not.

    Args:
        descriptor: of the open pipe or device.
        timeout: in seconds.
        stop: when set by another thread, the wait ends.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    end = time.monotonic() + timeout
    while not stop.is_set() and time.monotonic() < end:
        if poll.poll(1000 * _POLL_SECONDS):
            return True
    return False


class WaitingFile:
    """A file object for `av.open`. It cannot seek: FFmpeg reads it as it comes.

    Args:
        descriptor: of an open pipe or file.
        follow: whether more may come behind the end, as in a file that is still being written.
        timeout: seconds without data after which the file counts as ended.
        stop: when set by another thread, the file counts as ended at once.

    Attributes:
        timed_out: whether it ended because no data came.
    """

    def __init__(self, descriptor: int, *, follow: bool, timeout: float, stop: Event) -> None:
        self._descriptor, self._follow = descriptor, follow
        self._timeout, self._stop = timeout, stop
        self._ended = self.timed_out = False

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; none at the end, and from then on."""
        data = b"" if self._ended else self._wait(size)
        self._ended = not data  # FFmpeg asks again, which would wait again
        return data

    def _wait(self, size: int) -> bytes:
        if not self._follow:
            if wait_readable(self._descriptor, self._timeout, self._stop):
                return os.read(self._descriptor, size)
        else:
            end = time.monotonic() + self._timeout
            while not self._stop.is_set() and time.monotonic() < end:
                if data := os.read(self._descriptor, size):
                    return data
                self._stop.wait(_POLL_SECONDS)
        self.timed_out = not self._stop.is_set()
        return b""
