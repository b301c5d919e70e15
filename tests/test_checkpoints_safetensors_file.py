"""safetensors files hold weights and their config, and cannot hurt who reads them."""

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

from checkpoints.errors import CheckpointError
from checkpoints.files import read_file, write_file
from checkpoints.safetensors_file import is_safetensors
from tools.options import find_format

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
    "args": Namespace(lr=0.1, steps=(20, 40), path=PurePosixPath("a/b"), scalar=np.float64(0.5)),
    "state_dict": WEIGHTS,
    "optimizer": None,
}
CONFIG = {
    "model_type": "tsm",
    "epoch": 3,
    "none": None,
    "args": {"lr": 0.1, "steps": [20, 40], "path": "a/b", "scalar": 0.5},
}


def assert_weights(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(ours) == set(expected)  # the library orders them by their types
    for name in expected:
        assert ours[name].dtype == expected[name].dtype
        assert torch.equal(ours[name], expected[name])


@pytest.mark.essential
def test_weights_and_config_come_back(tmp_path: Path) -> None:
    path = write_file(CONTENTS, tmp_path / "model.safetensors")
    assert is_safetensors(path)
    assert find_format(path) == "safetensors"
    contents = read_file(path)
    assert_weights(contents.pop("state_dict"), WEIGHTS)
    assert contents == CONFIG


def test_other_readers_find_weights_and_config_where_they_look(tmp_path: Path) -> None:
    path = write_file(CONTENTS, tmp_path / "model.safetensors")
    assert_weights(safetensors.torch.load_file(path), WEIGHTS)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["config"]) == CONFIG


def test_tensors_that_share_memory_come_back_apart(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    state = {"a": shared, "b": shared, "c": shared[1:], "d": shared.expand(3, 4)}
    path = write_file({"state_dict": state}, tmp_path / "file.safetensors")
    read = read_file(path)["state_dict"]
    assert_weights(read, state)
    assert len({tensor.data_ptr() for tensor in read.values()}) == 4


def test_what_is_read_does_not_follow_the_file(tmp_path: Path) -> None:
    weight = torch.arange(2.0**16)
    path = write_file({"state_dict": {"weight": weight}}, tmp_path / "file.safetensors")
    loaded = read_file(path)["state_dict"]["weight"]
    path.write_bytes(b"")
    assert torch.equal(loaded, weight)


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
    ("entries", "message"),
    [
        ({"optimizer": {"state": {}}}, "optimizer must be None .* name ends in .pth.tar holds"),
        ({"args": Namespace(function=len)}, "args must be JSON .*name ends in .pth.tar holds more"),
        ({"args": Namespace(lr=float("nan"))}, "args must be JSON"),
        ({"args": {"m": torch.ones(2)}}, "args must be JSON"),
        ({"value": 1j}, "value must be JSON"),
        ({"value": 2**20000}, "value must be JSON"),
        ({"value": _deep()}, "value must be JSON|nested too deeply"),
        ({"value": _loop()}, "value must be JSON|nested too deeply"),
        ({"value": _many_ways()}, "more than 200,000 values"),
        ({"state_dict": {"a": torch.eye(2).to_sparse_csr()}}, "state_dict holds what"),
        ({"state_dict": {"a": torch.eye(2).to_sparse()}}, "state_dict holds what"),
    ],
)
def test_what_cannot_be_held_leaves_the_old_file(
    tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    path = tmp_path / "file.safetensors"
    path.write_text("old")
    with pytest.raises(ValueError, match=message):
        write_file({**CONTENTS, **entries}, path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.safetensors"]


@pytest.mark.essential
def test_anybody_elses_file_is_read_as_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    safetensors.torch.save_file({"a": torch.zeros(1), "b": torch.ones(2)}, path)
    assert_weights(read_file(path), {"a": torch.zeros(1), "b": torch.ones(2)})


def hand_made(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + data)
    return path


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{" + b" " * 10, "damaged"),
        ({"a": {**ONE, "shape": [2**40]}}, "damaged"),
        ({"a": {**ONE, "shape": [2**62, 4]}}, "damaged"),
        ({"a": {**ONE, "data_offsets": [0, 2**40]}}, "damaged"),
        ({"a": {**ONE, "data_offsets": [4, 0]}}, "damaged"),
        ({"a": {**ONE, "data_offsets": [-4, 0]}}, "damaged"),
        ({"a": ONE, "b": ONE}, "damaged"),
        ({"a": {**ONE, "dtype": "F99"}}, "damaged"),
        ({"a": ONE, "__metadata__": {"config": "{"}}, "JSONDecodeError"),
        ({"a": ONE, "__metadata__": {"config": "[1]"}}, r"config must be an object, got \[1\]"),
        ({"a": ONE, "__metadata__": {"config": "9" * 5000}}, "ValueError"),
        ({"a": ONE, "__metadata__": {"config": "[" * 10**5 + "]" * 10**5}}, "RecursionError"),
        ({"a": ONE, "__metadata__": {"checkpoint": "{}"}}, "early version of this library"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, header: Any, message: str) -> None:
    path = hand_made(tmp_path / "model.safetensors", header, bytes(4))
    with pytest.raises(CheckpointError, match=message) as error:
        read_file(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 1000
    assert str(error.value).isprintable()


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = write_file(CONTENTS, tmp_path / "model.safetensors")
    content = path.read_bytes()
    for length in range(0, len(content), 13):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            read_file(path)


def test_formats_are_known_by_content_and_wanted_by_name(tmp_path: Path) -> None:
    contents = {"epoch": 1, "state_dict": WEIGHTS}
    for wanted in ("zip", "legacy", "safetensors"):
        suffix = ".safetensors" if wanted == "safetensors" else ".pth"
        written = write_file(contents, tmp_path / f"file{suffix}", legacy=wanted == "legacy")
        path = written.rename(tmp_path / wanted)
        assert find_format(path) == wanted
        assert read_file(path)["epoch"] == 1
    with pytest.raises(ValueError, match="legacy must be False"):
        write_file(contents, tmp_path / "a.SafeTensors", legacy=True)


@pytest.mark.parametrize("name", ["folder.safetensors", "none/model.safetensors"])
def test_destinations_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_file({"state_dict": WEIGHTS}, tmp_path / name)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(CONTENTS, tmp_path / "file.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        read_file(path)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        write_file(CONTENTS, tmp_path / "other.safetensors")
