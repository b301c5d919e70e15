"""Names and shapes of weights tell the network that they belong to, or why there is none."""

from collections.abc import Collection, Sequence

import pytest
import torch
from torch import Tensor

from checkpoints.architecture import (
    infer_backbone,
    infer_modality,
    infer_model_type,
    infer_relation,
    infer_shift,
    input_channels,
)
from checkpoints.errors import CheckpointError
from ops.backbones import BACKBONES
from tsm import TSM
from tsn import TSN


def resnet(
    depths: Sequence[int], shifted: Collection[int] = (), *, bottleneck: bool = True
) -> dict[str, Tensor]:
    """Weights with the names of a ResNet whose blocks at these positions shift."""
    state = {"base_model.conv1.weight": torch.zeros(1, 3, 1, 1)}
    for stage, depth in enumerate(depths, 1):
        for position in range(depth):
            net = "net." if position in shifted else ""
            block = f"base_model.layer{stage}.{position}"
            state[f"{block}.conv1.{net}weight"] = torch.zeros(1)
            state[f"{block}.conv{3 if bottleneck else 2}.weight"] = torch.zeros(1)
    return state


@pytest.mark.parametrize(
    ("name", "depths", "bottleneck"),
    [
        ("resnet18", (2, 2, 2, 2), False),
        ("resnet34", (3, 4, 6, 3), False),
        ("resnet50", (3, 4, 6, 3), True),
        ("resnet101", (3, 4, 23, 3), True),
        ("resnet152", (3, 8, 36, 3), True),
    ],
)
def test_depth_of_resnets(name: str, depths: Sequence[int], bottleneck: bool) -> None:
    assert infer_backbone(resnet(depths, bottleneck=bottleneck)) == name


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_known_by_its_weights(name: str) -> None:
    with torch.device("meta"):
        state = TSN(5, 2, "Flow", name, pretrained=None).state_dict()
    assert infer_backbone(state) == name


def test_an_inception_v3_of_another_author() -> None:
    with torch.device("meta"):
        state = TSN(5, 2, "RGB", "inceptionv3", pretrained=None).state_dict()
    for missing in ("base_model.Conv2d_1a_3x3.", "base_model.AuxLogits."):
        other = {name: tensor for name, tensor in state.items() if not name.startswith(missing)}
        with pytest.raises(CheckpointError, match=rf"no {missing}.*Inception-V3 .* not torchvis"):
            infer_backbone(other)


def test_other_backbones() -> None:
    assert infer_backbone({"base_model.a.weight": torch.ones(1)}) is None


@pytest.mark.parametrize(
    ("shifted", "every"),
    [(range(23), 1), (range(0, 23, 2), 2), (range(0, 23, 3), 3)],
)
def test_every_how_many_blocks_shift(shifted: range, every: int) -> None:
    found = infer_shift(resnet((3, 4, 23, 3), shifted))
    assert found == {
        "shift_place": "blockres",
        "shift_every": every,
        "temporal_pool": False,
        "non_local": False,
    }


@pytest.mark.parametrize("every", [1, 3])
def test_shifts_of_mobilenet_v2(every: int) -> None:
    with torch.device("meta"):
        model = TSM(5, 2, "RGB", "mobilenetv2", shift_every=every, pretrained=None)
    found = infer_shift(model.state_dict())
    assert (found["shift_place"], found["shift_every"]) == ("blockres", every)


@pytest.mark.parametrize("shifted", [(1, 3), (0, 1), (0, 2, 3)])
def test_blocks_that_shift_without_a_rule(shifted: Sequence[int]) -> None:
    with pytest.raises(CheckpointError, match="channels shift in blocks"):
        infer_shift(resnet((3, 4, 6, 3), shifted))


def test_shifts_that_are_not_possible_here() -> None:
    state = resnet((3, 4, 6, 3))
    state["base_model.layer2.0.nl.theta.weight"] = torch.zeros(1)
    assert infer_model_type(state) == "tsm"
    with pytest.raises(CheckpointError, match="residual blocks shift nowhere"):
        infer_shift(state)
    state = resnet((3, 4, 6, 3), range(23))
    state["base_model.layer1.0.net.conv1.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="in two different places"):
        infer_shift(state)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (3, ("RGB", 1)),
        (10, ("Flow", 5)),
        (2, ("Flow", 1)),
        (15, ("RGBDiff", 5)),
        (9, ("RGBDiff", 3)),
    ],
)
def test_modality(channels: int, expected: tuple[str, int]) -> None:
    state = {"base_model.conv1.weight": torch.zeros(4, channels, 3, 3)}
    assert infer_modality(state) == expected


@pytest.mark.parametrize("shape", [(4, 7, 3, 3), (4, 0, 3, 3), (4, 3)])
def test_no_modality(shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match="the first convolution must take 3 channels"):
        infer_modality({"base_model.conv1.weight": torch.zeros(shape)})


def multi_scale(segments: int, width: int = 16, hidden: int = 256) -> dict[str, Tensor]:
    state = {"new_fc.weight": torch.zeros(width, 8)}
    for index, scale in enumerate(range(segments, 1, -1)):
        name = f"consensus.fc_fusion_scales.{index}.1.weight"
        state[name] = torch.zeros(hidden, scale * width)
    return state


def test_relations() -> None:
    assert infer_relation("mtrn", multi_scale(5)) == (5, 16)
    single = {
        "new_fc.weight": torch.zeros(16, 8),
        "consensus.pre_classifier.1.weight": torch.zeros(512, 48),
    }
    assert infer_relation("trn", single) == (3, 16)
    assert infer_relation("tsn", single) == (None, 256)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        (
            "trn",
            {"consensus.pre_classifier.1.weight": (256, 48)},
            r"must be \(512, 48\), got \(256",
        ),
        (
            "trn",
            {"consensus.pre_classifier.1.weight": (512, 50)},
            r"must be \(512, 48\), got \(512, 5",
        ),
        ("trn", {}, "got no consensus.pre_classifier.1.weight"),
        ("trn", {"new_fc.weight": (3,)}, r"got new_fc.weight \(3,\)"),
        ("mtrn", {"consensus.fc_fusion_scales.1.1.weight": (128, 48)}, r"must be \(256, 48\)"),
        ("mtrn", {"consensus.fc_fusion_scales.7.1.weight": (256, 48)}, "for 5 segments of 16"),
    ],
)
def test_relations_that_cannot_be_built(kind: str, changed: dict, message: str) -> None:
    state = multi_scale(4) if kind == "mtrn" else {"new_fc.weight": torch.zeros(16, 8)}
    state |= {name: torch.zeros(shape) for name, shape in changed.items()}
    with pytest.raises(CheckpointError, match=message):
        infer_relation(kind, state)


@pytest.mark.parametrize("base_model", BACKBONES)
def test_the_first_convolution_is_known_by_its_name(base_model: str) -> None:
    with torch.device("meta"):
        model = TSN(5, 2, "Flow", base_model, new_length=3, pretrained=None)
    state = model.state_dict()
    assert input_channels(dict(reversed(state.items()))) == input_channels(state) == 6
