"""MobileNetV2: torchvision's outputs, and the places where it shifts."""

import pytest
import torch
import torchvision
from helpers.small_models import assert_close, randomised
from torch import Tensor, nn

from ops.mobilenet_v2 import MobileNetV2
from ops.non_local import add_non_local
from ops.temporal_shift import TemporalShift, add_temporal_pool, add_temporal_shift

SHORTCUTS = [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]


def on_meta() -> MobileNetV2:
    with torch.device("meta"):
        return MobileNetV2()


def shifts(backbone: MobileNetV2) -> dict[str, TemporalShift]:
    modules = backbone.named_modules()
    return {name: module for name, module in modules if isinstance(module, TemporalShift)}


@pytest.mark.essential
@torch.no_grad()
def test_outputs_are_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = randomised(torchvision.models.mobilenet_v2())
    ours = MobileNetV2().eval()
    state = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), state, strict=True)))
    for height, width in ((96, 96), (75, 130)):
        x = torch.randn(2, 3, height, width)
        features = ours.features(x)
        assert_close(features, theirs.features(x))
        assert_close(ours.logits(features), theirs(x))
        assert_close(ours(x), theirs(x))


def test_names_are_those_of_mit() -> None:
    names = list(on_meta().state_dict())
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    assert modules == [
        *("features.0.0", "features.0.1"),
        *(f"features.1.conv.{layer}" for layer in (0, 1, 3, 4)),
        *(f"features.{n}.conv.{layer}" for n in range(2, 18) for layer in (0, 1, 3, 4, 6, 7)),
        *("features.18.0", "features.18.1", "last_linear"),
    ]


@torch.no_grad()
def test_it_shifts_inside_the_branch_of_blocks_with_a_shortcut() -> None:
    torch.manual_seed(0)
    backbone = randomised(MobileNetV2())
    block = backbone.features[3]
    x = torch.randn(2 * 3, 24, 8, 8)
    clips = x.view(2, 3, 24, 8, 8)
    shifted = clips.clone()  # three of 24 channels each way
    shifted[:, :, :3] = torch.cat([clips[:, 1:, :3], torch.zeros(2, 1, 3, 8, 8)], dim=1)
    shifted[:, :, 3:6] = torch.cat([torch.zeros(2, 1, 3, 8, 8), clips[:, :-1, 3:6]], dim=1)
    expected = x + block.conv(shifted.view_as(x))
    add_temporal_shift(backbone, 3)
    torch.testing.assert_close(block(x), expected)
    assert list(shifts(backbone)) == [f"features.{number}.conv.0" for number in SHORTCUTS]


def test_what_the_shifts_of_a_stream_hold() -> None:
    """One part in eight of the channels of each shift's input, as the online release caches it."""
    backbone = on_meta()
    add_temporal_shift(backbone, 1, shift_direction="past")
    held: list[tuple[int, ...]] = []

    def record(module: nn.Module, inputs: tuple[Tensor]) -> None:
        _, channels, *size = inputs[0].shape
        held.append((channels // 8, *size))

    for shift in shifts(backbone).values():
        shift.register_forward_pre_hook(record)
    backbone.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    assert held == [
        *[(3, 56, 56)] * 1,
        *[(4, 28, 28)] * 2,
        *[(8, 14, 14)] * 3,
        *[(12, 14, 14)] * 2,
        *[(20, 7, 7)] * 2,
    ]
    assert sum(channels * height * width for channels, height, width in held) == 27_048


@pytest.mark.parametrize("every", [2, 3, 10, 11])
def test_every_so_many_blocks(every: int) -> None:
    backbone = on_meta()
    add_temporal_shift(backbone, 8, shift_every=every)
    assert list(shifts(backbone)) == [f"features.{n}.conv.0" for n in SHORTCUTS[::every]]


def test_what_is_for_resnets_is_refused() -> None:
    backbone = on_meta()
    with pytest.raises(ValueError, match=r"shift_place='block' .* use shift_place='blockres'"):
        add_temporal_shift(backbone, 8, shift_place="block")
    with pytest.raises(ValueError, match=r"temporal_pool needs a ResNet.*MobileNetV2"):
        add_temporal_pool(backbone, 8)
    with pytest.raises(ValueError, match=r"non_local needs a ResNet.*MobileNetV2"):
        add_non_local(backbone, 8)
