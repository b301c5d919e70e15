"""BN-Inception, the backbone that TSN was published with.

Source: Ioffe and Szegedy, "Batch Normalization", 2015 (arXiv:1502.03167), in the Caffe variant of
the TSN authors. Module names are those of pretrainedmodels' `bninception`, because published state
dicts use them; the outputs agree with it too.

Differences from the original:
    - One table and one loop instead of one statement per layer.
    - `before_stage` sees the input of every stage but the first: TSM puts its shift there.
    - Any input size: odd sides are rounded up before each halving, and the last pooling averages
      whatever is left.
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.preprocessing import CAFFE
from ops.backbone import Backbone

__all__ = ["BNInception"]


class _Block(NamedTuple):
    """Output channels of an inception block's convolutions; 0 where a branch is missing."""

    name: str
    one: int
    three_reduce: int
    three: int
    double_reduce: int
    double: int
    projection: int
    pool: str = "avg"

    @property
    def stride(self) -> int:
        """Return 2 for the two blocks without a 1x1 branch, which halve the resolution."""
        return 1 if self.one else 2

    def out_channels(self, in_channels: int) -> int:
        """Return the channels after concatenation.

        A pooling branch without projection passes its input on.
        """
        return self.one + self.three + self.double + (self.projection or in_channels)


_BLOCKS = (
    _Block("inception_3a", 64, 64, 64, 64, 96, 32),
    _Block("inception_3b", 64, 64, 96, 64, 96, 64),
    _Block("inception_3c", 0, 128, 160, 64, 96, 0, "max"),
    _Block("inception_4a", 224, 64, 96, 96, 128, 128),
    _Block("inception_4b", 192, 96, 128, 96, 128, 128),
    _Block("inception_4c", 160, 128, 160, 128, 160, 128),
    _Block("inception_4d", 96, 128, 192, 160, 192, 128),
    _Block("inception_4e", 0, 128, 192, 192, 256, 0, "max"),
    _Block("inception_5a", 352, 192, 320, 160, 224, 128),
    _Block("inception_5b", 352, 192, 320, 192, 224, 128, "max"),
)


class BNInception(Backbone):
    """BN-Inception with pretrainedmodels' names.

    Input: float (N, C, H, W), C = 3 unless the first convolution was adapted; BGR in 0..255 minus
    the mean for the published weights. Output of `forward`: (N, 1000), or whatever takes the place
    of `last_linear` makes of the (N, 1024) features.

    Attributes:
        before_stage: module applied to the input of conv2 and of each of the ten inception
            blocks; the identity unless somebody replaces it. It must have no parameters, since
            all eleven places share it.
    """

    architectures: ClassVar = {"BNInception": ()}
    first_convolution = "conv1_7x7_s2"
    preprocessing = CAFFE
    imagenet_preprocessing = CAFFE

    def __init__(self) -> None:
        super().__init__()
        self._add_convolution("conv1_7x7_s2", 3, 64, kernel=7, stride=2)
        self._add_convolution("conv2_3x3_reduce", 64, 64)
        self._add_convolution("conv2_3x3", 64, 192, kernel=3)
        channels = 192
        for block in _BLOCKS:
            name = block.name
            if block.one:
                self._add_convolution(f"{name}_1x1", channels, block.one)
            self._add_convolution(f"{name}_3x3_reduce", channels, block.three_reduce)
            self._add_convolution(
                f"{name}_3x3", block.three_reduce, block.three, kernel=3, stride=block.stride
            )
            self._add_convolution(f"{name}_double_3x3_reduce", channels, block.double_reduce)
            self._add_convolution(
                f"{name}_double_3x3_1", block.double_reduce, block.double, kernel=3
            )
            self._add_convolution(
                f"{name}_double_3x3_2", block.double, block.double, kernel=3, stride=block.stride
            )
            if block.projection:
                self._add_convolution(f"{name}_pool_proj", channels, block.projection)
            channels = block.out_channels(channels)
        self.before_stage: nn.Module = nn.Identity()
        self.last_linear: nn.Module = nn.Linear(channels, 1000)

    @classmethod
    def imagenet_url(cls, architecture: str) -> str:
        """Return the URL of the weights that pretrainedmodels publishes."""
        return "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth"

    def _add_convolution(
        self, name: str, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1
    ) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
        self.add_module(name, convolution)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(out_channels))

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        convolution, batch_norm = getattr(self, name), getattr(self, f"{name}_bn")
        return F.relu(batch_norm(convolution(x)), inplace=True)

    def _inception(self, block: _Block, x: Tensor) -> Tensor:
        name = block.name
        branches = []
        if block.one:
            branches.append(self._convolve(f"{name}_1x1", x))
        three = self._convolve(f"{name}_3x3_reduce", x)
        branches.append(self._convolve(f"{name}_3x3", three))
        double = self._convolve(f"{name}_double_3x3_reduce", x)
        double = self._convolve(f"{name}_double_3x3_1", double)
        branches.append(self._convolve(f"{name}_double_3x3_2", double))
        if block.pool == "avg":
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1)
        else:
            # Kept: no padding, and rounding up, where it halves the resolution. Published weights
            # were trained so, in Caffe (test_outputs_are_pretrainedmodels).
            padding = 1 if block.stride == 1 else 0
            odd_h, odd_w = x.shape[-2] % 2, x.shape[-1] % 2
            if block.stride == 2 and (odd_h or odd_w):
                # The convolutions round up; x is not negative, so zeros do not change the maximum.
                x = F.pad(x, (0, odd_w, 0, odd_h))
            pooled = F.max_pool2d(x, 3, block.stride, padding=padding, ceil_mode=True)
        if block.projection:
            pooled = self._convolve(f"{name}_pool_proj", pooled)
        branches.append(pooled)
        return torch.cat(branches, dim=1)

    def features(self, x: Tensor) -> Tensor:
        """Return activations of the last block: (N, C, H, W) to (N, 1024, ~H/32, ~W/32)."""
        x = self._convolve("conv1_7x7_s2", x)
        x = self.before_stage(F.max_pool2d(x, 3, 2, ceil_mode=True))
        x = self._convolve("conv2_3x3_reduce", x)
        x = self._convolve("conv2_3x3", x)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for block in _BLOCKS:
            x = self._inception(block, self.before_stage(x))
        return x

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores (N, 1000) of activations (N, 1024, h, w)."""
        pooled = F.adaptive_avg_pool2d(features, 1).flatten(1)
        return cast(Tensor, self.last_linear(pooled))

    def foldable(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Return each convolution with its batch norm, which has its name and `_bn`."""
        for name, module in self.named_children():
            if name.endswith("_bn"):
                yield self.get_submodule(name.removesuffix("_bn")), module

    def shift_places(self, place: str, every: int) -> list[list[tuple[nn.Module, str]]]:
        """Return `before_stage`, which eleven stages share; key names stay as they are then."""
        if place != "block" or every != 1:
            raise ValueError(
                f"shift_place={place!r} with shift_every={every} is not possible with BNInception, "
                f"which has no residual blocks: use shift_place='block' and shift_every=1"
            )
        return [[(self, "before_stage")]]
