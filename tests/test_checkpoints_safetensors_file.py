"""safetensors files hold everything that a checkpoint holds, and cannot hurt who reads them."""

import json
import sys
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.equality import assert_equal
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.files import CheckpointError
from checkpoints.formats import format_for, format_of, read_any, write_any
from checkpoints.safetensors_file import is_safetensors, read_safetensors, write_safetensors

WEIGHTS = OrderedDict(
    (f"layer.{name}", value)
    for name, value in (
        ("weight", torch.arange(6.0).reshape(2, 3)),
        ("half", torch.ones(2, dtype=torch.bfloat16)),
        ("num_batches_tracked", torch.tensor(3)),
        ("channels_last", torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)),
        ("view", torch.arange(10.0)[2:5]),
    )
)
CONTENTS: dict[str, Any] = {
    "model_type": "tsm",
    "epoch": 3,
    "none": None,
    "args": Namespace(lr=0.1, steps=(20, 40), inner={"a": [1, {2, 3}]}, nan=float("nan")),
    "optimizer": {
        "state": {0: {"momentum": torch.ones(2, 3), "step": torch.tensor(5.0)}, 1: {}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1]}],
    },
    "odd": [1j, b"\x00\xff", torch.Size([1, 2]), torch.float16, torch.device("cuda", 1), -(2**80)],
    "keys": {(1, 2): "tuple", None: "none", "$tensor": "dollar", 0.5: float("-inf")},
    "dollar": {"$tuple": [1]},
    "state_dict": WEIGHTS,
}


@pytest.mark.essential
def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert write_safetensors(CONTENTS, path) == ()
    assert_equal(read_safetensors(path), CONTENTS)
    assert is_safetensors(path)
    assert format_of(path) == "safetensors"


def test_other_readers_find_the_weights_under_their_names(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(CONTENTS, path)
    tensors = safetensors.torch.load_file(path)
    assert set(tensors) == {*WEIGHTS, "optimizer.state.0.momentum", "optimizer.state.0.step"}
    for name, tensor in WEIGHTS.items():
        assert torch.equal(tensors[name], tensor)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["checkpoint"])["model_type"] == "tsm"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4)
    | st.lists(inner, max_size=4).map(tuple)
    | st.dictionaries(st.text(max_size=3) | st.integers() | st.just("$set"), inner, max_size=4)
    | st.dictionaries(st.from_regex("[a-z]{1,4}", fullmatch=True), inner, max_size=3).map(
        lambda entries: Namespace(**entries)
    ),
    max_leaves=20,
)  # fmt: skip


@given(value=PLAIN)
def test_any_plain_value_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "value.safetensors"
    assert write_safetensors({"value": value, "state_dict": WEIGHTS}, path) == ()
    assert_equal(read_safetensors(path)["value"], value)


def test_two_tensors_that_want_one_name(tmp_path: Path) -> None:
    contents = {
        "a": {"b": torch.zeros(1)},
        "a.b": torch.ones(1),
        "state_dict": {"a.b": torch.full((1,), 2.0)},
    }
    write_safetensors(contents, tmp_path / "file")
    assert_equal(read_safetensors(tmp_path / "file"), contents)


def test_tensors_that_share_memory_come_back_apart(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    contents = {"state_dict": {"a": shared, "b": shared, "c": shared[1:], "d": shared.expand(3, 4)}}
    write_safetensors(contents, tmp_path / "file")
    state = read_safetensors(tmp_path / "file")["state_dict"]
    assert_equal(state, contents["state_dict"])
    assert len({tensor.data_ptr() for tensor in state.values()}) == 4


def test_what_is_read_does_not_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    weight = torch.arange(2.0**16)
    write_safetensors({"state_dict": {"weight": weight}}, path)
    loaded = read_safetensors(path)["state_dict"]["weight"]
    path.write_bytes(b"")
    assert torch.equal(loaded, weight)


def test_what_cannot_be_represented_is_named(tmp_path: Path) -> None:
    contents = {
        "args": Namespace(function=len, path=PurePosixPath("a/b"), scalar=np.float64(0.5)),
        "optimizer": {"m": torch.ones(2, dtype=torch.complex128), "s": torch.eye(2).to_sparse()},
        "large": [2**5000],
        "state_dict": WEIGHTS,
    }
    left_out = write_safetensors(contents, tmp_path / "file")
    assert [sentence.partition(",")[0] for sentence in left_out] == [
        "left out args.function",
        "left out optimizer.m",
        "left out optimizer.s",
        "left out large.0",
    ]
    loaded = read_safetensors(tmp_path / "file")
    assert vars(loaded["args"]) == {"function": None, "path": "a/b", "scalar": 0.5}
    assert loaded["optimizer"] == {"m": None, "s": None}
    for weight in (torch.ones(2, dtype=torch.complex128), torch.eye(2).to_sparse()):
        with pytest.raises(CheckpointError, match="cannot hold the weight a, a tensor of torch"):
            write_safetensors({"state_dict": {"a": weight}}, tmp_path / "file")


def _deep() -> Any:
    deep: list[Any] = []
    for _ in range(10**5):
        deep = [deep]
    return deep


def _loop() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _many_ways() -> Any:
    ways: list[Any] = []
    for _ in range(100):
        ways = [ways, ways]
    return ways


@pytest.mark.parametrize(
    ("value", "message"),
    [(_deep(), "nested too deeply"), (_loop(), "nested too deeply"), (_many_ways(), "more than")],
)
def test_values_without_end_leave_the_old_file(tmp_path: Path, value: Any, message: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(CheckpointError, match=message):
        write_safetensors({"value": value, "state_dict": WEIGHTS}, path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.essential
def test_anybody_elses_file_is_read_as_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    safetensors.torch.save_file({"b": torch.ones(2), "a": torch.zeros(1)}, path)
    assert_equal(dict(sorted(read_any(path).items())), {"a": torch.zeros(1), "b": torch.ones(2)})


def hand_made(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + data)
    return path


def checkpoint(text: str) -> dict[str, Any]:
    return {"__metadata__": {"checkpoint": text}}


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{" + b" " * 10, "damaged"),
        (b"{}" + b" " * 2**23, "header of 8,388,610 bytes; 4,194,304 are the most"),
        ({"a": {**ONE, "shape": [2**40]}}, "damaged"),
        ({"a": {**ONE, "shape": [2**62, 4]}}, "damaged"),
        ({"a": {**ONE, "data_offsets": [0, 2**40]}}, "damaged"),
        ({"a": {**ONE, "data_offsets": [4, 0]}}, "damaged"),
        ({"a": {**ONE, "data_offsets": [-4, 0]}}, "damaged"),
        ({"a": ONE, "b": ONE}, "damaged"),
        ({"a": {**ONE, "dtype": "F99"}}, "damaged"),
        ({"a": ONE, "__metadata__": {"checkpoint": "{"}}, "JSONDecodeError"),
        ({"a": ONE, **checkpoint('{"$tensor":"b"}')}, r"KeyError: 'b'"),
        ({"a": ONE, **checkpoint('{"$tensor":["a"]}')}, "TypeError"),
        ({"a": ONE, **checkpoint('{"$eval":"1"}')}, r"KeyError: '\$eval'"),
        ({"a": ONE, **checkpoint('{"$dtype":"load"}')}, "KeyError: 'load'"),
        ({"a": ONE, **checkpoint('{"$size":["a"]}')}, "TypeError"),
        ({"a": ONE, **checkpoint('{"$tuple":5}')}, "TypeError"),
        ({"a": ONE, **checkpoint('{"$items":[[[],1]]}')}, "TypeError"),
        ({"a": ONE, **checkpoint('{"$namespace":[1]}')}, "TypeError"),
        ({"a": ONE, **checkpoint('{"$bytes":"xyz"}')}, "ValueError"),
        ({"a": ONE, **checkpoint('{"$device":"moon"}')}, "damaged"),
        ({"a": ONE, **checkpoint('{"$float":{}}')}, "TypeError"),
        ({"a": ONE, **checkpoint("9" * 5000)}, "ValueError"),
        ({"a": ONE, **checkpoint("[" * 10**5 + "]" * 10**5)}, "RecursionError"),
        ({"a": ONE, **checkpoint('{"a":' * 10**5 + "1" + "}" * 10**5)}, "RecursionError"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, header: Any, message: str) -> None:
    path = hand_made(tmp_path / "model.safetensors", header, bytes(4))
    with pytest.raises(CheckpointError, match=message) as error:
        read_any(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 1000
    assert str(error.value).isprintable()


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(CONTENTS, path)
    content = path.read_bytes()
    for length in range(0, len(content), 13):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            read_any(path)


def test_formats_are_known_by_content_and_wanted_by_name(tmp_path: Path) -> None:
    for wanted in ("zip", "legacy", "safetensors"):
        path = tmp_path / f"{wanted}.any"
        write_any({"epoch": 1, "state_dict": WEIGHTS}, path, wanted)
        assert format_of(path) == wanted
        assert read_any(path)["epoch"] == 1
    assert format_for("a.pth") == "zip"
    assert format_for("a.pth", legacy=True) == "legacy"
    assert format_for(Path("a.SafeTensors")) == "safetensors"
    with pytest.raises(ValueError, match="legacy must be False"):
        format_for("a.safetensors", legacy=True)


@pytest.mark.parametrize("name", ["folder", "none/model.safetensors"])
def test_destinations_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_safetensors({"state_dict": WEIGHTS}, tmp_path / name)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_safetensors(CONTENTS, tmp_path / "file")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        read_any(tmp_path / "file")
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        write_safetensors(CONTENTS, tmp_path / "other")
