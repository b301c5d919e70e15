"""VGG under pretrainedmodels' names.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", 2014 (arXiv:1409.1556), as torchvision implements it.

Differences from the original: a real class, as `ops.resnet` says.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, cast

from torch import Tensor, nn
from torchvision.models import vgg

from ops.backbone import Backbone

__all__ = ["VGG"]

_LETTERS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}


class VGG(Backbone, vgg.VGG):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's VGG with pretrainedmodels' names and split.

    Args:
        configuration: torchvision's letter: A, B, D or E for 11, 13, 16 or 19 layers.
        batch_norm: whether batch norm follows each convolution.
    """

    architectures: ClassVar = {
        **{name: (letter, False) for name, letter in _LETTERS.items()},
        **{f"{name}_bn": (letter, True) for name, letter in _LETTERS.items()},
    }
    first_convolution = "_features.0"
    imagenet_prefixes: ClassVar = {
        "features.": "_features.",
        "classifier.0.": "linear0.",
        "classifier.3.": "linear1.",
        "classifier.6.": "last_linear.",
    }

    def __init__(self, configuration: str, batch_norm: bool):
        super().__init__(vgg.make_layers(vgg.cfgs[configuration], batch_norm))
        # As attributes, `features` and `classifier` would hide behind the methods' names.
        self._features = cast(nn.Sequential, self._modules.pop("features"))
        classifier = cast(nn.Sequential, self._modules.pop("classifier"))
        names = ("linear0", "relu0", "dropout0", "linear1", "relu1", "dropout1", "last_linear")
        for name, module in zip(names, classifier, strict=True):
            self.add_module(name, module)

    def features(self, x: Tensor) -> Tensor:
        """Return the output of the second last linear layer: (N, C, H, W) to (N, 4096)."""
        x = self.avgpool(self._features(x)).flatten(1)
        return cast(Tensor, self.linear1(self.dropout0(self.relu0(self.linear0(x)))))

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores (N, classes) of features (N, 4096)."""
        return cast(Tensor, self.last_linear(self.dropout1(self.relu1(features))))

    def foldable(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Return each convolution with the batch norm behind it; nothing without batch norms."""
        for module, follower in pairwise(self._features):
            if isinstance(module, nn.Conv2d) and not isinstance(follower, nn.ReLU):
                yield module, follower
