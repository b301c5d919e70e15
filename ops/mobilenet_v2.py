"""MobileNetV2 (width 1.0) under the names of MIT's TSM, as its checkpoints have them.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018
(arXiv:1801.04381), as torchvision implements it.

Differences from the original:
    - The layers of a block are in one sequence; torchvision nests them.
    - The classifier's dropout is left to the model around the backbone.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torchvision.models import mobilenetv2

from ops.backbone import Backbone

__all__ = ["MobileNetV2"]

# Layers of a block: where torchvision has them, and where they are here.
_WITHOUT_EXPANSION = {"0.0": 0, "0.1": 1, "1": 3, "2": 4}
_WITH_EXPANSION = {"0.0": 0, "0.1": 1, "1.0": 3, "1.1": 4, "2": 6, "3": 7}


class _InvertedResidual(mobilenetv2.InvertedResidual):  # type: ignore[misc]  # untyped
    """torchvision's block, its layers in one sequence `conv`."""

    conv: nn.Sequential

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        parts = [part if isinstance(part, nn.Sequential) else [part] for part in self.conv]
        self.conv = nn.Sequential(*(layer for part in parts for layer in part))


class MobileNetV2(Backbone, mobilenetv2.MobileNetV2):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's MobileNetV2 with `last_linear` for `classifier`, and its blocks flat.

    Attributes:
        features: stem, seventeen blocks and the last convolution: float (N, C, H, W) to
            (N, 1280, ~H/32, ~W/32).
    """

    architectures: ClassVar = {"mobilenetv2": ()}
    first_convolution = "features.0.0"
    imagenet_prefixes: ClassVar = {
        "classifier.1.": "last_linear.",
        **{
            f"features.{block}.conv.{theirs}.": f"features.{block}.conv.{ours}."
            for block in range(1, 18)
            for theirs, ours in (_WITHOUT_EXPANSION if block == 1 else _WITH_EXPANSION).items()
        },
    }

    def __init__(self) -> None:
        super().__init__(block=_InvertedResidual)
        self.last_linear = self.classifier[1]
        del self.classifier

    @classmethod
    def imagenet_url(cls, architecture: str) -> str:
        """Return the URL of torchvision's weights, which calls the network otherwise."""
        return super().imagenet_url("mobilenet_v2")

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores (N, classes) of activations (N, 1280, h, w)."""
        return cast(Tensor, self.last_linear(features.mean((2, 3))))

    def foldable(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Return each convolution with its batch norm, which follows it."""
        for module, follower in pairwise(self.modules()):
            if isinstance(module, nn.Conv2d):
                yield module, follower

    def shift_places(self, place: str, every: int) -> list[list[tuple[nn.Module, str]]]:
        """Return the first convolutions of the ten blocks that have a shortcut."""
        if place != "blockres":
            raise ValueError(
                f"shift_place={place!r} is not possible with mobilenetv2, whose shifts TSM defines "
                f"inside residual branches alone: use shift_place='blockres'"
            )
        blocks = (block for block in self.modules() if isinstance(block, _InvertedResidual))
        with_shortcut = [block for block in blocks if block.use_res_connect]
        return [[(block.conv, "0") for block in with_shortcut[::every]]]
