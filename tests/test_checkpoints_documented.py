"""The documented format: what files say of their models, and what is written."""

import argparse
import enum
from argparse import Namespace
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.original_format import prefixed, training_options
from helpers.small_contents import contents, weights

from checkpoints.checkpoint import parse_checkpoint, read_checkpoint
from checkpoints.config import Checkpoint, ModelConfig
from checkpoints.documented import to_dictionary
from checkpoints.errors import CheckpointError
from checkpoints.files import write_file
from checkpoints.stand_ins import ConfigNode
from data.preprocessing import Preprocessing


def config(*arguments: Any, **entries: Any) -> ModelConfig:
    return parse_checkpoint(contents(*arguments, **entries)).config


@pytest.mark.parametrize(
    ("model_type", "entries", "expected"),
    [
        ("tsn", {"consensus_type": "max"}, {"consensus_type": "max"}),
        ("tsn", {}, {"consensus_type": "avg"}),
        ("trn", {"img_feature_dim": 16}, {"img_feature_dim": 16}),
        ("mtrn", {"img_feature_dim": np.int64(16)}, {"img_feature_dim": 16}),
        (
            "tsm",
            {"shift_div": 4, "shift_place": "block", "temporal_pool": True, "non_local": False},
            {"shift_div": 4, "shift_place": "block", "temporal_pool": True, "non_local": False},
        ),
        ("tsm-nl", {"shift_div": 8}, {"non_local": True}),
        ("TSM-NL", {"state_dict": weights()}, {"non_local": True}),
    ],
)
def test_documented_files(model_type: str, entries: dict, expected: dict) -> None:
    checkpoint = parse_checkpoint(contents(model_type, **entries))
    kind = model_type.lower().removesuffix("-nl")
    assert checkpoint.config == ModelConfig(
        model_type=kind,
        num_class=(5, 7),
        num_segments=8,
        modality="RGB",
        arch="resnet50",
        new_length=1,
        dropout=0.4,
        **expected,
    )
    assert checkpoint.epoch == 80
    assert checkpoint.report == ()


@pytest.mark.parametrize(("consensus", "kind"), [("TRN", "trn"), ("TRNMultiscale", "mtrn")])
@pytest.mark.parametrize("place", ["entries", "args"])
def test_old_relational_files(consensus: str, kind: str, place: str) -> None:
    """model_type tsn, prefixed names, and img_feature_dim among the training options alone."""
    args = training_options(img_feature_dim=16)
    entries = {"consensus_type": consensus} if place == "entries" else {}
    if place == "args":
        args.consensus_type = consensus
    state = weights(head=kind)
    old = contents(state_dict=prefixed(state), args=args, **entries)
    checkpoint = parse_checkpoint(old)
    assert checkpoint.config.model_type == kind
    assert checkpoint.config.img_feature_dim == 16
    assert checkpoint.config.consensus_type == "avg"
    assert list(checkpoint.state_dict) == list(state)
    assert [note.split(" ")[0] for note in checkpoint.report] == ["removed", "took", "took"]
    assert f"{len(state)} of {len(state)} names" in checkpoint.report[0]
    assert all(name.startswith("module.") for name in old["state_dict"]), "the file's own stay"


def test_old_shifting_files() -> None:
    checkpoint = parse_checkpoint(contents("tsm", args=training_options(non_local=True)))
    assert checkpoint.config.non_local
    assert "tsm-nl" in checkpoint.report[0]


def test_options_of_other_model_types_are_ignored() -> None:
    """`args` of one program hold the options of all."""
    args = training_options(non_local=True, shift_div=3, img_feature_dim=9, temporal_pool=True)
    plain = config("tsn", args=args)
    assert plain == replace(config("tsn"), shift_div=8, img_feature_dim=256)
    assert not plain.non_local
    assert config("trn", args=args, img_feature_dim=16).img_feature_dim == 16


@pytest.mark.parametrize("head", ["tsn", "trn", "mtrn"])
@pytest.mark.parametrize("classes", [(125, 352), (97, 300), (174,), (1,)])
def test_class_counts_come_from_the_weights(head: str, classes: tuple[int, ...]) -> None:
    found = config(head, state_dict=weights(head=head, classes=classes)).num_class
    assert found == (classes if len(classes) == 2 else classes[0])


@pytest.mark.parametrize(
    ("modality", "channels", "args", "entries", "expected"),
    [
        ("RGB", 3, {"flow_length": 5}, {}, 1),
        ("Flow", 10, {"flow_length": 5}, {}, 5),
        ("flow", 14, {"flow_length": None}, {}, 7),
        ("RGBDiff", 9, {"flow_length": None}, {}, 3),
        ("Flow", 4, {"flow_length": 5}, {"new_length": 2}, 2),
        ("Flow", 4, {"flow_length": np.int32(2)}, {}, 2),
    ],
)
def test_length_of_a_snippet(modality, channels, args, entries, expected) -> None:
    found = config(
        modality=modality,
        args=training_options(**args),
        state_dict=weights(channels=channels),
        **entries,
    )
    assert found.new_length == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (None, {}),
        ("nonsense", {}),
        ({"dropout": 0.1, 5: "five"}, {"dropout": 0.1, "5": "five"}),
        (Namespace(), {}),
        (argparse.Namespace(a=(Path("x"), [np.float32(0.5)])), {"a": ("x", [0.5])}),
        (Namespace(d={Path("k"): np.int8(1)}), {"d": {"k": 1}}),
        (Namespace(size=torch.Size([1])), {"size": torch.Size([1])}),
    ],
)
def test_training_options_become_plain(args: Any, expected: dict) -> None:
    found = parse_checkpoint(contents(args=args)).args
    assert found == expected
    assert type(found.get("size", torch.Size())) is torch.Size


@pytest.mark.parametrize("epoch", [80, np.int64(80), np.float64(80), torch.tensor(80), "80"])
def test_kinds_of_epochs(epoch: Any) -> None:
    found = parse_checkpoint(contents(epoch=epoch)).epoch
    assert (found, type(found)) == (80, int)


def test_files_that_record_less() -> None:
    checkpoint = parse_checkpoint(contents(without=("epoch", "args")))
    assert checkpoint.epoch is None
    assert checkpoint.optimizer is None
    assert checkpoint.config.dropout is None
    assert checkpoint.config.preprocessing is None


STATE = weights()

PREPROCESSING = Preprocessing(
    mean=(1.0, 2.0, 3.0), std=(4.0,), input_space="BGR", input_range=(0.0, 255.0), input_size=112
)

FULL = {
    "tsn": {"consensus_type": "identity", "before_softmax": True},
    "trn": {"img_feature_dim": 16},
    "mtrn": {"img_feature_dim": 16, "classifier_pairing": "per-scale"},
    "tsm": {
        "shift_div": 4,
        "shift_place": "block",
        "shift_every": 2,
        "shift_direction": "past",
        "temporal_pool": True,
        "non_local": True,
    },
}


@pytest.mark.parametrize("model_type", FULL)
def test_everything_survives_the_file(tmp_path: Path, model_type: str) -> None:
    head = "tsn" if model_type == "tsm" else model_type
    checkpoint = Checkpoint(
        config=ModelConfig(
            model_type=model_type,
            num_class=(5, 7),
            num_segments=6,
            modality="Flow",
            arch="BNInception",
            new_length=3,
            dropout=0.25,
            preprocessing=PREPROCESSING,
            **FULL[model_type],
        ),
        state_dict=weights(head=head, channels=6),
        epoch=12,
        args={"lr": np.float64(0.5), "where": Path("a/b"), "self": 1, "values": (1, {"a": None})},
        optimizer={"state": {0: {"m": torch.ones(2)}}, "param_groups": [{"lr": 0.5}]},
    )
    path = write_file(to_dictionary(checkpoint), tmp_path / "file")
    found = read_checkpoint(path)
    assert found.config == checkpoint.config
    assert found.epoch == 12
    assert found.args == {
        "lr": 0.5,
        "where": "a/b",
        "self": 1,
        "values": (1, {"a": None}),
        "flow_length": 3,
        "dropout": 0.25,
    }
    torch.testing.assert_close(found.optimizer, checkpoint.optimizer)
    torch.testing.assert_close(found.state_dict, checkpoint.state_dict)
    assert found.report == ()


def test_what_the_original_reads_is_in_its_place() -> None:
    flow = Checkpoint(config=config(modality="Flow"), state_dict=STATE)
    written = to_dictionary(flow)
    assert type(written["args"]) is Namespace
    assert (written["args"].flow_length, written["args"].dropout) == (2, 0.4)
    assert type(written["state_dict"]) is OrderedDict
    # What an RGB model's training recorded for flow is nobody's business.
    rgb = replace(flow, config=config(), args={"flow_length": 5})
    assert to_dictionary(rgb)["args"].flow_length == 5
    assert to_dictionary(replace(rgb, args={}))["args"].flow_length == 1


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (len, r"args\['x'\]"),
        (Colour.RED, r"args\['x'\]"),
        (np.zeros(2), r"args\['x'\]"),
        ([1, {"y": print}], r"an item of args\['x'\]\['y'\]"),
        ({Colour}, r"an item of args\['x'\]"),
    ],
)
def test_options_that_could_not_be_read_again(value: Any, name: str) -> None:
    checkpoint = Checkpoint(config=config(), state_dict=STATE, args={"x": value})
    with pytest.raises(ValueError, match=f"{name} must be a plain value"):
        to_dictionary(checkpoint)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 1, 0.5, 1j, "a", b"ab", [1], (2, "b"), {3}, {"c": [None]}, Namespace(a=1),
        torch.ones(2), torch.float16, torch.device("cpu"), torch.Size([2]),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("legacy", [True, False])
def test_options_that_can_be_read_again(tmp_path: Path, value: Any, legacy: bool) -> None:
    checkpoint = Checkpoint(config=config(), state_dict=STATE, args={"x": value})
    path = write_file(to_dictionary(checkpoint), tmp_path / "file", legacy=legacy)
    found = read_checkpoint(path).args["x"]
    assert type(found) is type(value)
    assert str(found) == str(value)


@pytest.mark.parametrize(("direction", "version"), [("both", 1), ("past", 2)])
def test_files_have_the_version_that_they_need(direction: str, version: int) -> None:
    """A reader of version 1 would take the shift for one in both directions."""
    recorded = contents(model_type="tsm", shift_direction=direction)
    checkpoint = parse_checkpoint(recorded)
    assert checkpoint.config.shift_direction == direction
    assert to_dictionary(checkpoint)["format_version"] == version
    assert parse_checkpoint({**recorded, "format_version": version}).report == checkpoint.report


def test_a_newer_format_is_reported() -> None:
    checkpoint = parse_checkpoint({**contents(), "format_version": 99})
    assert checkpoint.report == ("read format_version 99 as 2, the newest known here",)


def test_a_flow_length_of_nothing_is_not_taken_for_missing() -> None:
    assert config(modality="Flow", new_length=0, state_dict=weights(channels=10)).new_length == 0


def test_keys_that_cannot_be_plain() -> None:
    with pytest.raises(CheckpointError, match="a dictionary's key that is no plain value"):
        parse_checkpoint(contents(extra={(1, _node([1])): 2}))


def _node(content: Any) -> ConfigNode:
    node = ConfigNode()
    node.content = content
    return node
