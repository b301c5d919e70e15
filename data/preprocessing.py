"""What a network expects of its input: size, statistics, channel order and value range.

Preprocessing belongs to the weights, not to the architecture: the same backbone trained by two
projects may want two different inputs, and feeding it the wrong one is the most reported cause of
"very low accuracy" in this family of models. It is therefore one value, which travels with the
weights into the model (`model.preprocessing`) and from there into `presets`.
"""

from dataclasses import dataclass, replace
from reprlib import repr as shown

__all__ = ["CAFFE", "FLOW_ZERO", "TORCHVISION", "Preprocessing"]

FLOW_ZERO = 128
"""Grey level that stands for no motion in the published flow images."""


@dataclass(frozen=True)
class Preprocessing:
    """How to turn 8-bit frames into the input of one network.

    Attributes:
        mean: one value per channel, or one for all channels, in the units of `input_range`.
        std: likewise.
        input_space: order of the colour channels, "RGB" or "BGR".
        input_range: what the 8-bit values 0 and 255 become before `mean` is subtracted:
            (0.0, 1.0) or (0.0, 255.0).
        input_size: side of the square crop in pixels.
        scale_size: length in pixels to which the shorter side is resized before cropping.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_space: str = "RGB"
    input_range: tuple[float, float] = (0.0, 1.0)
    input_size: int = 224
    scale_size: int = 256

    def __post_init__(self) -> None:
        if self.input_space not in ("RGB", "BGR"):
            raise ValueError(f"input_space must be 'RGB' or 'BGR', got {shown(self.input_space)}")
        if self.input_range not in ((0.0, 1.0), (0.0, 255.0)):
            raise ValueError(
                f"input_range must be (0, 1) or (0, 255), got {shown(self.input_range)}"
            )
        if min(self.input_size, self.scale_size) < 1:
            raise ValueError(
                f"input_size and scale_size must be positive numbers of pixels, got "
                f"{shown(self.input_size)} and {shown(self.scale_size)}"
            )
        if not self.mean or not self.std or min(self.std) <= 0:
            raise ValueError(
                f"mean and std must have at least one value each and std be positive, got "
                f"mean={shown(self.mean)}, std={shown(self.std)}"
            )

    def for_modality(self, modality: str, new_length: int) -> "Preprocessing":
        """Return the preprocessing of the same network with a first convolution for `modality`.

        Args:
            modality: "RGB", "Flow" or "RGBDiff".
            new_length: frames (flow: pairs of u and v) in a snippet.

        Returns:
            For RGB, itself. For flow, one mean (the grey level of no motion) and one deviation
            for all channels. For RGBDiff, statistics of one RGB frame followed by those of
            `new_length` differences, as in tsn-pytorch (which for BN-Inception repeats the mean).
        """
        if modality == "Flow":
            zero = FLOW_ZERO if self.input_range[1] == 255 else 0.5
            std = round(sum(self.std) / len(self.std), 6)
            return replace(self, mean=(float(zero),), std=(std,))
        if modality == "RGBDiff":
            if self.input_range[1] == 255:
                return replace(self, mean=self.mean * (1 + new_length))
            zeros, spread = (0.0,) * 3 * new_length, sum(self.std) / len(self.std) * 2
            spread = round(spread, 6)
            return replace(self, mean=self.mean + zeros, std=self.std + (spread,) * 3 * new_length)
        return self


TORCHVISION = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""RGB input of torchvision's ImageNet weights, and of what was trained from them."""

CAFFE = Preprocessing(
    mean=(104.0, 117.0, 128.0), std=(1.0,), input_space="BGR", input_range=(0.0, 255.0)
)
"""RGB input of BN-Inception, whose weights were converted from Caffe: means of ImageNet alone."""
