"""Checkpoints of mmaction2 load and agree with it."""

import re
from pathlib import Path

import pytest
import torch
from helpers.original_format import assert_same, write
from helpers.other_projects import (
    RECORDED,
    packages,
    recorded_contents,
    recorded_outputs,
    small,
    their_names,
)
from reference.fill import tensor_input
from torch import Tensor

from checkpoints.architecture import MOBILENET_SHORTCUTS
from checkpoints.checkpoint import parse_checkpoint
from checkpoints.errors import CheckpointError, UnknownSegmentsError
from data.preprocessing import TORCHVISION
from model_loader import load_checkpoint
from tsm import TSM
from tsn import TSN


@pytest.mark.essential
@pytest.mark.parametrize("name", [name for name in RECORDED if name.startswith("mmaction2")])
def test_outputs_of_mmaction2(name: str, tmp_path: Path) -> None:
    recorded = RECORDED[name]
    contents = {"meta": {"epoch": 50}, "state_dict": recorded_contents(name)["state_dict"]}
    path = write(contents, tmp_path / "file", legacy=False)
    model = load_checkpoint(path, num_segments=recorded["num_segments"])
    path.unlink()
    assert (model.variant, model.arch) == (recorded["family"], recorded["base_model"])
    with torch.no_grad():
        ours = model(tensor_input((1, model.num_segments * 3, 224, 224), seed=5)).numpy()
    expected = recorded_outputs(name)
    assert abs(ours - expected).max() / abs(expected).max() < 1e-4


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


def mmaction_mobilenet_names(model: TSN, shifted: str) -> dict[str, Tensor]:
    """Weights of a model on MobileNetV2 under the names of mmaction2."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"^new_fc\.", "cls_head.fc_cls.", name)
        name = re.sub(r"^base_model\.features\.0\.0\.", "backbone.conv1.conv.", name)
        name = re.sub(r"^base_model\.features\.0\.1\.", "backbone.conv1.bn.", name)
        name = re.sub(r"^base_model\.features\.18\.0\.", "backbone.conv2.conv.", name)
        name = re.sub(r"^base_model\.features\.18\.1\.", "backbone.conv2.bn.", name)
        if match := re.match(r"^base_model\.features\.(\d+)\.conv\.(\d)\.(?:net\.)?(.*)", name):
            number, layer = int(match[1]), int(match[2])
            stage = sum(number > first for first in (0, 1, 3, 6, 10, 13, 16))
            block = number - (1, 2, 4, 7, 11, 14, 17)[stage - 1]
            kind = "bn" if layer % 3 else "conv"
            if layer < 2 and isinstance(model, TSM) and number in MOBILENET_SHORTCUTS:
                kind = shifted.format(kind) if kind == "conv" or shifted[0] == "n" else kind
            name = f"backbone.layer{stage}.{block}.conv.{layer // 3}.{kind}.{match[3]}"
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("kind", ["TSN", "TSM"])
@pytest.mark.parametrize("shifted", ["net.{}", "{}.net"], ids=["around", "inside"])
def test_mobilenet_v2(tmp_path: Path, kind: str, shifted: str) -> None:
    """A shift wraps a convolution with its batch norm, or the convolution as in ResNets."""
    model = small(kind, base_model="mobilenetv2")
    state = mmaction_mobilenet_names(model, shifted)
    assert "backbone.layer1.0.conv.1.bn.weight" in state
    assert "backbone.layer7.0.conv.2.conv.weight" in state
    assert (f"backbone.layer2.1.conv.0.{shifted.format('conv')}.weight" in state) == (kind == "TSM")
    path = write({"meta": {}, "state_dict": state}, tmp_path / "file")
    loaded = load_checkpoint(path, num_segments=4)
    assert_same(loaded, model)
    assert "took the backbone as mobilenetv2 by its weights" in loaded.load_report


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
            ["backbone.conv1.conv.weight", "backbone.layer1.1.conv.0.conv.weight"],
            "on a ResNet or MobileNetV2, got backbone.layer1.1.conv.0.conv.weight$",
        ),
        (
            ["cls_head.fc_cls.weight", "backbone.patch_embed.proj.weight"],
            "not of a TSN, TSM or TRN on a ResNet or MobileNetV2, got backbone.patch_embed",
        ),
        (
            ["backbone.layer1.0.conv1.conv.weight", "backbone.layer1.0.se.weight"],
            "on a ResNet or MobileNetV2, got backbone.layer1.0.se.weight$",
        ),
        (["cls_head.fc_cls.weight"], "MobileNetV2, got new_fc.weight"),
    ],
)
def test_other_backbones_are_named(names: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_checkpoint(dict.fromkeys(names, torch.ones(2, 2, 1, 1)), num_segments=8)


def test_a_backbone_alone_has_no_head() -> None:
    state = {k: v for k, v in mmaction_names(small("TSN")).items() if k.startswith("backbone.")}
    with pytest.raises(CheckpointError, match="the weights have no head"):
        parse_checkpoint(state, num_segments=4)
