"""Pickles by hand, in the opcodes of torch.save, and files around them in both serialisations."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def group(*parts: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def dictionary(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def name(full_name: str) -> bytes:
    """A class or function by its name."""
    module, _, last = full_name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(function: str, *arguments: bytes) -> bytes:
    return name(function) + group(*arguments) + b"R"


def storage(key: str, count: int, *, legacy: bool = False, view: bytes = b"N") -> bytes:
    """A reference to `count` floats."""
    parts = [text("storage"), name("torch.FloatStorage"), text(key), text("cpu"), number(count)]
    return group(*parts, *([view] if legacy else [])) + b"Q"


def tensor(
    *size: int,
    stride: tuple[int, ...] | None = None,
    offset: int = 0,
    held: int = 4,
    legacy: bool = False,
    view: bytes = b"N",
) -> bytes:
    """A tensor of any shape over a storage of `held` floats."""
    strides = torch.empty(size, device="meta").stride() if stride is None else stride
    return call(
        "torch._utils._rebuild_tensor_v2",
        storage("0", held, legacy=legacy, view=view),
        number(offset),
        group(*map(number, size)),
        group(*map(number, strides)),
        b"\x89",
        call("collections.OrderedDict"),
    )


def state_dict(**weights: bytes) -> bytes:
    """The dictionary of a checkpoint with these weights."""
    return dictionary(model_type=text("tsn"), state_dict=dictionary(**weights))


def archive(
    path: Path,
    content: bytes,
    *,
    records: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """A zip file as torch.save writes it, of one pickle and a storage of four floats."""
    records = {"data/0": bytes(16)} if records is None else records
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        file.writestr("archive/byteorder", b"little")
        for record, data in records.items():
            file.writestr(f"archive/{record}", data)
        file.writestr("archive/version", b"3\n")


def old_file(path: Path, content: bytes, *, storages: bytes | None = None) -> None:
    """A file as torch.save wrote it before 1.6, with a storage of four floats."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    storages = struct.pack("<q", 4) + bytes(16) if storages is None else storages
    pickles = [pickle.dumps(part, protocol=2) for part in head]
    pickles += [b"\x80\x02" + part + b"." for part in (content, b"](" + text("0") + b"e")]
    path.write_bytes(b"".join(pickles) + storages)
