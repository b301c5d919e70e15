"""Score files: some scores, and pickles of them in the opcodes that NumPy 1 wrote."""

import struct
from typing import Any

import numpy as np

from helpers.pickles_by_hand import call, dictionary, group, name, number, text

NUMPY_1 = "numpy.core"
FALSE, TRUE, NONE, BUILD = b"\x89", b"\x88", b"N", b"b"


def made_scores(ids: list[str], num_class: tuple[int, int] = (5, 7), seed: int = 0) -> Any:
    """Random scores, as `epic.scores.Scores` describes them."""
    generator = np.random.default_rng(seed)
    verb, noun = (generator.normal(size=(len(ids), n)).astype(np.float32) for n in num_class)
    return {"ids": ids, "verb": verb, "noun": noun}


def arrays_of_file(scores: Any) -> dict[str, Any]:
    """The dictionary that C1's test.py pickles."""
    ids = np.array(scores["ids"])
    videos = np.array([name.rpartition("_")[0] for name in scores["ids"]])
    return {
        "verb_output": scores["verb"],
        "noun_output": scores["noun"],
        "narration_id": ids,
        "video_id": videos,
    }


def rows_of_file(scores: Any) -> list[dict[str, Any]]:
    """The list that C1's fuse.py saves."""
    columns = arrays_of_file(scores)
    return [{key: column[i] for key, column in columns.items()} for i in range(len(scores["ids"]))]


def global_name(full_name: str, protocol: int) -> bytes:
    if protocol < 4:
        return name(full_name)
    module, _, last = full_name.rpartition(".")
    return text(module) + text(last) + b"\x93"


def raw_bytes(data: bytes, protocol: int) -> bytes:
    if protocol == 2:
        return call("_codecs.encode", text(data.decode("latin1")), text("latin1"))
    if protocol < 5:
        return b"B" + struct.pack("<I", len(data)) + data
    return b"\x96" + struct.pack("<Q", len(data)) + data


def dtype(code: str, protocol: int = 2, *, order: str = "<", itemsize: int = -1) -> bytes:
    made = global_name("numpy.dtype", protocol) + group(text(code), FALSE, TRUE) + b"R"
    sizes = (number(itemsize), number(4 if code.startswith("U") else -1), number(8))
    return made + group(number(3), text(order), NONE, NONE, NONE, *sizes) + BUILD


def array(data: bytes, kind: bytes, *shape: int, protocol: int = 2, core: str = NUMPY_1) -> bytes:
    sizes = group(*map(number, shape))
    if protocol == 5:
        arguments = group(raw_bytes(data, 5), kind, sizes, text("C"))
        return global_name(f"{core}.numeric._frombuffer", 5) + arguments + b"R"
    empty = group(
        global_name("numpy.ndarray", protocol), group(number(0)), raw_bytes(b"b", protocol)
    )
    made = global_name(f"{core}.multiarray._reconstruct", protocol) + empty + b"R"
    return made + group(number(1), sizes, kind, FALSE, raw_bytes(data, protocol)) + BUILD


def numpy_1_pickle(contents: dict[str, Any], protocol: int, core: str = NUMPY_1) -> bytes:
    """A pickle of a dictionary of arrays of float32 or strings."""
    entries = {}
    for key, value in contents.items():
        code = "f4" if value.dtype.kind == "f" else f"U{value.dtype.itemsize // 4}"
        size = -1 if code == "f4" else value.dtype.itemsize
        kind = dtype(code, protocol, itemsize=size)
        entries[key] = array(value.tobytes(), kind, *value.shape, protocol=protocol, core=core)
    return pickled(dictionary(**entries), protocol)


def pickled(content: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + content + b"."
