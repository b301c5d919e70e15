"""The online release of TSM loads and agrees with its program, frame by frame."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.original_format import write
from helpers.other_projects import RECORDED, recorded_contents, recorded_outputs
from reference.fill import tensor_input

from checkpoints.checkpoint import parse_checkpoint
from checkpoints.errors import CheckpointError, UnknownSegmentsError
from model_loader import get_config, load_checkpoint
from tsm import TSM

NAME = "mit_online_mobilenetv2"


@pytest.mark.essential
@torch.no_grad()
def test_outputs_of_the_online_program() -> None:
    """It sees a frame at a time; all at once, a network that shifts from the past sees the same."""
    recorded = RECORDED[NAME]
    frames = recorded["frames"]
    checkpoint = parse_checkpoint(recorded_contents(NAME), num_segments=frames)
    model = TSM(
        recorded["num_class"],
        frames,
        "RGB",
        "mobilenetv2",
        consensus_type="identity",
        shift_direction=checkpoint.config.shift_direction,
        pretrained=None,
    )
    model.load_weights(checkpoint, source=NAME)
    clip = tensor_input((frames, 3, 224, 224), recorded["seed"])
    ours = model.eval()(clip.unsqueeze(0))[0].numpy()
    expected = recorded_outputs(NAME)
    assert ours.shape == expected.shape == (24, 27)
    assert abs(ours - expected).max() / abs(expected).max() < 1e-5


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("alone", [False, True])
def test_it_is_a_uni_directional_tsm(tmp_path: Path, prefix: str, alone: bool) -> None:
    state = {prefix + k: tensor for k, tensor in recorded_contents(NAME)["state_dict"].items()}
    path = write(state if alone else {"state_dict": state}, tmp_path / "any name")
    model = load_checkpoint(path, num_segments=8)
    config = get_config(model)
    assert (config.model_type, config.arch, config.num_class) == ("tsm", "mobilenetv2", 27)
    assert (config.shift_direction, config.shift_place) == ("past", "blockres")
    weight = model.state_dict()["base_model.features.16.conv.0.net.weight"]
    assert torch.equal(weight, state[f"{prefix}features.16.conv.0.weight"])
    assert torch.equal(model.new_fc.bias, state[f"{prefix}classifier.bias"])
    report = " ".join(model.load_report)
    assert "took the file as the online release of MIT's TSM" in report
    assert "shift_place 'blockres' and shift_every 1" in report
    assert "shift_div 8, shift_direction 'past'" in report
    assert "off the names" not in report
    with pytest.raises(UnknownSegmentsError, match="pass num_segments"):
        load_checkpoint(path)


def changed(changes: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = {**recorded_contents(NAME)["state_dict"], **changes}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier.weight": torch.ones(1000, 1280)}, "an image classifier: it has no heads"),
        ({"features.3.conv.0.net.weight": torch.ones(1)}, "an image classifier"),
        ({"classifier.weight": torch.ones(())}, "the weights have no head"),
        ({"classifier.weight": None}, "does not say which model it is for"),
    ],
)
def test_what_is_not_the_online_release(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_checkpoint(changed(changes), num_segments=8)
