"""Checkpoints of mmaction2 load and agree with it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.original_format import assert_same, write
from helpers.other_projects import REFERENCE, packages, small, their_names
from reference.fill import tensor_for, tensor_input
from torch import Tensor

from checkpoints.checkpoint import parse_checkpoint
from checkpoints.errors import CheckpointError, UnknownSegmentsError
from data.preprocessing import TORCHVISION
from model_loader import load_checkpoint
from tsn import TSN

RECORDED: dict[str, dict[str, Any]] = {
    name: recorded
    for name, recorded in json.loads((REFERENCE / "more_checkpoints.json").read_text()).items()
    if name.startswith("mmaction2")
}


@pytest.mark.essential
@pytest.mark.parametrize("name", RECORDED)
def test_outputs_of_mmaction2(name: str, tmp_path: Path) -> None:
    recorded = RECORDED[name]
    state = {
        key: tensor_for(key, tuple(shape), getattr(torch, dtype))
        for key, (shape, dtype) in recorded["state_dict"].items()
    }
    path = write({"meta": {"epoch": 50}, "state_dict": state}, tmp_path / "file", legacy=False)
    model = load_checkpoint(path, num_segments=recorded["num_segments"])
    path.unlink()
    assert (model.variant, model.arch) == (recorded["family"], recorded["base_model"])
    with torch.no_grad():
        ours = model(tensor_input((1, model.num_segments * 3, 224, 224), seed=5)).numpy()
    with np.load(REFERENCE / "more_checkpoints.npz") as outputs:
        expected = outputs[name]
    assert float(np.abs(ours - expected).max() / np.abs(expected).max()) < 1e-4


def mmaction_names(model: TSN) -> dict[str, Tensor]:
    """Weights of a model under the names of mmaction2."""
    patterns = (
        (r"^base_model\.(.*)downsample\.0\.", r"backbone.\1downsample.conv."),
        (r"^base_model\.(.*)downsample\.1\.", r"backbone.\1downsample.bn."),
        (r"^base_model\.(.*)conv(\d)\.", r"backbone.\1conv\2.conv."),
        (r"^base_model\.(.*)bn(\d)\.", r"backbone.\1conv\2.bn."),
        (r"^new_fc\.", "cls_head.fc_cls."),
        (r"^consensus\.", "cls_head.consensus."),
    )
    renamed = {}
    for name, tensor in their_names(model.state_dict(), "").items():
        for pattern, theirs in patterns:
            name = re.sub(pattern, theirs, name)
        renamed[name] = tensor
    return renamed


KINDS = ["TSN", "TRN", "multi-scale TRN", "TSM"]


@pytest.mark.essential
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", KINDS)
def test_all_models(tmp_path: Path, kind: str, prefix: str) -> None:
    model = small(kind)
    state = {prefix + name: tensor for name, tensor in mmaction_names(model).items()}
    state[f"{prefix}data_preprocessor.mean"] = torch.ones(3)
    assert not any("base_model" in name or "new_fc" in name for name in state)
    path = write({"meta": {"cfg": "text of a program"}, "state_dict": state}, tmp_path / "file")
    loaded = load_checkpoint(path, num_segments=4)
    assert_same(loaded, model)
    assert loaded.preprocessing == TORCHVISION
    report = " ".join(loaded.load_report)
    assert "took the file as an mmaction2 checkpoint" in report
    assert "left out what is not the model's: data_preprocessor.mean" in report
    assert "the usual preprocessing of resnet18" in report
    if "TRN" in kind:
        assert_same(load_checkpoint(path), model)
    else:
        with pytest.raises(UnknownSegmentsError, match="pass num_segments"):
            load_checkpoint(path)


def test_weights_alone() -> None:
    state = mmaction_names(small("TSM"))
    assert parse_checkpoint(state, num_segments=4).config.model_type == "tsm"


def test_a_training_file_is_refused_by_name(tmp_path: Path) -> None:
    with packages({"mmengine.logging.history_buffer.HistoryBuffer": object}) as classes:
        state = mmaction_names(small("TSN"))
        contents = {"meta": {}, "message_hub": classes["HistoryBuffer"](), "state_dict": state}
        path = write(contents, tmp_path / "epoch_50.pth")
    with pytest.raises(
        CheckpointError,
        match=r"holds 'mmengine\..*a training file of mmaction2.*'state_dict' alone",
    ):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["backbone.conv1.conv.weight", "backbone.layer1.0.conv.0.conv.weight"],
            "a MobileNetV2 of mmaction2: this backbone is not built here",
        ),
        (
            ["cls_head.fc_cls.weight", "backbone.patch_embed.proj.weight"],
            "not of a TSN, TSM or TRN on a ResNet, got backbone.patch_embed",
        ),
    ],
)
def test_other_backbones_are_named(names: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_checkpoint(dict.fromkeys(names, torch.ones(2, 2, 1, 1)), num_segments=8)


def test_a_backbone_alone_has_no_head() -> None:
    state = {k: v for k, v in mmaction_names(small("TSN")).items() if k.startswith("backbone.")}
    with pytest.raises(CheckpointError, match="the weights have no head"):
        parse_checkpoint(state, num_segments=4)
