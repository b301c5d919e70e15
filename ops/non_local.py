"""Non-local blocks: self-attention over all positions and segments of a clip.

Source: Wang et al., "Non-local Neural Networks", 2018 (arXiv:1711.07971): the embedded Gaussian
form with sub-sampled keys and values, where TSM uses it.

Differences from the original:
    - ResNets keep their full depth; the original cuts ResNet-101 to the depth of ResNet-50 and
      fails on ResNet-18 and -34.
    - Attention is PyTorch's fused one, which never holds the matrix of all pairs.
"""

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from ops.backbone import Backbone

__all__ = ["NonLocalBlock", "NonLocalWrapper", "add_non_local"]

_PLACES = ((1, (0, 2)), (2, (0, 2, 4)))
"""Stages (counted from 0) and their blocks that a non-local block follows, where they exist."""


class _ZeroBatchNorm3d(nn.BatchNorm3d):
    """Batch norm that starts at zero."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.weight)


class NonLocalBlock(nn.Module):
    """x + W(attention over T*H*W positions), all projections 1x1x1 convolutions to C // 2 channels.

    The last batch norm starts at zero, so that a fresh block is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.g = nn.Sequential(nn.Conv3d(channels, inner, 1), nn.MaxPool3d((1, 2, 2)))
        self.W = nn.Sequential(nn.Conv3d(inner, channels, 1), _ZeroBatchNorm3d(channels))
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv3d(channels, inner, 1), nn.MaxPool3d((1, 2, 2)))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the positions of `x` (N, C, T, H, W); the shape stays."""
        # (N, C', T, H, W) -> (N, 1, T*H*W, C'), one head
        query, key, value = (
            projection(x).flatten(2).transpose(1, 2).unsqueeze(1)
            for projection in (self.theta, self.phi, self.g)
        )
        # The embedded Gaussian does not divide by the square root of the width.
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        # (N, 1, T*H*W, C') -> (N, C', T, H, W)
        attended = attended.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return cast(Tensor, self.W(attended)) + x

    def foldable(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Return the last convolution with its batch norm."""
        yield self.W[0], self.W[1]


class NonLocalWrapper(nn.Module):
    """A 2-D block followed by a non-local block over the clip's segments.

    Args:
        block: module from (N*T, C, H, W) to (N*T, C', H', W').
        channels: C'.
        num_segments: T.
    """

    def __init__(self, block: nn.Module, channels: int, num_segments: int) -> None:
        super().__init__()
        self.block = block
        self.nl = NonLocalBlock(channels)
        self.num_segments = num_segments

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to `x` (N*T, C, H, W), then attend across its clip."""
        x = self.block(x)
        # (N*T, C, H, W) -> (N, C, T, H, W) and back
        clips = x.unflatten(0, (-1, self.num_segments)).transpose(1, 2)
        return cast(Tensor, self.nl(clips)).transpose(1, 2).flatten(0, 1)


def add_non_local(backbone: nn.Module, num_segments: int) -> None:
    """Put non-local blocks behind the first blocks of the second and third stage, in place.

    Args:
        backbone: a backbone with residual stages, shifted or not.
        num_segments: segments that these stages see.

    Raises:
        ValueError: if the backbone has no such stages.
    """
    stages = list(backbone.stages().items()) if isinstance(backbone, Backbone) else []
    if not stages:
        raise ValueError(f"non_local needs a ResNet as base_model, got {type(backbone).__name__}")
    for index, positions in _PLACES:
        name, channels = stages[index]
        stage = cast(nn.Sequential, backbone.get_submodule(name))
        for position in positions:
            if position < len(stage):
                stage[position] = NonLocalWrapper(stage[position], channels, num_segments)
