"""Non-local blocks against attention written out, and their places in the ResNets."""

import pytest
import torch
from torch import Tensor, nn

from ops.backbones import make_backbone
from ops.non_local import NonLocalBlock, NonLocalWrapper, add_non_local
from ops.resnet import ResNet


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def randomised(block: NonLocalBlock) -> NonLocalBlock:
    """A block that is not the identity any more, in evaluation mode."""
    for tensor in block.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1 if tensor.ndim == 1 else tensor)
    return block.eval()


def attention_by_definition(block: NonLocalBlock, x: Tensor) -> Tensor:
    """All pairs of positions, then softmax: equations 2 and 6 of the paper."""
    n, c, t, h, w = x.shape
    theta = block.theta(x).view(n, c // 2, -1)
    phi = nn.functional.max_pool3d(block.phi[0](x), (1, 2, 2)).view(n, c // 2, -1)
    g = nn.functional.max_pool3d(block.g[0](x), (1, 2, 2)).view(n, c // 2, -1)
    weights = torch.einsum("ncp,ncq->npq", theta, phi).softmax(dim=-1)
    y = torch.einsum("npq,ncq->ncp", weights, g).view(n, c // 2, t, h, w)
    return block.W[1](block.W[0](y)) + x


def test_a_fresh_block_is_the_identity() -> None:
    x = torch.randn(2, 8, 3, 4, 6)
    block = NonLocalBlock(8)
    assert block.train()(x).equal(x)
    assert block.eval()(x).equal(x)


@torch.no_grad()
def test_block_equals_its_definition() -> None:
    block = randomised(NonLocalBlock(8))
    x = 3 * torch.randn(2, 8, 3, 4, 6)
    expected = attention_by_definition(block, x)
    torch.testing.assert_close(block(x), expected)
    assert (expected - x).abs().max() > 0.1


def test_gradients_reach_every_parameter_once_the_batch_norm_is_open() -> None:
    block = randomised(NonLocalBlock(4)).train()
    block(torch.randn(2, 4, 2, 4, 4)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name


@torch.no_grad()
def test_wrapper_attends_within_a_clip_and_across_its_segments() -> None:
    wrapper = NonLocalWrapper(nn.Identity(), channels=4, num_segments=3).eval()
    randomised(wrapper.nl)
    x = torch.randn(2 * 3, 4, 4, 4)
    clips = x.view(2, 3, 4, 4, 4).transpose(1, 2)
    expected = attention_by_definition(wrapper.nl, clips).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(wrapper(x), expected)
    # The first clip does not see the second, but its first segment sees its last.
    torch.testing.assert_close(wrapper(x[:3]), expected[:3])
    changed = x.clone()
    changed[2] += 1
    assert not torch.allclose(wrapper(changed)[0], expected[0])


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("resnet18", ["layer2.0", "layer3.0"]),
        ("resnet34", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"]),
        ("resnet50", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"]),
        ("resnet101", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"]),
        ("resnet152", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"]),
    ],
)
def test_places_at_full_depth(name: str, places: list[str]) -> None:
    with torch.device("meta"):
        backbone, _ = make_backbone(name)
        assert isinstance(backbone, ResNet)
        plain = backbone.state_dict()
        depths = [len(getattr(backbone, stage)) for stage in backbone.stages()]
        add_non_local(backbone, 2)
    assert [len(getattr(backbone, stage)) for stage in backbone.stages()] == depths
    modules = backbone.named_modules()
    assert [key for key, module in modules if isinstance(module, NonLocalWrapper)] == places
    # Everything that was there is there, under its own name or inside a block.
    kept = {key.replace(".block.", ".") for key in backbone.state_dict() if ".nl." not in key}
    assert kept == set(plain)
    added = {key.split(".nl.")[1] for key in backbone.state_dict() if ".nl." in key}
    convolutions = {f"{part}.{kind}" for part in ("g.0", "W.0", "theta", "phi.0")
                    for kind in ("weight", "bias")}  # fmt: skip
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert added == convolutions | {f"W.1.{kind}" for kind in statistics}
    x = torch.empty(2 * 2, 3, 64, 64, device="meta")
    assert backbone(x).shape == (4, 1000)


def test_only_resnets() -> None:
    with torch.device("meta"):
        backbone, _ = make_backbone("BNInception")
    with pytest.raises(ValueError, match=r"non_local needs a ResNet.*BNInception"):
        add_non_local(backbone, 8)
