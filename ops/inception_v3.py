"""Inception-V3 under pretrainedmodels' names.

Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015
(arXiv:1512.00567), as torchvision implements it.

Differences from the original:
    - A real class, as `ops.resnet` says.
    - ImageNet weights are torchvision's, and bring the preprocessing that they were trained with.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, cast

from torch import Tensor, nn
from torchvision.models import inception

from data.preprocessing import CAFFE, Preprocessing
from ops.backbone import Backbone

__all__ = ["InceptionV3"]

_SIZE, _SCALE = 299, 299 * 256 // 224


class InceptionV3(Backbone, inception.Inception3):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's Inception-V3 with `last_linear` for `fc`, and `features` and `logits` apart."""

    architectures: ClassVar = {"inceptionv3": ()}
    first_convolution = "Conv2d_1a_3x3.conv"
    preprocessing = replace(CAFFE, input_size=_SIZE, scale_size=_SCALE)
    # torchvision ported Google's weights, which take RGB in -1..1.
    imagenet_preprocessing = Preprocessing(
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), input_size=_SIZE, scale_size=_SCALE
    )
    imagenet_prefixes: ClassVar = {"fc.": "last_linear."}

    def __init__(self) -> None:
        # Kept: the auxiliary classifier, which never runs but whose weights are in every state dict
        # (test_state_dict_is_pretrainedmodels).
        super().__init__(transform_input=False, init_weights=True)
        self.last_linear = self.fc
        del self.fc

    @classmethod
    def imagenet_url(cls, architecture: str) -> str:
        """Return the URL of torchvision's weights, which calls the network otherwise."""
        return super().imagenet_url("inception_v3")

    def features(self, x: Tensor) -> Tensor:
        """Return activations of the last block: (N, C, H, W) to (N, 2048, h, w).

        h and w are 8 for the usual 299 x 299.
        """
        for name, module in self.named_children():
            if name.startswith(("Conv2d_", "maxpool", "Mixed_")):
                x = module(x)
        return x

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores (N, classes) of activations (N, 2048, h, w)."""
        return cast(Tensor, self.last_linear(self.dropout(self.avgpool(features)).flatten(1)))

    def foldable(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Return the two halves of each of torchvision's convolutions with batch norm."""
        for module in self.modules():
            if isinstance(module, inception.BasicConv2d):
                yield module.conv, module.bn
