"""What every backbone says of itself: weights, input, and the places that others work on.

A family of architectures is a class in its own file. `ops.backbones` lists the classes and builds
them by name; shifts, non-local blocks and inference mode ask the class, and name none.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torchvision
from torch import Tensor, nn

from data.preprocessing import TORCHVISION, Preprocessing

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """Image classifier in two halves, whose last layer is `last_linear`.

    Attributes:
        architectures: names of the family's members, and the constructor's arguments for each.
        first_convolution: name of the convolution that sees the image.
        preprocessing: RGB input of the published weights.
        imagenet_preprocessing: RGB input of the ImageNet weights.
        imagenet_prefixes: how names begin in the file of ImageNet weights, and how they begin here.
        last_linear: the classifier.
    """

    architectures: ClassVar[Mapping[str, tuple[Any, ...]]]
    first_convolution: ClassVar[str]
    preprocessing: ClassVar[Preprocessing] = TORCHVISION
    imagenet_preprocessing: ClassVar[Preprocessing] = TORCHVISION
    imagenet_prefixes: ClassVar[Mapping[str, str]] = {}
    last_linear: nn.Module

    if TYPE_CHECKING:  # other layers are of any type, as in torchvision

        def __getattr__(self, name: str) -> Any: ...

        # Not defined here, for it would hide a module of this name, such as MobileNetV2's.
        def features(self, x: Tensor) -> Tensor:
            """Return what the classifier's half takes, of images (N, C, H, W)."""

    @classmethod
    def imagenet_url(cls, architecture: str) -> str:
        """Return the URL of ImageNet weights, which ends in `-SHA256PREFIX.pth`."""
        return str(torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"].url)

    def logits(self, features: Tensor) -> Tensor:
        """Return class scores (N, classes) of `features`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (N, classes) of images (N, C, H, W)."""
        return self.logits(self.features(x))

    def foldable(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return pairs of a convolution and the batch norm that alone sees its output."""
        raise NotImplementedError

    def stages(self) -> dict[str, int]:
        """Return name and output channels of each stage of residual blocks; {} without any."""
        return {}

    def shift_places(self, place: str, every: int) -> list[list[tuple[nn.Module, str]]]:
        """Return the modules whose input a temporal shift moves; [] where none is possible.

        Args:
            place: one of `ops.temporal_shift.SHIFT_PLACES`.
            every: shift in every block (1), every second (2), and so on.

        Returns:
            For each stage, parents and names of these modules.

        Raises:
            ValueError: if this architecture cannot shift there, with the reason.
        """
        return []
