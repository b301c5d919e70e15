"""Files in folders, and in tar files without unpacking them.

EPIC-KITCHENS ships a tar of images for each video. Its members are listed once; after that, reading
an image is one read at a known offset.
"""

import io
import os
import posixpath
import tarfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["FileView", "ImageFolder", "ImageTar", "is_tar", "read_at"]

_COMPRESSION_SIGNATURES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
"""First bytes of compressed files; no video begins with them."""

_MAX_PADDING_BYTES = 1 << 20
"""Zeros that may follow the last member of a tar, since writers fill up their last record."""

_POSITION_LOCK = threading.Lock()
"""Held from seek to read: threads share the position of a file object."""


class ImageFolder:
    """A folder on the disk.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)

    def names(self, folder: str = "") -> Iterator[str]:
        """Yield the names of the files in a sub-folder ("": the folder itself), in any order."""
        with os.scandir(os.path.join(self.name, folder)) as entries:
            for entry in entries:
                # Links are not followed: that would take a system call for each, and would drop
                # broken links without a word, where reading names them.
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.name

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders in a sub-folder ("": the folder itself)."""
        with os.scandir(os.path.join(self.name, folder)) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def has(self, folder: str) -> bool:
        """Return whether there is such a sub-folder."""
        return os.path.isdir(os.path.join(self.name, folder))

    def full_name(self, file: str) -> str:
        """Return the path of a file or sub-folder."""
        return os.path.join(self.name, file)

    def open(self, file: str) -> str:
        """Return the path of a file, for Pillow to open.

        Raises:
            ValueError: if it is no regular file, such as a named pipe, which would block.
        """
        path = self.full_name(file)
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f"{path}: must be a regular file, not a pipe, folder or device")
        return path


class ImageTar:
    """A tar without compression; of members with one name, the last one counts.

    Args:
        file: its path, or a seekable binary file object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a tar, or a damaged one.
    """

    def __init__(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        self._file = os.fspath(file) if isinstance(file, os.PathLike) else file
        self.name = _name_of(self._file)
        # Folder -> name -> (offset, size), or None where the bytes are not stored as they are.
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
        rest = read_at(self._file, end, _MAX_PADDING_BYTES + 1)  # nothing but zeros in a sound tar
        if any(rest) or len(rest) > _MAX_PADDING_BYTES:
            raise ValueError(
                f"{self.name}: a tar file that is damaged or incomplete at byte {end}: data follow "
                f"its end mark"
            )

    def _add(self, member: tarfile.TarInfo) -> None:
        folder, name = _split(member.name)
        if member.isdir():
            self._members.setdefault(posixpath.join(folder, name), {})
            return
        extent = None
        if member.islnk():  # another name of an earlier member
            target_folder, target = _split(member.linkname)
            extent = self._members.get(target_folder, {}).get(target)
        elif member.isreg() and not member.issparse():
            extent = member.offset_data, member.size
        self._members.setdefault(folder, {})[name] = extent

    def names(self, folder: str = "") -> Iterator[str]:
        """Return the names of the files in a folder of the tar ("": its root)."""
        return iter(self._members.get(folder, {}))

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders in a folder of the tar ("": its root)."""
        start = f"{folder}/" if folder else ""
        inside = {
            path.removeprefix(start).partition("/")[0]
            for path in self._members
            if path.startswith(start)
        }
        return sorted(inside - {""})

    def has(self, folder: str) -> bool:
        """Return whether there is such a folder."""
        return any(path == folder or path.startswith(f"{folder}/") for path in self._members)

    def full_name(self, file: str) -> str:
        """Return the name of a file or folder in the tar, behind the tar's own."""
        return f"{self.name}: {file}"

    def open(self, file: str) -> BinaryIO:
        """Return the bytes of a file, for Pillow to open.

        Raises:
            ValueError: if it is a link, or not stored as it is.
        """
        folder, name = posixpath.split(file)
        extent = self._members[folder][name]
        if extent is None:
            raise ValueError(f"{self.full_name(file)}: is no plain file in this tar: unpack it")
        return io.BytesIO(read_at(self._file, *extent))


def is_tar(file: str | BinaryIO) -> bool:
    """Return whether a file begins with the header of a tar.

    Raises:
        ValueError: for a compressed file, where an image has no offset to read it at.
    """
    head = read_at(file, 0, tarfile.BLOCKSIZE)
    for signature, compression in _COMPRESSION_SIGNATURES.items():
        if head.startswith(signature):
            raise ValueError(
                f"{_name_of(file)}: a compressed file ({compression}): unpack it first"
            )
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")  # checks the checksum
    except tarfile.HeaderError:
        return False
    return True


def read_at(file: str | BinaryIO, offset: int, size: int) -> bytes:
    """Read bytes at an offset, undisturbed by other threads and processes that read the file."""
    if isinstance(file, str):
        with open(file, "rb") as opened:
            opened.seek(offset)
            return opened.read(size)
    raw = getattr(file, "raw", file)
    if isinstance(raw, io.FileIO) and hasattr(os, "pread"):  # forks share the file's position
        return os.pread(raw.fileno(), size, offset)
    with _POSITION_LOCK:
        file.seek(offset)
        return file.read(size)


class FileView:
    """A reader of a file object that other readers share, with a position of its own.

    Args:
        file: a seekable binary file object.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        with _POSITION_LOCK:
            self._size = file.seek(0, os.SEEK_END)

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all that are left."""
        size = max(self._size - self._position, 0) if size < 0 else size
        data = read_at(self._file, self._position, size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, and return it."""
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
    """Return folder and name of a tar's member, without a leading "./" or "/"."""
    return posixpath.split(posixpath.normpath(path.lstrip("/")))
