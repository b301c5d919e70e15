"""Numbered images where they lie: in folders, and in tar files, which are read in place.

EPIC-KITCHENS ships a tar for each video. Its members are listed once; from then on an image is one
read at a known place, as it would be after unpacking.
"""

import io
import os
import posixpath
import tarfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["FileView", "ImageFolder", "ImageTar", "is_tar", "read_at"]

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
"""How compressed files begin, and no video does."""

_MAX_PADDING = 1 << 20
"""Zero bytes that may follow the end of a tar, which fill its last record."""

_FILE_OBJECTS = threading.Lock()
"""Held while the position of a file object matters, which its threads share."""


class ImageFolder:
    """Files below a folder on the disk.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)

    def names(self, folder: str = "") -> Iterator[str]:
        """Names of the files in a sub-folder, or in the folder itself, in any order."""
        with os.scandir(os.path.join(self.name, folder)) as entries:
            for entry in entries:
                # The listing says what is a folder. To follow links would take a look at each
                # target, and would lose those that dangle, which reading must name.
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.name

    def folders(self, folder: str = "") -> list[str]:
        """Names of the folders in a sub-folder, or in the folder itself, sorted."""
        with os.scandir(os.path.join(self.name, folder)) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def has(self, folder: str) -> bool:
        """Whether there is such a sub-folder."""
        return os.path.isdir(os.path.join(self.name, folder))

    def where(self, file: str) -> str:
        """What messages call a file."""
        return os.path.join(self.name, file)

    def open(self, file: str) -> str:
        """What Pillow opens to read a file: its path."""
        return self.where(file)


class ImageTar:
    """Files in a tar that is not compressed; a later member replaces one of its name.

    Args:
        file: its path, or a seekable binary file object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no tar, or a damaged one.
    """

    def __init__(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        self._file = os.fspath(file) if isinstance(file, os.PathLike) else file
        self.name = _name_of(self._file)
        # Folder -> name -> offset and size, None for what is not stored as it is.
        self._members: dict[str, dict[str, tuple[int, int] | None]] = {}
        path, opened = (self._file, None) if isinstance(self._file, str) else (None, self._file)
        if opened is not None:
            opened.seek(0)
        try:
            with tarfile.open(path, "r:", opened) as tar:
                for member in tar:
                    self._add(member)
                end = tar.offset
        except tarfile.TarError as error:
            raise ValueError(f"{self.name}: no tar file, or a damaged one ({error})") from error
        rest = read_at(self._file, end, _MAX_PADDING + 1)  # it should end here, with zeros
        if any(rest) or len(rest) > _MAX_PADDING:
            raise ValueError(
                f"{self.name}: a tar file that is damaged or incomplete at byte {end}, since it "
                f"goes on behind its end"
            )

    def _add(self, member: tarfile.TarInfo) -> None:
        folder, name = _split(member.name)
        if member.isdir():
            self._members.setdefault(posixpath.join(folder, name), {})
            return
        place = None
        if member.islnk():  # another name of a member in front of it
            target_folder, target = _split(member.linkname)
            place = self._members.get(target_folder, {}).get(target)
        elif member.isreg() and not member.issparse():
            place = member.offset_data, member.size
        self._members.setdefault(folder, {})[name] = place

    def names(self, folder: str = "") -> Iterator[str]:
        """Names of the files in a folder of the tar, "" being its root."""
        return iter(self._members.get(folder, {}))

    def folders(self, folder: str = "") -> list[str]:
        """Names of the folders in a folder of the tar, sorted."""
        start = f"{folder}/" if folder else ""
        inside = {
            path.removeprefix(start).partition("/")[0]
            for path in self._members
            if path.startswith(start)
        }
        return sorted(inside - {""})

    def has(self, folder: str) -> bool:
        """Whether there is such a folder."""
        return any(path == folder or path.startswith(f"{folder}/") for path in self._members)

    def where(self, file: str) -> str:
        """What messages call a file."""
        return f"{self.name}: {file}"

    def open(self, file: str) -> BinaryIO:
        """What Pillow opens to read a file: its bytes."""
        folder, name = posixpath.split(file)
        place = self._members[folder][name]
        if place is None:
            raise ValueError(f"{self.where(file)}: is no plain file in this tar: unpack it")
        return io.BytesIO(read_at(self._file, *place))


def is_tar(file: str | BinaryIO) -> bool:
    """Whether a file is a tar, by its first block.

    Raises:
        ValueError: for a compressed file, in which images cannot be read by their place.
    """
    head = read_at(file, 0, tarfile.BLOCKSIZE)
    for beginning, kind in _COMPRESSED.items():
        if head.startswith(beginning):
            raise ValueError(f"{_name_of(file)}: a compressed file ({kind}): unpack it first")
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")  # which compares its checksum
    except tarfile.HeaderError:
        return False
    return True


def read_at(file: str | BinaryIO, offset: int, size: int) -> bytes:
    """Bytes from a place in a file, whatever other threads and processes read from it."""
    if isinstance(file, str):
        with open(file, "rb") as opened:
            opened.seek(offset)
            return opened.read(size)
    raw = getattr(file, "raw", file)
    if isinstance(raw, io.FileIO) and hasattr(os, "pread"):  # forked processes share its position
        return os.pread(raw.fileno(), size, offset)
    with _FILE_OBJECTS:
        file.seek(offset)
        return file.read(size)


class FileView:
    """A file object with a position of its own, so that several readers can share the file.

    Closing it closes nothing.

    Args:
        file: a seekable binary file object.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        with _FILE_OBJECTS:
            self._size = file.seek(0, os.SEEK_END)

    def read(self, size: int = -1) -> bytes:
        """Read bytes from the position on."""
        size = max(self._size - self._position, 0) if size < 0 else size
        data = read_at(self._file, self._position, size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, as files do, and return it."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


def _name_of(file: str | BinaryIO) -> str:
    name = file if isinstance(file, str) else getattr(file, "name", None)
    return name if isinstance(name, str) else f"a {type(file).__name__}"


def _split(path: str) -> tuple[str, str]:
    """Folder and name of a tar's member, with neither "./" nor "/" in front."""
    return posixpath.split(posixpath.normpath(path.lstrip("/")))
