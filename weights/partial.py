"""What has arrived of a download, in a file beside the one that it becomes when it is complete.

A partial file is named after the file that it will be, a number of its own and, where it may be
continued later, the version of the file that it is a part of, as the server calls it (ETag or
Last-Modified). That makes the leftover of a killed process usable without a second file that could
disagree with the first.

One process alone ever writes a partial file: a leftover is copied, not appended to, since whoever
wrote it may have been taken for dead and write on.
"""

import contextlib
import hashlib
import os
import re
import uuid
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, unquote

__all__ = ["Partial", "PartialFile", "find_partials"]

_LONGEST_NAME = 255  # bytes, on all common file systems
_COPIED_BYTES = 1024 * 1024


class Partial(NamedTuple):
    """A partial file that lies in the cache: bytes that are in it, and what it is a part of."""

    path: Path
    size: int
    version: str | None


def find_partials(destination: Path) -> list[Partial]:
    """Return what lies beside a file of which parts have arrived.

    Listing the directory, rather than asking for single files, also makes NFS notice what other
    hosts have done there.
    """
    pattern = re.compile(rf"{re.escape(destination.name)}\.[0-9a-f]{{32}}(?:\.(.+))?\.partial")
    found = []
    for name in os.listdir(destination.parent):
        if match := pattern.fullmatch(name):
            path = destination.with_name(name)
            with contextlib.suppress(FileNotFoundError):  # complete, or gone, by now
                version = unquote(match[1]) if match[1] else None
                found.append(Partial(path, path.stat().st_size, version))
    return found


class PartialFile:
    """A file on its way, which vanishes at the end of a `with` block unless it was published.

    Attributes:
        received: bytes that are in it.
        version: the server's name for what it is a part of; None: it cannot be continued.

    Args:
        destination: what it is to become, in a directory that exists.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._sha256 = hashlib.sha256()
        self.received = 0
        self.version: str | None = None

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()

    def start(self, version: str | None) -> None:
        """Begin with nothing, as a part of `version`."""
        self.discard()
        # The same directory, because only within one file system is a rename atomic; an own name,
        # because others may be at the same file; not `tempfile`, whose files nobody else can
        # read, which would spoil a cache that people share.
        stem = f"{self._destination.name}.{uuid.uuid4().hex}"
        name = f"{stem}.{quote(version, safe='')}.partial" if version else f"{stem}.partial"
        if len(os.fsencode(name)) > _LONGEST_NAME:
            name, version = f"{stem}.partial", None
        self._path = self._destination.with_name(name)  # first, so that Ctrl-C leaves nothing
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115 -- `discard` closes it
        self.version = version

    def inherit(self, *, use: bool) -> None:
        """Clear away what killed processes left, having begun with the longest if it is of use."""
        partials = find_partials(self._destination)
        usable = [partial for partial in partials if use and partial.version]
        if usable:
            longest = max(usable, key=lambda partial: partial.size)
            self.start(longest.version)
            try:
                with open(longest.path, "rb") as file:
                    while chunk := file.read(_COPIED_BYTES):
                        self.write(chunk)
            except OSError:  # it cannot be read, or is gone already: begin at zero
                self.discard()
        for partial in partials:
            with contextlib.suppress(OSError):  # somebody else's, in a directory that many share
                partial.path.unlink()

    def write(self, chunk: bytes) -> None:
        """Append."""
        assert self._file is not None, "start first"
        rest = memoryview(chunk)
        while rest:  # an unbuffered file may take less than it is given
            rest = rest[self._file.write(rest) :]
        self._sha256.update(chunk)
        self.received += len(chunk)

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of what has arrived."""
        return self._sha256.hexdigest()

    def matches(self, sha256_prefix: str) -> bool:
        """Whether something has arrived and its SHA-256 begins with these digits."""
        return self.received > 0 and self.sha256().startswith(sha256_prefix.lower())

    def publish(self) -> None:
        """Become the destination."""
        assert self._file is not None, "start first"
        assert self._path is not None
        # A cached file is trusted, so its content must reach the disk before its name does.
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._path, self._destination)

    def discard(self) -> None:
        """Throw away what has arrived."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a write that failed already
                self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._path = self._file = self.version = None
        self._sha256 = hashlib.sha256()
        self.received = 0
