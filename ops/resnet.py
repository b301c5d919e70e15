"""ResNet under pretrainedmodels' names, as published state dicts have them.

Source: He et al., "Deep Residual Learning for Image Recognition", 2015 (arXiv:1512.03385), as
torchvision implements it.

Differences from the original:
    - A real class. The original's is a torchvision instance with methods bound from outside, which
      a DataParallel replica carries along bound to the wrong model, and which cannot be pickled.
"""

from collections.abc import Iterator
from typing import ClassVar, cast

from torch import Tensor, nn
from torchvision.models import resnet

from ops.backbone import Backbone

__all__ = ["ResNet"]


class ResNet(Backbone, resnet.ResNet):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's ResNet with `last_linear` for `fc`, and `features` and `logits` apart."""

    architectures: ClassVar = {
        "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
        "resnet34": (resnet.BasicBlock, [3, 4, 6, 3]),
        "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
        "resnet101": (resnet.Bottleneck, [3, 4, 23, 3]),
        "resnet152": (resnet.Bottleneck, [3, 8, 36, 3]),
    }
    first_convolution = "conv1"
    imagenet_prefixes: ClassVar = {"fc.": "last_linear."}

    def __init__(self, block: type[resnet.BasicBlock | resnet.Bottleneck], layers: list[int]):
        super().__init__(block, layers)
        self.last_linear = self.fc
        del self.fc
        self._expansion: int = block.expansion

    def features(self, x: Tensor) -> Tensor:
        """Return activations of the last stage: (N, C, H, W) to (N, D, ~H/32, ~W/32)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return cast(Tensor, self.layer4(self.layer3(self.layer2(self.layer1(x)))))

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores (N, classes) of activations (N, D, h, w)."""
        return cast(Tensor, self.last_linear(self.avgpool(features).flatten(1)))

    def foldable(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Return the stem, and each block's convolutions with its shortcut's."""
        yield self.conv1, self.bn1
        for block in self.modules():
            if isinstance(block, resnet.BasicBlock | resnet.Bottleneck):
                yield block.conv1, block.bn1
                yield block.conv2, block.bn2
                if isinstance(block, resnet.Bottleneck):
                    yield block.conv3, block.bn3
                if block.downsample is not None:
                    yield block.downsample[0], block.downsample[1]

    def stages(self) -> dict[str, int]:
        """Return name and output channels of the four stages."""
        return {f"layer{index}": 32 * 2**index * self._expansion for index in range(1, 5)}

    def shift_places(self, place: str, every: int) -> list[list[tuple[nn.Module, str]]]:
        """Return the blocks of each stage ("block"), or their first convolutions ("blockres")."""
        stages = [self.get_submodule(name) for name in self.stages()]
        if place == "block":
            return [[(stage, name) for name in list(stage._modules)[::every]] for stage in stages]
        return [[(block, "conv1") for block in list(stage.children())[::every]] for stage in stages]
