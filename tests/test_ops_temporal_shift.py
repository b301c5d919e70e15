"""The shift, its places in the backbones, and temporal pooling, against loops written out here."""

import pretrainedmodels
import pytest
import torch
from helpers.small_models import randomised
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ops.backbones import make_backbone
from ops.bn_inception import BNInception
from ops.resnet import ResNet
from ops.temporal_shift import (
    SHIFT_DIRECTIONS,
    TemporalPool,
    TemporalShift,
    add_temporal_pool,
    add_temporal_shift,
    temporal_shift,
)

pytestmark = pytest.mark.essential

DIRECTIONS = pytest.mark.parametrize("direction", SHIFT_DIRECTIONS)
_BLOCK_NAMES = ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def shift_by_loop(x: Tensor, num_segments: int, shift_div: int, direction: str = "both") -> Tensor:
    """Channel by channel and segment by segment, as the paper describes it."""
    fold = x.shape[1] // shift_div
    shifted = torch.zeros_like(x)
    for clip in range(x.shape[0] // num_segments):
        for t in range(num_segments):
            for channel in range(x.shape[1]):
                if channel < fold:
                    source = t + 1 if direction == "both" else t - 1
                elif direction == "past":
                    source = t
                elif channel < 2 * fold:
                    source = t - 1
                else:
                    source = t
                if 0 <= source < num_segments:
                    shifted[clip * num_segments + t, channel] = x[
                        clip * num_segments + source, channel
                    ]
    return shifted


def resnet(name: str) -> ResNet:
    """A ResNet without memory, whose names can be looked at."""
    with torch.device("meta"):
        backbone, _ = make_backbone(name)
    assert isinstance(backbone, ResNet)
    return backbone


def shifts(backbone: nn.Module) -> dict[str, TemporalShift]:
    modules = backbone.named_modules()
    return {name: module for name, module in modules if isinstance(module, TemporalShift)}


@pytest.mark.parametrize(
    ("clips", "num_segments", "channels", "shift_div"),
    [
        (2, 8, 16, 8),
        (3, 4, 19, 8),
        (1, 5, 6, 3),
        (2, 2, 4, 1),  # all channels one way
        (2, 3, 4, 2),  # no channel rests
        (2, 1, 8, 4),  # no neighbours
        (2, 3, 5, 8),  # nothing to shift
    ],
)
@DIRECTIONS
def test_shift_equals_a_loop(
    direction: str, clips: int, num_segments: int, channels: int, shift_div: int
) -> None:
    x = torch.randn(clips * num_segments, channels, 3, 2)
    before = x.clone()
    shifted = temporal_shift(x, num_segments, shift_div, direction)
    assert shifted.equal(shift_by_loop(x, num_segments, shift_div, direction))
    assert x.equal(before)


def test_shift_by_eye() -> None:
    # One clip of three segments, four channels, one pixel.
    x = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])[:, :, None, None]
    shifted = temporal_shift(x, 3, shift_div=4)[:, :, 0, 0]
    assert shifted.tolist() == [[5, 0, 3, 4], [9, 2, 7, 8], [0, 6, 11, 12]]
    shifted = temporal_shift(x, 3, shift_div=4, direction="past")[:, :, 0, 0]
    assert shifted.tolist() == [[0, 2, 3, 4], [1, 6, 7, 8], [5, 10, 11, 12]]


def test_shift_keeps_dtype_and_memory_format() -> None:
    x = torch.randn(4, 8, 3, 2, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    shifted = temporal_shift(x, 2)
    assert shifted.dtype == torch.bfloat16
    assert shifted.is_contiguous(memory_format=torch.channels_last)
    assert shifted.equal(shift_by_loop(x, 2, 8))


def test_shift_takes_views() -> None:
    x = torch.randn(3, 2, 8, 4).permute(3, 2, 0, 1)[:, :, ::2]
    assert temporal_shift(x, 2, 4).equal(shift_by_loop(x, 2, 4))


@DIRECTIONS
def test_shift_gradient(direction: str) -> None:
    x = torch.randn(4, 5, 1, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: temporal_shift(x, 2, 4, direction), (x,))


@DIRECTIONS
def test_shift_is_differentiated_in_other_ways_too(direction: str) -> None:
    x = torch.randn(4, 5, 1, 2, dtype=torch.double, requires_grad=True)

    def squared(x: Tensor) -> Tensor:
        return temporal_shift(x, 2, 4, direction) ** 2

    assert torch.autograd.gradcheck(squared, (x,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(squared, (x,))
    expected = torch.autograd.grad(squared(x).sum(), x)
    per_clip = torch.func.vmap(torch.func.grad(lambda x: squared(x).sum()))
    assert per_clip(x.detach().unflatten(0, (2, 2))).flatten(0, 1).equal(*expected)


@pytest.mark.filterwarnings("ignore")  # about torch.jit's age, and the checks of the input
@DIRECTIONS
def test_a_traced_shift_can_be_trained(direction: str) -> None:
    module = TemporalShift(nn.Conv2d(8, 3, 1), 2, 4, direction)
    x = torch.randn(4, 8, 2, 2)
    traced = torch.jit.trace(module, x)
    assert traced(x).equal(module(x))
    traced(x).sum().backward()
    gradient = module.net.weight.grad.clone()
    module.zero_grad()
    module(x).sum().backward()
    assert gradient.equal(module.net.weight.grad)


class CountCopies(TorchDispatchMode):
    """Counts elements that are copied, by whatever operation."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("clone", "copy_", "zero_", "fill_", "add", "cat", "new_zeros"):
            self.elements += args[0].numel() if isinstance(args[0], Tensor) else 0
        return function(*args, **(kwargs or {}))


def test_training_copies_once_each_way() -> None:
    """All channels, and again the quarter that moves: forward and for the gradient."""
    x = torch.randn(4, 16, 8, 8, requires_grad=True)
    gradient = torch.randn(4, 16, 8, 8)
    with CountCopies() as counter:
        shifted = temporal_shift(x, 4)
        forward, counter.elements = counter.elements, 0
        torch.autograd.grad(shifted, x, gradient)
    assert forward == counter.elements == 1.25 * x.numel()


def test_shift_module_applies_its_net_to_the_shifted() -> None:
    net = nn.Conv2d(8, 3, 1)
    x = torch.randn(4, 8, 2, 2)
    expected = net(shift_by_loop(x, 2, 4))
    torch.testing.assert_close(TemporalShift(net, 2, 4)(x), expected)


def test_parts_of_clips_are_refused() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        TemporalShift(nn.Identity(), 4)(torch.randn(6, 8, 3, 2))


def test_pool_equals_a_loop() -> None:
    x = torch.randn(2 * 6, 3, 2, 2)
    clips = x.view(2, 6, 3, 2, 2)
    expected = torch.stack(
        # A window of three around every second segment, cut at the ends.
        [clips[:, max(t - 1, 0) : t + 2].amax(dim=1) for t in range(0, 6, 2)],
        dim=1,
    ).flatten(0, 1)
    assert TemporalPool(nn.Identity(), 6)(x).equal(expected)


def test_blockres_wraps_first_convolutions() -> None:
    backbone = resnet("resnet18")
    add_temporal_shift(backbone, 4)
    assert list(shifts(backbone)) == [
        f"layer{stage}.{block}.conv1" for stage in range(1, 5) for block in range(2)
    ]
    names = backbone.state_dict()
    assert "layer1.0.conv1.net.weight" in names
    assert "layer1.0.conv2.weight" in names
    assert "layer2.0.downsample.0.weight" in names


def test_block_wraps_blocks() -> None:
    backbone = resnet("resnet50")
    add_temporal_shift(backbone, 4, shift_place="block")
    assert len(shifts(backbone)) == 3 + 4 + 6 + 3
    names = backbone.state_dict()
    assert "layer1.0.net.conv1.weight" in names
    assert "layer4.2.net.bn3.running_var" in names


@torch.no_grad()
@pytest.mark.parametrize("place", ["block", "blockres"])
def test_residual_block_shifts_where_it_says(place: str) -> None:
    backbone = randomised(make_backbone("resnet18")[0])
    block = backbone.layer2[0]
    x = torch.randn(4, 64, 6, 6)
    shifted = shift_by_loop(x, 2, 8)
    branch = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(shifted)))))
    shortcut = block.downsample(shifted if place == "block" else x)
    expected = torch.relu(branch + shortcut)
    add_temporal_shift(backbone, 2, shift_place=place)
    torch.testing.assert_close(backbone.layer2[0](x), expected)


def test_every_second_block() -> None:
    backbone = resnet("resnet101")
    add_temporal_shift(backbone, 8, shift_every=2)
    blocks = {1: [0, 2], 2: [0, 2], 3: list(range(0, 23, 2)), 4: [0, 2]}
    assert list(shifts(backbone)) == [
        f"layer{stage}.{block}.conv1" for stage, positions in blocks.items() for block in positions
    ]


def test_options_reach_every_shift() -> None:
    backbone = resnet("resnet18")
    add_temporal_shift(backbone, 6, shift_div=4, shift_direction="past", temporal_pool=True)
    for name, shift in shifts(backbone).items():
        assert shift.shift_div == 4
        assert shift.direction == "past"
        assert shift.num_segments == (6 if name.startswith("layer1") else 3)


@torch.no_grad()
def test_bn_inception_shifts_in_front_of_eleven_stages() -> None:
    """pretrainedmodels' network with shifts hooked in front of all that reads a stage's input."""
    t, shift_div = 3, 8
    ours = randomised(BNInception())
    theirs = pretrainedmodels.bninception(pretrained=None).eval()
    theirs.load_state_dict(ours.state_dict())

    def shift_first(module: nn.Module, arguments: tuple[Tensor, ...]) -> Tensor:
        return shift_by_loop(arguments[0], t, shift_div)

    blocks = [f"inception_{name}" for name in _BLOCK_NAMES]
    for name in ["conv2_3x3_reduce"] + [
        f"{block}_{reader}"
        for block in blocks
        for reader in ("1x1", "3x3_reduce", "double_3x3_reduce", "pool")
    ]:
        if hasattr(theirs, name):
            getattr(theirs, name).register_forward_pre_hook(shift_first)
    x = 50 * torch.randn(2 * t, 3, 64, 64)
    unshifted = ours.features(x)
    names = list(ours.state_dict())

    add_temporal_shift(ours, t, shift_div=shift_div, shift_place="block")
    calls = []
    assert isinstance(ours.before_stage, TemporalShift)
    ours.before_stage.register_forward_hook(lambda *_: calls.append(1))
    shifted = ours.features(x)
    assert len(calls) == 11
    assert list(ours.state_dict()) == names
    expected = theirs.features(x)
    scale = expected.abs().max()
    torch.testing.assert_close(shifted / scale, expected / scale)
    assert (shifted - unshifted).abs().max() > 0.01 * scale


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shift_place": "blockres"}, "shift_place"),
        ({"shift_place": "block", "shift_every": 2}, "shift_every"),
    ],
)
def test_bn_inception_refuses_what_is_for_resnets(options: dict[str, object], named: str) -> None:
    with torch.device("meta"):
        backbone = BNInception()
    with pytest.raises(ValueError, match=named):
        add_temporal_shift(backbone, 8, **options)
    with pytest.raises(ValueError, match="temporal_pool needs a ResNet"):
        add_temporal_pool(backbone, 8)


def test_other_backbones_are_refused() -> None:
    with torch.device("meta"):
        backbone, _ = make_backbone("vgg11")
    with pytest.raises(ValueError, match=r"one of BNInception, resnet18.*, got a VGG"):
        add_temporal_shift(backbone, 8)
    with pytest.raises(ValueError, match=r"ResNet.*VGG"):
        add_temporal_pool(backbone, 8)


def test_temporal_pool_wraps_the_second_stage() -> None:
    backbone = resnet("resnet18")
    add_temporal_shift(backbone, 4, temporal_pool=True)
    add_temporal_pool(backbone, 4)
    names = backbone.state_dict()
    assert "layer2.net.0.conv1.net.weight" in names
    assert "layer3.0.conv1.net.weight" in names
    assert not any(name.startswith("layer2.0") for name in names)
    assert backbone.features(torch.empty(2 * 4, 3, 64, 64, device="meta")).shape[0] == 2 * 2


def test_temporal_pool_needs_an_even_number_of_segments() -> None:
    with pytest.raises(ValueError, match="even num_segments, got 5"):
        add_temporal_pool(resnet("resnet18"), 5)
