"""A lock file that works between hosts, and that the crash of its owner does not leave closed.

Cache directories lie in home directories that hundreds of jobs on different hosts share over NFS,
Lustre and the like. There `flock` and `fcntl` depend on how each host has mounted the directory:
with some options they raise, with others they lock out nobody but processes of the same host, and
with a broken lock daemon they hang. Creating a file exclusively works everywhere, but the file of
an owner that was killed stays. So the owner appends to its file all the time, and whoever waits
takes the file away once it has stopped growing. Nobody compares clocks, which differ between hosts,
and waiting is counted in looks, not in seconds, so that a file server (or a laptop) that sleeps for
an hour makes nobody look dead.

It can happen, though rarely, that two processes own the lock: one was stopped and came back, or two
took a dead owner's file away at the same moment. What the lock guards must put up with that; the
lock saves work, it does not protect data.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from pathlib import Path

__all__ = ["LockFile"]

_BEAT_SECONDS = 5.0
"""Time between two signs of life of an owner."""

_LOOK_SECONDS = 0.5
"""Time between two looks at somebody else's lock."""

_LOOKS_UNTIL_DEAD = 60
"""So many looks without a sign of life: half a minute, six missed signs."""


class LockFile:
    """A lock that is had by whoever created its file; for use by one thread.

    with LockFile(path) as lock:
        while not lock.acquire():
            lock.wait()
        ...

    Leaving the block gives the lock back, whatever ends the block.

    Args:
        path: the file that stands for the lock, in a directory that exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = f"{uuid.uuid4().hex} process {os.getpid()} on {socket.gethostname()}\n"
        self._creating = False
        self._over = threading.Event()
        self._seen: str | None = None
        self._looks = 0

    def __enter__(self) -> "LockFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        # The file is looked at, rather than a flag, because Ctrl-C can come between the file's
        # creation and whatever notes it; then it may still be empty.
        with contextlib.suppress(OSError):  # whatever ended the block matters more
            if self.is_ours() or (self._creating and self._read() == ""):
                self._path.unlink()

    def acquire(self) -> bool:
        """Take the lock if nobody has it; returns at once, and says whether it was taken.

        Raises:
            OSError: the file cannot be created, and not because it exists.
        """
        self._creating = True
        try:
            with open(self._path, "x", encoding="utf-8") as file:
                file.write(self._mark)
        except FileExistsError:
            self._creating = False
            return False
        self._creating = False
        threading.Thread(target=self._beat, name=f"keeps {self._path.name}", daemon=True).start()
        return True

    def is_ours(self) -> bool:
        """Whether the lock is this object's, and nobody has taken it away."""
        return (self._read() or "").startswith(self._mark)

    def holder(self) -> str:
        """Who has the lock, for messages: "process 4711 on node12"."""
        return (self._read() or "").partition("\n")[0].partition(" ")[2] or "another process"

    def wait(self) -> None:
        """Give a holder time, and take its file away if it has shown no sign of life for long."""
        time.sleep(_LOOK_SECONDS)
        seen = self._read()
        self._looks = self._looks + 1 if seen is not None and seen == self._seen else 0
        self._seen = seen
        if self._looks >= _LOOKS_UNTIL_DEAD:
            self._path.unlink(missing_ok=True)
            self._looks = 0

    def _read(self) -> str | None:
        # Opening is what makes NFS ask the server; `stat` may answer from a cache.
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _beat(self) -> None:
        """Show signs of life until the lock is given back or taken away."""
        while not self._over.wait(_BEAT_SECONDS):
            # A file server that fails once may work the next time.
            with contextlib.suppress(OSError), open(self._path, "r+", encoding="utf-8") as file:
                if not file.read().startswith(self._mark):
                    return
                file.write(".")
