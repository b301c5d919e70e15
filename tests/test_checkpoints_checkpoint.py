"""Checkpoint files of any layout: which it is, and what is refused."""

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.original_format import write
from helpers.small_contents import contents, weights

from checkpoints.checkpoint import parse_checkpoint, read_checkpoint
from checkpoints.config import ModelConfig
from checkpoints.errors import CheckpointError
from checkpoints.files import read_file


def config(*arguments: Any, **entries: Any) -> ModelConfig:
    return parse_checkpoint(contents(*arguments, **entries)).config


@pytest.mark.parametrize("recorded", [{}, {"segment_count": None}])
def test_segments_that_are_not_recorded(recorded: dict) -> None:
    incomplete = contents(without=() if recorded else ("segment_count",), **recorded)
    assert parse_checkpoint(incomplete, num_segments=3).config.num_segments == 3
    with pytest.raises(CheckpointError, match="pass num_segments"):
        parse_checkpoint(incomplete)


def test_segments_that_are_recorded() -> None:
    same = parse_checkpoint(contents(), num_segments=8)
    assert (same.config.num_segments, same.report) == (8, ())


@pytest.mark.parametrize("model_type", ["tsn", "tsm"])
def test_segments_other_than_recorded(model_type: str) -> None:
    checkpoint = parse_checkpoint(contents(model_type), num_segments=25)
    assert checkpoint.config.num_segments == 25
    assert checkpoint.report == ("took num_segments as 25, as asked; the file records 8",)


@pytest.mark.parametrize("model_type", ["trn", "mtrn"])
def test_relations_are_of_as_many_segments_as_recorded(model_type: str) -> None:
    message = f"num_segments must be 8 or left out, got 25: .* a {model_type.upper()}, whose relat"
    with pytest.raises(CheckpointError, match=message):
        parse_checkpoint(contents(model_type), num_segments=25)


@pytest.mark.parametrize("entry", ["model_state_dict", "model", "net", "weights", "ema"])
def test_other_names_of_the_entry(entry: str) -> None:
    file = contents(without=("state_dict",), **{entry: weights()})
    checkpoint = parse_checkpoint(file)
    assert checkpoint.config == config()
    assert checkpoint.report == (f"took the weights from the entry {entry!r}",)


def test_several_entries_of_weights() -> None:
    file = contents(without=("state_dict",), ema=weights(), model=weights(), net={"a": 1})
    assert parse_checkpoint(file).report == (
        "took the weights from the entry 'model', not from ema",
    )
    file["state_dict"] = weights()
    assert parse_checkpoint(file).report == ()


STATE = weights()

SHARED = torch.ones(250)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([1, 2], "a dictionary with state_dict, got list$"),
        (None, "got NoneType$"),
        ({}, "got an empty dict$"),
        ({f"layer{i}": 1 for i in range(300)}, "layer0.* and 295 more$"),
        (
            {"state_dict": {"a": SHARED}},
            "which model it is for: .* a TSN, TRN, MTRN or TSM .*got a$",
        ),
        (contents("i3d", state_dict=STATE), "model_type must be one of .*'tsm-nl'.*, got 'i3d'"),
        (contents(without=("modality",)), "the entry 'modality' is missing, got arch, args, "),
        (contents(without=("arch",)), "the entry 'arch' is missing"),
        (contents(state_dict={}), "state_dict must be a dictionary of tensors, got an empty dict"),
        (contents(state_dict=[1]), "state_dict must be a dictionary of tensors, got list"),
        (contents(state_dict={"a": 1}), "tensors under names, got int under 'a'"),
        (contents(state_dict={1: torch.ones(1)}), "got Tensor under 1"),
        (
            contents(state_dict={"a": torch.ones(1)}),
            "no head .*fc_verb.weight and fc_noun.weight or",
        ),
        (contents("trn", state_dict=STATE), "no head that fits model_type 'trn'"),
        (contents(state_dict={"a": torch.ones(0)}), r"shape \(0,\) .* under 'a'"),
        (contents(state_dict={f"a{i}": SHARED for i in range(5)}), "claims 5,000 .* share 1,000"),
        (contents(arch=["resnet50"]), r"arch must be a string .*, got \['resnet50'\]"),
        (contents(arch="x" * 10**6), "arch must be a string of at most 100 characters, got 'xxx"),
        (contents(segment_count=10**9), "segment_count must be an integer up to 1,000,000"),
        (contents("tsm", non_local=torch.ones(2)), "non_local must be a bool, got a tensor of"),
        (contents("tsm", temporal_pool="no"), "temporal_pool must be a bool, got 'no'"),
        (contents(epoch="last"), "epoch must be a number, got 'last'"),
        (contents(epoch=2.5), "epoch must be an integer up to 1,000,000, got 2.5"),
        (contents(segment_count="many"), "segment_count must be a number, got 'many'"),
        (contents(segment_count=math.inf), "segment_count must be a finite number"),
        (contents(args=Namespace(dropout=[1])), r"dropout must be a number, got \[1\]"),
        (contents("tsm", shift_div=torch.ones(2)), "shift_div must be a number"),
        (contents(modality="Flow", args=Namespace(flow_length="x")), "flow_length must be"),
        (contents(preprocessing=3), "preprocessing must have the entries mean, std, .*, got 3"),
        (contents(preprocessing={"mean": [1.0]}), "preprocessing must have .*, got {.mean"),
    ],
)
def test_what_is_no_checkpoint_of_this_format(tmp_path: Path, bad: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        parse_checkpoint(bad)
    assert "\n" not in str(error.value)
    path = write(bad, tmp_path / "t")  # a name that is in every message
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_message_names_its_file_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pth").write_text("not a checkpoint")
    with pytest.raises(CheckpointError) as error:
        read_checkpoint("./model.pth")
    assert str(error.value).count("model.pth") == 1


def test_options_that_are_nested_in_themselves() -> None:
    loop: list[Any] = []
    loop.append(loop)
    args = parse_checkpoint(contents(args=Namespace(loop=loop))).args
    assert args["loop"][0] is args["loop"]
    for _ in range(1000):
        loop = [loop]
    with pytest.raises(CheckpointError, match="nested too deeply"):
        parse_checkpoint(contents(args=Namespace(loop=loop)))


def test_reading_keeps_what_the_file_holds(tmp_path: Path) -> None:
    path = write(contents(extra={"a": 1}, another=[1]), tmp_path / "file")
    held = read_checkpoint(path).contents
    assert set(held) == {*contents(), "extra", "another"}
    torch.testing.assert_close(held["state_dict"], read_file(path)["state_dict"])
