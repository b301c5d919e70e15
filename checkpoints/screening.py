"""What reading a file of `torch.save` would do, found out without doing it.

torch's reader refuses to run code, and takes the file at its word in everything else. A tensor that
is larger than its storage gets whatever lies in memory behind it, one of stride zero claims 2^40
elements, a few bytes unpack to gigabytes, and functions that torch itself allows copy without end.

Files are therefore read twice, first by a reader that makes nothing of what it finds: every name
outside a short list is refused, and every size is compared with what the file holds.

Source of the format: Python's `pickletools` for pickles; `torch.serialization` for the rest, which
is a zip archive with the pickle `data.pkl` and a record for each storage, or, before PyTorch 1.6,
five pickles followed by the storages.
"""

import io
import os
import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2 in those of Python 3
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

__all__ = ["ForbiddenNameError", "screen"]

_LONGEST_PICKLE = 4 * 2**20
"""Bytes of a pickle, and of what its calls copy. A ResNet-152 with its optimiser has 0.3 MB; values
of a byte each take a hundred times as much in memory."""

_LARGEST_RATIO, _SMALL = 10, 64 * 2**20
"""How many times its size a compressed archive may unpack to, and how many bytes always. Weights
hardly compress."""

_MOST_AXES = 64
"""Axes of a tensor, as in PyTorch."""

_PLAIN = {
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.device",
}

_DTYPES = {
    f"torch.{name}": dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)
}
_STORAGES = {
    f"torch.{name}Storage": dtype.itemsize
    for name, dtype in (
        ("Double", torch.float64),
        ("Float", torch.float32),
        ("Half", torch.float16),
        ("BFloat16", torch.bfloat16),
        ("Long", torch.int64),
        ("Int", torch.int32),
        ("Short", torch.int16),
        ("Char", torch.int8),
        ("Byte", torch.uint8),
        ("Bool", torch.bool),
        ("ComplexFloat", torch.complex64),
        ("ComplexDouble", torch.complex128),
    )
}
"""Bytes of an element, by the name of the type of its storage; cuda's bear the same names."""


class ForbiddenNameError(ValueError):
    """A file that names something beyond tensors and plain values.

    Attributes:
        name: what it names, with its module.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, eq=False)
class _Storage:
    """Memory that a file claims for the elements of tensors."""

    nbytes: int
    itemsize: int


def screen(file: BinaryIO, names: Collection[str]) -> None:
    """Refuse a file that would do more than give plain values and dense tensors.

    Args:
        file: opened for reading, at its start.
        names: full names of types and functions that it may name beside those that make plain
            values and tensors.

    Raises:
        ForbiddenNameError: if it names anything else.
        Exception: of nearly any kind, if it is damaged, of another kind, or claims more than it
            holds.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        try:
            _screen_archive(file, size, names)
        except zipfile.BadZipFile as error:
            raise ValueError(
                "the archive is cut short or damaged: copy or fetch it again"
            ) from error
    elif start[:2] == b"\x80\x02":
        _screen_legacy(file, size, names)
    else:
        hints = {b"": "it is empty", b"vers": "a pointer of git-lfs: git lfs pull fetches the file"}
        page = "a web page, not the file" if start.lstrip()[:1] == b"<" else ""
        hint = page or hints.get(start, "it starts in another way")
        raise ValueError(f"neither a file of torch.save nor of safetensors: {hint}")


def _screen_archive(file: BinaryIO, size: int, names: Collection[str]) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        # torch looks names up without regard to case, and would find the other of two.
        if len({name.lower() for name in entries}) != len(archive.infolist()):
            raise ValueError("the archive has two records of one name")
        unpacked = sum(entry.file_size for entry in entries.values())
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries.values())
        if unpacked > (size if stored else max(_LARGEST_RATIO * size, _SMALL)):
            raise ValueError(f"its {size:,} bytes claim to unpack to {unpacked:,}")
        folder = next(iter(entries), "").partition("/")[0]
        if f"{folder}/constants.pkl" in entries:
            raise ValueError("it is a program of TorchScript (torch.jit.save)")
        if f"{folder}/data.pkl" not in entries:
            raise ValueError("an archive without the record data.pkl")
        with archive.open(f"{folder}/data.pkl") as record:
            content = record.read(_LONGEST_PICKLE + 1)
    _require_short(len(content))
    prefix = f"{folder}/data/"
    held = {name.removeprefix(prefix): entry.file_size for name, entry in entries.items()
            if name.startswith(prefix)}  # fmt: skip

    def storage(key: str, itemsize: int, count: int) -> _Storage:
        if count * itemsize > held.get(key, 0):
            raise ValueError(
                f"it claims {count * itemsize:,} bytes for the storage {key!r}, of which it holds "
                f"{held.get(key, 0):,}"
            )
        return _Storage(count * itemsize, itemsize)

    _Screen(io.BytesIO(content), names, storage).load()


def _screen_legacy(file: BinaryIO, size: int, names: Collection[str]) -> None:
    claimed = 0

    def storage(key: str, itemsize: int, count: int) -> _Storage:
        nonlocal claimed
        claimed += count * itemsize
        if claimed > size:
            raise ValueError(f"its {size:,} bytes claim to hold {claimed:,} bytes of weights")
        return _Storage(count * itemsize, itemsize)

    # Magic number, version, system, the object itself, and the keys of the storages to come.
    for _ in range(5):
        _Screen(_Bounded(file), names, storage).load()
    if claimed > size - file.tell():
        raise ValueError(
            f"it ends early: {size - file.tell():,} of {claimed:,} bytes of weights are there"
        )


def _require_short(nbytes: int) -> None:
    if nbytes > _LONGEST_PICKLE:
        raise ValueError(
            f"what it holds beside weights takes more than {_LONGEST_PICKLE:,} bytes; "
            f"trust=True reads it all the same"
        )


class _Bounded:
    """A file of which no more than `_LONGEST_PICKLE` bytes are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._read = 0

    def read(self, count: int) -> bytes:
        return self._spend(self._file.read(min(count, _LONGEST_PICKLE + 1 - self._read)))

    def readline(self) -> bytes:
        return self._spend(self._file.readline(_LONGEST_PICKLE + 1 - self._read))

    def _spend(self, content: bytes) -> bytes:
        self._read += len(content)
        _require_short(self._read)
        return content


class _Screen(pickle._Unpickler):  # the C one makes room for forged memo indices: 64 GB for a byte
    """Goes through one pickle and makes nothing but plain containers of it.

    Args:
        file: at the start of the pickle, of limited length.
        names: as for `screen`.
        storage: checks what is claimed for a storage: key, bytes of an element, elements.
    """

    def __init__(
        self,
        file: "io.BytesIO | _Bounded",
        names: Collection[str],
        storage: Callable[[str, int, int], _Storage],
    ) -> None:
        super().__init__(file)
        self._names = names
        self._new_storage = storage
        self._storages: dict[str, _Storage] = {}
        self._copied = 0
        self._inert = self._make_inert()

    def find_class(self, module: str, name: str) -> Any:
        """Stand in for an allowed name."""
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full_name = f"{module}.{name}"
        if full_name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return self._tensor
        if full_name in ("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"):
            return self._inert
        if full_name in ("torch.Size", "_codecs.encode"):
            return self._copy
        if full_name in _DTYPES:
            return full_name
        storage = full_name.replace("torch.cuda.", "torch.")
        if storage in _STORAGES:
            return _Storage(0, _STORAGES[storage])
        if full_name in _PLAIN or full_name in self._names:
            return self._inert
        raise ForbiddenNameError(full_name.removeprefix("builtins."))

    def persistent_load(self, pid: Any) -> _Storage:
        """Check what a file claims for a storage, and note it once."""
        kind, element, key, _, count, *view = pid
        if kind != "storage" or not isinstance(element, _Storage):
            raise ValueError("a reference to something that is no storage")
        if type(key) is not str or type(count) is not int or count < 0:
            raise ValueError("a storage whose key is no text, or whose length is no whole number")
        if key not in self._storages:
            self._storages[key] = self._new_storage(key, element.itemsize, count)
        storage = self._storages[key]
        if view in ([], [None]):
            return storage
        ((_, offset, view_count),) = view
        if min(offset, view_count) < 0 or offset + view_count > count:
            raise ValueError("a view that does not lie in its storage")
        return _Storage(view_count * storage.itemsize, storage.itemsize)

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, *details: object
    ) -> _Storage:
        """Check that a tensor lies in its storage; its hooks and flags are none of ours."""
        numbers = (offset, *size, *stride)
        if not isinstance(storage, _Storage) or any(type(number) is not int for number in numbers):
            raise ValueError("a tensor without storage, or of sizes that are no whole numbers")
        if len(size) != len(stride) or len(size) > _MOST_AXES or min(numbers) < 0:
            raise ValueError(
                f"a tensor of {len(size)} sizes and {len(stride)} strides, the smallest being "
                f"{min((*size, *stride), default=0)}, at the offset {offset}"
            )
        elements = 1
        for length in size:
            elements *= length
        end = offset + 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if elements and max(elements, end) * storage.itemsize > storage.nbytes:
            raise ValueError(
                f"a tensor of sizes {size!r:.80} and strides {stride!r:.80} claims more than the "
                f"{storage.nbytes:,} bytes of its storage"
            )
        return storage

    def _copy(self, value: Any = (), *options: object) -> Any:
        """In the place of a size, or of text that stands for bytes: they are as long."""
        self._count([value])
        return value

    def _make_inert(self) -> type:
        """A class in the place of all others: it takes whatever comes, and keeps nothing."""
        screen = self

        class Inert:
            def __new__(cls, *arguments: object) -> "Inert":
                screen._count(arguments)
                return super().__new__(cls)

            def __setstate__(self, state: object) -> None:
                screen._count([state])

            def __setitem__(self, key: object, value: object) -> None:
                pass

            def append(self, item: object) -> None:
                pass

            def extend(self, items: object) -> None:
                pass

        return Inert

    def _count(self, arguments: Iterable[Any]) -> None:
        """Add up what calls copy: a long string and a short loop would fill any memory."""
        self._copied += sum(1 + len(value) for value in arguments if hasattr(value, "__len__"))
        if self._copied > _LONGEST_PICKLE:
            raise ValueError(f"what it holds takes more than {_LONGEST_PICKLE:,} bytes in memory")
