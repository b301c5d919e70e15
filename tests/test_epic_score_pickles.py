"""Pickles run no code and take no more memory than they have bytes, whatever they claim."""

import re
import struct

import pytest
import torch
from helpers.peak_memory import peak_memory
from helpers.pickles_by_hand import archive, call, dictionary, group, name, number, text
from helpers.score_files import BUILD, FALSE, NUMPY_1, TRUE, array, dtype, pickled, raw_bytes

from checkpoints import stand_ins
from epic.scores import read_scores

FLOATS = dtype("f4")
MEGABYTE = 2**20


def stacked(module: str, last: str) -> bytes:
    return text(module) + text(last) + b"\x93"


def touch(path: object) -> bytes:
    return text(f"touch '{path}'")


REFUSED = {
    "os.system": lambda marker: call("os.system", touch(marker)),
    "posix.system": lambda marker: stacked("posix", "system") + group(touch(marker)) + b"R",
    "subprocess.check_call": lambda marker: b"(" + touch(marker) + b"isubprocess\ncheck_call\n",
    "builtins.eval": lambda marker: call("builtins.eval", text(f"open({str(marker)!r}, 'w')")),
    "builtins.exec": lambda marker: (
        b"(" + name("builtins.exec") + text(f"open({str(marker)!r}, 'w')") + b"o"
    ),
    "builtins.getattr": lambda _: call("builtins.getattr", name("numpy.ndarray"), text("tofile")),
    "numpy.load": lambda marker: call("numpy.load", text(str(marker)), b"N", TRUE),
    "numpy.memmap": lambda marker: call("numpy.memmap", text(str(marker)), text("f4"), text("w+")),
    "numpy.core.multiarray.fromfile": lambda _: name("numpy.core.multiarray.fromfile"),
    "numpy.dtype.__class__": lambda _: stacked("numpy", "dtype.__class__"),
    "numpy.testing._private.utils.runstring": lambda marker: call(
        "numpy.testing._private.utils.runstring", text(f"open({str(marker)!r}, 'w')"), b"}"
    ),
    "_codecs.decode": lambda _: call("_codecs.decode", raw_bytes(b"x", 3), text("zlib")),
    "codecs.open": lambda marker: call("codecs.open", text(str(marker)), text("w")),
    "torch.storage._load_from_bytes": lambda _: call(
        "torch.storage._load_from_bytes", raw_bytes(b"x", 3)
    ),
    "collections.OrderedDict": lambda _: call("collections.OrderedDict"),
}
"""What is named: how it is called, with the file that it would make."""


@pytest.mark.parametrize("full_name", REFUSED)
@pytest.mark.parametrize("name", ["scores.pkl", "scores.pt"])
def test_everything_else_is_refused_by_name(name, full_name, tmp_path):
    path, marker = tmp_path / name, tmp_path / "marker"
    path.write_bytes(pickled(dictionary(verb_output=REFUSED[full_name](marker)), protocol=4))
    message = f"not a score file: {path}: it holds {full_name!r}, which is no array of NumPy and "
    with pytest.raises(ValueError, match=re.escape(message)):
        read_scores(path)
    assert not marker.exists()


def test_files_of_torch_are_refused_alike_and_nobody_is_asked_to_trust_them(tmp_path):
    path, marker = tmp_path / "scores.pt", tmp_path / "marker"
    archive(path, dictionary(verb_output=call("os.system", touch(marker))))
    with pytest.raises(ValueError, match=r"os\.system.*could run code$"):
        read_scores(path)
    assert not marker.exists()


MALFORMED = {
    "objects": array(raw_bytes(b"", 3), dtype("O8"), 0),
    "structures": array(bytes(4), dtype("V4"), 1),
    "dates": array(bytes(8), dtype("M8"), 1),
    "a size that no memory has": array(bytes(4), dtype("U999999999"), 1),
    "a shape larger than the bytes": array(bytes(4), FLOATS, 2**40),
    "a shape whose product overflows": array(bytes(4), FLOATS, 2**33, 2**33, 2**33),
    "negative sizes": array(bytes(16), FLOATS, -1, -4),
    "bytes that are text": call(f"{NUMPY_1}.multiarray._reconstruct")
    + group(number(1), group(number(1)), FLOATS, FALSE, text("abcd"))
    + BUILD,
    "no dtype": array(bytes(4), text("f4"), 1),
    "an order of its own": call(
        f"{NUMPY_1}.numeric._frombuffer", raw_bytes(bytes(4), 3), FLOATS, number(1), text("K")
    ),
    "another codec": call("_codecs.encode", text("abc"), text("rot13")),
    "attributes of a function": name(f"{NUMPY_1}.multiarray.scalar")
    + group(b"N", dictionary(__defaults__=group(number(1))))
    + BUILD,
    "a persistent id": text("a") + b"Q",
    "a number of a registry": b"\x82\x01",
    "a buffer outside": b"\x97",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_arrays_that_numpy_did_not_write(kind, tmp_path):
    path = tmp_path / "scores.pkl"
    path.write_bytes(pickled(dictionary(verb_output=MALFORMED[kind]), protocol=5))
    with pytest.raises(ValueError, match="is no pickle of NumPy arrays, or is damaged"):
        read_scores(path)
    assert stand_ins.numpy_scalar.__defaults__ is None


def _rows_of_one_array(count: int) -> bytes:
    """Rows of different ids and of one array of a megabyte."""
    row = array(bytes(MEGABYTE), FLOATS, MEGABYTE // 4) + b"q\x00"
    rows = [
        dictionary(
            narration_id=text(str(i)), verb_output=b"h\x00" if i else row, noun_output=b"h\x00"
        )
        for i in range(count)
    ]
    return b"](" + b"".join(rows) + b"e"


MUCH = struct.pack("<Q", 2**42)
BOMBS = {
    "bytes": b"\x8e" + MUCH + b"abc",
    "text": b"\x8d" + MUCH + b"abc",
    "a byte array": b"\x96" + MUCH + b"abc",
    "a frame": b"\x95" + MUCH + b"N",
    "a memo": b"Nr\xff\xff\xff\x7f",
    "a memo in digits": b"Np2147483647\n",
    "text that is encoded again and again": text("a" * MEGABYTE)
    + b"q\x000]("
    + 1000 * (name("_codecs.encode") + group(b"h\x00", text("latin1")) + b"R")
    + b"e",
    "a string that is decoded again and again": raw_bytes(bytes(4 * MEGABYTE // 8), 3)
    + b"q\x00]("
    + 1000 * call(f"{NUMPY_1}.multiarray.scalar", dtype("U131072"), b"h\x00")
    + b"e",
    "an array of one row, many times": _rows_of_one_array(500),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_memory_that_is_claimed_is_not_taken(kind, tmp_path):
    path = tmp_path / "scores.pkl"
    path.write_bytes(pickled(BOMBS[kind], protocol=5))

    def read() -> None:
        with pytest.raises(ValueError, match=r"is no pickle|claims 524,288,000 bytes"):
            read_scores(path)

    peak = peak_memory(read)
    assert peak is None or peak < 100 * MEGABYTE


def test_a_file_of_torch_may_not_claim_a_row_many_times_either(tmp_path):
    row = torch.zeros(MEGABYTE)
    rows = [{"narration_id": str(i), "verb_output": row, "noun_output": row} for i in range(100)]
    torch.save(rows, tmp_path / "scores.pt")
    with pytest.raises(ValueError, match="claims 419,430,400 bytes"):
        read_scores(tmp_path / "scores.pt")
