"""Group transforms: all frames of a clip get the same scale, crop and flip.

They take frames in either of two forms, and return the form that they were given:

- a list of PIL images of one size, all of mode RGB, or all of mode L, which is flow in the order
  u0, v0, u1, v1, ...;
- a uint8 tensor (frames, channels, H, W) on any device: 3 channels are RGB, 2 are u and v, 1 is u
  and v in turn, exactly like a list of L images.

Both forms give the same crops: to the bit where nothing is resized, within one grey level where
something is (Pillow and PyTorch round differently). Resizing is bilinear and antialiased. Frames
are never written to, but a result may share their memory. Random draws come from torch's global
generator: `torch.manual_seed` reproduces them, and the workers of a DataLoader differ. Whatever
cannot be transformed (other types, dtypes, shapes, several sizes) raises a ValueError.

Source: tsn-pytorch (Wang et al. 2016, arXiv:1608.00859); `GroupFullResSample` from TSM (Lin et al.
2019, arXiv:1811.08383).

Differences from the original:
    - Tensors are accepted wherever lists are.
    - Random numbers come from torch's generator; the original's come from Python's.
    - `GroupNormalize` leaves its input alone; the original writes into it.
    - `GroupMultiScaleCrop` never crops more than the image; the original may pad it with black.
    - A crop larger than the image, frames of several sizes or modes, and flow inversion of RGB
      frames are errors. The original pads with black, fails later, or inverts every other frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data.functional import (
    Frames,
    FramesT,
    Size,
    check_frames,
    concat,
    crop,
    hflip,
    is_flow,
    margin,
    randint,
    resize,
    to_hw,
    to_tensor,
    uniform,
    width_height,
)

__all__ = [
    "GroupCenterCrop",
    "GroupFullResSample",
    "GroupMultiScaleCrop",
    "GroupNormalize",
    "GroupOverSample",
    "GroupRandomCrop",
    "GroupRandomHorizontalFlip",
    "GroupRandomSizedCrop",
    "GroupScale",
    "Stack",
    "ToTorchFormatTensor",
]

_Places = Sequence[tuple[int, int]]
"""Where crops lie, as (x, y) in quarters of the way that a crop can move."""

_CORNERS_AND_CENTRE = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))
_EDGES_AND_QUARTERS = ((0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
_LEFT_RIGHT_CENTRE = ((0, 2), (4, 2), (2, 2))


def _offsets(margin_w: int, margin_h: int, places: _Places) -> list[tuple[int, int]]:
    # Kept: the step is rounded down before it is multiplied, so "right" may end up to three pixels
    # left of the edge. The published scores were measured so (test_offsets_are_rounded_down).
    step_x, step_y = margin_w // 4, margin_h // 4
    return [(x * step_x, y * step_y) for x, y in places]


class _GroupTransform:
    """Base of the transforms that map frames to frames: checks them first."""

    def __call__(self, frames: FramesT) -> FramesT:
        return concat(self.crops(frames))

    def crops(self, frames: FramesT) -> list[FramesT]:
        """Return the crops one by one, which `__call__` puts behind one another."""
        check_frames(self, frames)
        return self._apply_all(frames)

    def _apply_all(self, frames: FramesT) -> list[FramesT]:
        return [self._apply(frames)]

    def _apply(self, frames: FramesT) -> FramesT:
        raise NotImplementedError


@dataclass
class _SizedTransform(_GroupTransform):
    size: Size

    def __post_init__(self) -> None:
        to_hw(self, "size", self.size)


class GroupScale(_SizedTransform):
    """Resizing of all frames.

    Attributes:
        size: shorter side in pixels, the other one being int(size * longer / shorter); or (height,
            width).
    """

    def _apply(self, frames: FramesT) -> FramesT:
        size_h, size_w = to_hw(self, "size", self.size)
        both = isinstance(self.size, Sequence) and len(self.size) == 2
        return resize(frames, [size_h, size_w] if both else [size_h])


class GroupCenterCrop(_SizedTransform):
    """Crop of the centre, where torchvision's CenterCrop has it.

    Attributes:
        size: side of a square in pixels, or (height, width).
    """

    def _apply(self, frames: FramesT) -> FramesT:
        crop_h, crop_w = to_hw(self, "size", self.size)
        x, y = (round(space / 2) for space in margin(self, frames, crop_w, crop_h))
        return crop(frames, x, y, crop_w, crop_h)


class GroupRandomCrop(_SizedTransform):
    """Crop at a random place, the same in all frames.

    Attributes:
        size: side of a square in pixels, or (height, width).
    """

    def _apply(self, frames: FramesT) -> FramesT:
        crop_h, crop_w = to_hw(self, "size", self.size)
        x, y = (randint(space + 1) for space in margin(self, frames, crop_w, crop_h))
        return crop(frames, x, y, crop_w, crop_h)


@dataclass
class GroupRandomHorizontalFlip(_GroupTransform):
    """Flip of all frames left to right, for every second clip on average.

    Attributes:
        is_flow: whether the frames are flow, whose u images (in a list: the even ones) are
            inverted, 255 - p, when they are flipped. RGB frames are then refused.
    """

    is_flow: bool = False

    def _apply(self, frames: FramesT) -> FramesT:
        if self.is_flow and not is_flow(frames):
            raise ValueError(
                "GroupRandomHorizontalFlip: is_flow=True takes flow (images of mode L, or a tensor "
                "with 1 or 2 channels), got RGB frames"
            )
        return hflip(frames, invert_u=self.is_flow) if randint(2) else frames


@dataclass
class _FixedCrops(_GroupTransform):
    crop_size: Size
    scale_size: Size | None
    flip: bool = True

    _places: ClassVar[_Places]

    def __post_init__(self) -> None:
        to_hw(self, "crop_size", self.crop_size)
        if self.scale_size is not None:
            to_hw(self, "scale_size", self.scale_size)

    def _apply_all(self, frames: FramesT) -> list[FramesT]:
        if self.scale_size is not None:
            frames = GroupScale(self.scale_size)(frames)
        if isinstance(frames, Tensor):
            frames = frames.contiguous()  # once, rather than wherever crops overlap
        crop_w, crop_h = to_hw(self, "crop_size", self.crop_size)
        crops = []
        for x, y in _offsets(*margin(self, frames, crop_w, crop_h), self._places):
            crops.append(crop(frames, x, y, crop_w, crop_h))
            if self.flip:
                crops.append(hflip(crops[-1], invert_u=is_flow(frames)))
        return crops


@dataclass
class GroupOverSample(_FixedCrops):
    """Ten crops: four corners and the centre, each as it is and then flipped.

    All frames of the first crop come first, then all frames of the second: the first axis of the
    result is (crop, flip, frame). Flipped flow has its u inverted.

    Attributes:
        crop_size: side of a square in pixels, or (width, height).
        scale_size: GroupScale's size, to which frames are resized first; None leaves them alone.
        flip: whether there are flipped crops; without them there are five.
    """

    scale_size: Size | None = None

    _places = _CORNERS_AND_CENTRE


class GroupFullResSample(_FixedCrops):
    """Three crops at half height: left, right and centre, each as it is and then flipped.

    With a crop as high as the frames, these cover the whole picture. Attributes and order are those
    of GroupOverSample; `scale_size` has no default.
    """

    _places = _LEFT_RIGHT_CENTRE


@dataclass
class GroupMultiScaleCrop(_GroupTransform):
    """Crop of random size, shape and place, the same in all frames, resized to one size.

    Its sides are int(s * shorter side of the frames) for two s of `scales`, or those of
    `input_size` where they are less than 3 pixels away (and the frames are that large).

    Attributes:
        input_size: side of the resulting square in pixels, or (width, height).
        scales: of the shorter side, above 0 and at most 1; None stands for the default.
        max_distort: how many places apart in `scales` width and height may be.
        fix_crop: whether the place is one of the fixed ones instead of any.
        more_fix_crop: whether there are 13 fixed places, rather than the corners and the centre.
    """

    input_size: Size
    scales: Sequence[float] | None = (1, 0.875, 0.75, 0.66)
    max_distort: int = 1
    fix_crop: bool = True
    more_fix_crop: bool = True

    def __post_init__(self) -> None:
        to_hw(self, "input_size", self.input_size)
        if self.scales is None:  # tsn-pytorch's default
            self.scales = type(self).scales
        if not self.scales or min(self.scales) <= 0 or max(self.scales) > 1:
            raise ValueError(
                f"GroupMultiScaleCrop: scales must be above 0 and at most 1, got {self.scales!r}"
            )
        if self.max_distort < 0:
            raise ValueError(
                f"GroupMultiScaleCrop: max_distort must be 0 or more, got {self.max_distort!r}"
            )

    def crop_sizes(self, w: int, h: int) -> list[tuple[int, int]]:
        """Return the (width, height) of every crop that frames of `w` x `h` pixels may get."""
        input_w, input_h = to_hw(self, "input_size", self.input_size)
        sides = [max(1, int(min(w, h) * scale)) for scale in self.scales or ()]
        widths = [input_w if abs(s - input_w) < 3 and input_w <= w else s for s in sides]
        heights = [input_h if abs(s - input_h) < 3 and input_h <= h else s for s in sides]
        return [
            (crop_w, crop_h)
            for i, crop_h in enumerate(heights)
            for j, crop_w in enumerate(widths)
            if abs(i - j) <= self.max_distort
        ]

    def _apply(self, frames: FramesT) -> FramesT:
        sizes = self.crop_sizes(*width_height(frames))
        crop_w, crop_h = sizes[randint(len(sizes))]
        margin_w, margin_h = margin(self, frames, crop_w, crop_h)
        if self.fix_crop:
            places = _CORNERS_AND_CENTRE + (_EDGES_AND_QUARTERS if self.more_fix_crop else ())
            x, y = _offsets(margin_w, margin_h, places)[randint(len(places))]
        else:
            x, y = randint(margin_w + 1), randint(margin_h + 1)
        input_w, input_h = to_hw(self, "input_size", self.input_size)
        return resize(crop(frames, x, y, crop_w, crop_h), [input_h, input_w])


class GroupRandomSizedCrop(_SizedTransform):
    """Crop of 8 to 100 % of the area at a ratio of 3/4 to 4/3, the same in all frames, resized.

    After ten draws that do not fit: GroupScale(size) and GroupRandomCrop(size).

    Attributes:
        size: side of the resulting square in pixels, or (height, width).
    """

    def _apply(self, frames: FramesT) -> FramesT:
        w, h = width_height(frames)
        for _ in range(10):
            area = w * h * uniform(0.08, 1)
            ratio = uniform(3 / 4, 4 / 3)
            crop_w, crop_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if randint(2):
                crop_w, crop_h = crop_h, crop_w
            if 0 < crop_w <= w and 0 < crop_h <= h:
                x, y = randint(w - crop_w + 1), randint(h - crop_h + 1)
                return resize(crop(frames, x, y, crop_w, crop_h), to_hw(self, "size", self.size))
        return GroupRandomCrop(self.size)(GroupScale(self.size)(frames))


# From frames to the input of a model


def _describe(value: object) -> str:
    """Return what an error says of a value of the wrong kind."""
    if isinstance(value, np.ndarray | Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__


@dataclass
class Stack:
    """Channels of all frames behind one another.

    Attributes:
        roll: whether each RGB frame becomes BGR. Flow is left as it is.
    """

    roll: bool = False

    def __call__(self, frames: Frames) -> npt.NDArray[np.uint8] | Tensor:
        """Return a uint8 array (H, W, N * C) of images, a tensor (N * C, H, W) of a tensor."""
        check_frames(self, frames)
        tensor = to_tensor(frames)
        if self.roll and not is_flow(frames):
            tensor = tensor.flip(1)
        stacked = tensor.flatten(0, 1)
        if isinstance(frames, Tensor):
            return stacked
        return np.ascontiguousarray(stacked.permute(1, 2, 0).numpy())


@dataclass
class ToTorchFormatTensor:
    """Conversion of what Stack returns into floating point.

    Attributes:
        div: whether to divide by 255.
    """

    div: bool = True

    def __call__(self, stacked: npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """Convert a uint8 array (H, W, channels) or uint8 tensor (channels, H, W).

        Return a float32 tensor (channels, H, W), 0..1 with `div`, otherwise 0..255.
        """
        dtype = str(getattr(stacked, "dtype", None)).removeprefix("torch.")
        if dtype != "uint8" or stacked.ndim != 3:
            raise ValueError(
                "ToTorchFormatTensor: expected a uint8 array (H, W, channels) or tensor (channels, "
                f"H, W) from Stack, got {_describe(stacked)}"
            )
        if isinstance(stacked, np.ndarray):
            # Copied, since PyTorch takes neither read-only arrays nor negative strides.
            stacked = torch.from_numpy(np.array(stacked.transpose(2, 0, 1), order="C"))
        image = stacked.to(torch.float32)
        return image.div_(255) if self.div else image


@dataclass
class GroupNormalize:
    """Normalisation: subtract the mean and divide by the standard deviation, per channel.

    Attributes:
        mean: repeated over the channels, so that three values serve any number of RGB frames.
        std: likewise; may have another length than `mean`.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        lists = isinstance(self.mean, Sequence) and isinstance(self.std, Sequence)
        if not (lists and self.mean and self.std and min(self.std) > 0):
            raise ValueError(
                f"GroupNormalize: mean and std must be lists of at least one value each and std "
                f"positive, got mean={self.mean!r}, std={self.std!r}"
            )

    def statistics(self, channels: int) -> tuple[list[float], list[float]]:
        """Return the mean and the standard deviation of each of `channels` channels."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if channels % len(values):
                raise ValueError(
                    f"GroupNormalize: {channels} channels are not a multiple of the {len(values)} "
                    f"values of {name}={values!r}"
                )
        mean, std = list(self.mean), list(self.std)
        return mean * (channels // len(mean)), std * (channels // len(std))

    def __call__(self, stacked: Tensor) -> Tensor:
        """Return a floating-point tensor (channels, H, W) normalised, in the same dtype."""
        floating = isinstance(stacked, Tensor) and stacked.is_floating_point()
        if not floating or stacked.ndim != 3:
            raise ValueError(
                "GroupNormalize: expected a floating-point tensor (channels, H, W) from "
                f"ToTorchFormatTensor, got {_describe(stacked)}"
            )
        normalised: Tensor = F.normalize(stacked, *self.statistics(len(stacked)))
        return normalised
