"""Files that exhaust memory, time or the stack, or that give values which nobody wrote."""

import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from helpers.original_format import write
from helpers.pickles_by_hand import (
    archive,
    call,
    dictionary,
    group,
    name,
    number,
    old_file,
    state_dict,
    storage,
    tensor,
    text,
)

Bomb = tuple[Callable[[Path], Any], str]
"""How to make the file, and what the error says."""

WEIGHTS = dictionary(a=tensor(4))
OLD_WEIGHTS = dictionary(a=tensor(4, legacy=True))
TSN = text("tsn")


# Sizes that are not true


def _overlapping(path: Path) -> None:
    """Many records, all of them the same bytes of the file."""
    archive(path, state_dict(a=tensor(4)), records={"data/0": bytes(16), "data/x": bytes(2**20)})
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    count, _, size, start = struct.unpack("<HHII", content[end + 8 : end + 20])
    directory = content[start : start + size]
    last = directory.index(b"archive/data/x")
    entry = directory[last - 46 : last + len(b"archive/data/x")]
    copies = [entry[:-1] + bytes([ord("A") + i]) for i in range(22)]
    size += sum(map(len, copies))
    counts = struct.pack("<HHII", count + 22, count + 22, size, start)
    tail = content[end : end + 8] + counts + content[end + 20 :]
    path.write_bytes(content[:start] + directory + b"".join(copies) + tail)


def _two_of_one_name(path: Path) -> None:
    """torch looks names up without regard to case."""
    archive(path, state_dict(a=tensor(4)))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/DATA.PKL", b"\x80\x02" + call("posix.system", text("true")) + b".")


def _in_archive(content: bytes, **options: Any) -> Callable[[Path], None]:
    return lambda path: archive(path, content, **options)


def _in_old_file(content: bytes, **options: Any) -> Callable[[Path], None]:
    return lambda path: old_file(path, content, **options)


def _tensor_in_both(**options: Any) -> list[Callable[[Path], None]]:
    size = options.pop("size")
    return [
        _in_archive(state_dict(a=tensor(*size, **options))),
        _in_old_file(state_dict(a=tensor(*size, legacy=True, **options))),
    ]


_REFUSED = "is not a checkpoint, or is damaged|which is neither a dense tensor nor a plain value"
"""What torch's own reader refuses; which of the two it says depends on its version."""
_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "larger than its storage": ({"size": (2**30,)}, _REFUSED),
    "of stride zero": (
        {"size": (2**40,), "stride": (0,)},
        "claims 4,398,046,511,104 bytes of weights, but they share 16 in memory",
    ),
    "of a large stride": ({"size": (2, 2), "stride": (2**61, 1)}, _REFUSED),
    "behind the end of its storage": ({"size": (1,), "offset": 2**62}, _REFUSED),
    "whose sizes' product overflows": ({"size": (2**62, 4), "stride": (0, 0)}, _REFUSED),
    "of a negative stride": ({"size": (4,), "stride": (-1,), "offset": 3}, _REFUSED),
    "of a negative size": ({"size": (-4,), "stride": (1,)}, _REFUSED),
    "in front of its storage": ({"size": (4,), "offset": -4}, _REFUSED),
    "of a hundred thousand axes": (
        {"size": (1,) * 10**5, "stride": (1,) * 10**5},
        "does not record its number of segments",
    ),
    "of fewer strides than sizes": ({"size": (2, 2), "stride": (1,)}, _REFUSED),
    "of another storage's size": (
        {"size": (2**40,), "held": 2**40},
        _REFUSED,
    ),
}

SIZES: dict[str, Bomb] = {
    **{
        f"a tensor {kind}, {serialisation}": (make, message)
        for kind, (options, message) in _TENSORS.items()
        for serialisation, make in zip(("zip", "legacy"), _tensor_in_both(**options), strict=True)
    },
    "weights that unpack to a thousand times the file": (
        _in_archive(
            state_dict(a=tensor(50 * 2**20, held=50 * 2**20)),
            records={"data/0": bytes(200 * 2**20)},
            compression=zipfile.ZIP_DEFLATED,
        ),
        "claim to unpack to 209,",
    ),
    "a pickle that unpacks to a thousand times the file": (
        _in_archive(text("x" * 2**26) + b"0" + WEIGHTS, compression=zipfile.ZIP_DEFLATED),
        "claim to unpack to 67,",
    ),
    "records that overlap": (_overlapping, "claim to unpack to 2"),
    "two records of one name": (_two_of_one_name, "two records of one name"),
    "a storage without a record": (
        _in_archive(state_dict(a=tensor(4)), records={}),
        _REFUSED,
    ),
    "many storages as large as the file": (
        _in_old_file(
            dictionary(**{f"a{i}": storage(str(i), 2**20, legacy=True) for i in range(64)}),
            storages=bytes(2**22),
        ),
        _REFUSED,
    ),
    **{
        f"a view {place} its storage": (
            _in_old_file(
                state_dict(
                    a=tensor(4, legacy=True, view=group(text("v"), number(offset), number(4)))
                )
            ),
            _REFUSED,
        )
        for place, offset in (("behind", 2**40), ("in front of", -4))
    },
    "weights that end early": (
        _in_old_file(
            state_dict(a=tensor(4, legacy=True)), storages=struct.pack("<q", 4) + bytes(4)
        ),
        _REFUSED,
    ),
    "a reference to a module": (
        _in_old_file(
            group(
                *(text("module"), name("torch.FloatStorage"), text("/etc/passwd"), text("a")),
                *(number(1), b"N"),
            )
            + b"Q"
        ),
        _REFUSED,
    ),
    "a storage whose length is a float": (
        _in_archive(
            group(
                *(text("storage"), name("torch.FloatStorage"), text("0"), text("cpu")),
                b"G" + struct.pack(">d", 4.0),
            )
            + b"Q"
        ),
        _REFUSED,
    ),
}


# More than a reader can hold


def _million(make: Callable[[int], bytes]) -> bytes:
    return b"(" + b"".join(map(make, range(10**6)))


AMOUNTS: dict[str, Bomb] = {
    "a name list of a million entries": (
        _in_archive(dictionary(state_dict=b"]" + _million(lambda i: text(f"layer{i:07}")) + b"e")),
        "state_dict must be a dictionary of tensors, got list",
    ),
    "weights under three hundred thousand names": (
        _in_archive(
            dictionary(
                model_type=TSN,
                state_dict=b"}("
                + b"".join(text(f"{i:06}") + b"N" for i in range(3 * 10**5))
                + b"u",
            )
        ),
        "state_dict must hold tensors under names, got NoneType",
    ),
    "a million empty dictionaries": (
        _in_archive(b"](" + b"}" * 10**6 + b"e"),
        "expected a dictionary with state_dict, got list",
    ),
    "half a million references to one name": (
        _in_archive(
            dictionary(
                model_type=TSN,
                state_dict=b"](" + text("a") + b"q\x00" + b"h\x00" * (5 * 10**5) + b"e",
            )
        ),
        "state_dict must be a dictionary of tensors, got list",
    ),
    "one storage under a thousand names": (
        _in_archive(state_dict(a=tensor(4), **{f"a{i}": tensor(4) for i in range(1000)})),
        "claims 16,016 bytes of weights, but they share 16 in memory",
    ),
    "a memo index of four thousand million": (
        _in_archive(b"]r\xff\xff\xff\xff"),
        "expected a dictionary with state_dict, got list",
    ),
    "a text of four thousand million letters": (
        _in_archive(b"X\xff\xff\xff\xffabc"),
        _REFUSED,
    ),
    "a hundred gigabytes of bytearray": (
        _in_archive(call("__builtin__.bytearray", number(10**11))),
        _REFUSED,
    ),
    "a tensor without storage": (
        _in_archive(call("torch.FloatTensor", number(2**40))),
        _REFUSED,
    ),
    "a storage of its own": (
        _in_archive(call("torch.FloatStorage", number(2**40))),
        _REFUSED,
    ),
    "torch's conversion of an expanded tensor": (
        _in_archive(
            call(
                "torch._utils._rebuild_device_tensor_from_cpu_tensor",
                *(tensor(2**33, stride=(0,)), name("torch.float64"), text("cpu"), b"\x89"),
            )
        ),
        _REFUSED,
    ),
    "attributes for torch's classes": (
        _in_archive(name("torch.Tensor") + dictionary(__add__=b"N") + b"b"),
        _REFUSED,
    ),
    "attributes for allowed classes": (
        _in_archive(name("argparse.Namespace") + b"N" + dictionary(__init__=b"N") + b"\x86b"),
        _REFUSED,
    ),
}


# Depth, and ways without end


def _nested(depth: int) -> bytes:
    return b"]" * depth + b"N" + b"a" * depth


def _many_ways() -> bytes:
    """A list of lists, each of them twice the one before it: 2^100 ways to the first."""
    return b"](]q\x00" + b"](h\x00h\x00eq\x00" * 100 + b"e"


DEPTHS: dict[str, Bomb] = {
    "a thousand nested lists in args": (
        _in_archive(
            dictionary(model_type=TSN, state_dict=WEIGHTS, args=dictionary(deep=_nested(1000)))
        ),
        "nested too deeply",
    ),
    "a hundred thousand nested tuples in args": (
        _in_archive(
            dictionary(
                model_type=TSN, state_dict=WEIGHTS, args=dictionary(deep=b"N" + b"\x85" * 10**5)
            )
        ),
        "nested too deeply",
    ),
    "a hundred thousand nested lists in args": (
        _in_old_file(
            dictionary(model_type=TSN, state_dict=OLD_WEIGHTS, args=dictionary(a=_nested(10**5)))
        ),
        "nested too deeply",
    ),
    "nested dictionaries in hyper_parameters": (
        _in_archive(
            dictionary(
                state_dict=WEIGHTS,
                hyper_parameters=(b"}" + text("a")) * 10**5 + b"N" + b"s" * 10**5,
            )
        ),
        "nested too deeply",
    ),
    "nested lists in the place of a number": (
        _in_archive(
            dictionary(
                model_type=TSN,
                state_dict=WEIGHTS,
                modality=text("RGB"),
                segment_count=_nested(10**5),
            )
        ),
        "nested too deeply",
    ),
    "nested lists in the place of weights": (
        _in_archive(state_dict(a=_nested(10**5))),
        "got list under 'a'",
    ),
    "nested lists in the place of everything": (
        _in_archive(_nested(10**5)),
        "expected a dictionary with state_dict, got list",
    ),
    "2^100 ways in args": (
        _in_archive(
            dictionary(model_type=TSN, state_dict=WEIGHTS, args=dictionary(many=_many_ways()))
        ),
        "does not record its number of segments",
    ),
    "2^100 ways in the place of a number": (
        _in_archive(dictionary(model_type=TSN, state_dict=WEIGHTS, segment_count=_many_ways())),
        "segment_count must be a number",
    ),
    "2^100 ways in hyper_parameters": (
        _in_archive(dictionary(state_dict=WEIGHTS, hyper_parameters=_many_ways())),
        "does not say which model it is for",
    ),
}


# Settings of models that nobody can build


def _checkpoint(**entries: Any) -> Callable[[Path], Any]:
    """What is complete enough for the config to be read."""
    contents = {
        "model_type": "tsn",
        "epoch": 1,
        "segment_count": 4,
        "modality": "RGB",
        "arch": "resnet18",
        "args": Namespace(dropout=0.7),
        "state_dict": {
            "base_model.conv1.weight": torch.zeros(64, 3, 7, 7),
            "fc_verb.weight": torch.zeros(5, 512),
            "fc_noun.weight": torch.zeros(7, 512),
        },
        **entries,
    }
    return lambda path: write(contents, path)


CONFIGS: dict[str, Bomb] = {
    "segments without end": (
        _checkpoint(segment_count=10**12),
        "segment_count must be an integer up to 1,000,000, got 1000000000000",
    ),
    "a number of two thousand bits": (
        _checkpoint(segment_count=2**2030),
        "segment_count must be a number, got a number of 2031 bits",
    ),
    "frames without end": (
        _checkpoint(modality="RGBDiff", args=Namespace(flow_length=10**9)),
        "flow_length must be an integer up to 1,000,000",
    ),
    "features without end": (
        _checkpoint(
            model_type="trn",
            img_feature_dim=2**62,
            state_dict={"consensus.classifiers.0.weight": torch.zeros(5, 512)},
        ),
        "img_feature_dim must be an integer up to",
    ),
    "classes without end": (
        _in_archive(state_dict(**{"new_fc.weight": tensor(2**62, 0, stride=(1, 1))})),
        r"dense tensors with values, got a tensor of shape \(4611686018427387904, 0\)",
    ),
    "pixels without end": (
        _checkpoint(
            preprocessing={
                "mean": [0.5],
                "std": [0.5],
                "input_space": "RGB",
                "input_range": [0, 1],
                "input_size": 10**18,
                "scale_size": 256,
            }
        ),
        "preprocessing.input_size must be an integer",
    ),
    "a name of three megabytes": (
        _in_archive(state_dict(**{"x" * 3_000_000: text("no tensor")})),
        "got str under 'xxx",
    ),
    "a backbone with a name of three megabytes": (
        _checkpoint(arch="resnet" * 500_000),
        "arch must be a string of at most 100 characters",
    ),
    "a residual block at position 10^5000": (
        lambda path: write(
            {
                "state_dict": {
                    f"base_model.layer1.{'9' * 5000}.conv1.net.weight": torch.zeros(1, 3, 1, 1),
                    "base_model.conv1.weight": torch.zeros(64, 3, 7, 7),
                    "new_fc.weight": torch.zeros(5, 8),
                }
            },
            path,
        ),
        "residual blocks shift nowhere",
    ),
    "names that a terminal obeys": (
        _in_archive(state_dict(**{"\x1b[2J\x1b]0;evil\x07\n": text("no tensor")})),
        r"got str under '\\x1b\[2J",
    ),
    "weights whose names a terminal obeys": (
        _checkpoint(
            state_dict={
                "\x1b[2J\n": torch.zeros(1),
                "fc_verb.weight": torch.zeros(5, 512),
                "fc_noun.weight": torch.zeros(7, 512),
            }
        ),
        r"1 unexpected: \\x1b\[2J\\n",
    ),
}

BOMBS = {**SIZES, **AMOUNTS, **DEPTHS, **CONFIGS}
