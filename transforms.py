"""Frames to model input: the group transforms, and presets built from a model's own preprocessing.

A group transform treats all frames of a clip alike: one scale, one crop, one toss of a coin. Each
of them, but for GroupNormalize, takes either of two forms and returns the form that it was given:

- a list of PIL images of one size, all of mode RGB, or all of mode L, which is flow in the order
  u0, v0, u1, v1, ...;
- a uint8 tensor (frames, channels, H, W) on any device: 3 channels are RGB, 2 are u and v, 1 is u
  and v in turn, exactly like a list of L images.

Both forms give the same crops: to the bit where nothing is resized, within one grey level where
something is (Pillow and PyTorch round differently). Resizing is bilinear and antialiased. Frames
are never written to, but a result may share their memory. Whatever is random is drawn once per
group from torch's global generator, so that `torch.manual_seed` reproduces it, the workers of a
DataLoader differ, and both forms draw the same.

What is not frames raises a ValueError: other types, tensors that are not uint8, empty lists,
several sizes or modes, other shapes, crops larger than the frames.

Source: tsn-pytorch (Wang et al. 2016, arXiv:1608.00859); `GroupFullResSample` from TSM (Lin et al.
2019, arXiv:1811.08383).

Differences from the original:
    - Tensors are accepted wherever lists are.
    - Random numbers come from torch's generator; the original's come from Python's.
    - `GroupNormalize` leaves its input alone; the original writes into it.
    - `GroupMultiScaleCrop` does not snap a side to a length that the image does not have; the
      original then pads with black.
    - A crop larger than the image, frames of several sizes or modes, and flow inversion of RGB
      frames are errors. The original pads with black, fails later, or inverts every other frame.
    - `ToModelInput` and the presets at the end are new.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from data.groups import (
    Frames,
    FramesT,
    Size,
    check_frames,
    crop,
    is_flow,
    join,
    mirror,
    randint,
    resize,
    resize_short_side,
    slack,
    to_hw,
    uniform,
    width_height,
)
from data.preprocessing import Preprocessing

__all__ = [
    "Frames",
    "GroupCenterCrop",
    "GroupFullResSample",
    "GroupMultiScaleCrop",
    "GroupNormalize",
    "GroupOverSample",
    "GroupRandomCrop",
    "GroupRandomHorizontalFlip",
    "GroupRandomSizedCrop",
    "GroupScale",
    "RequireModality",
    "Stack",
    "ToModelInput",
    "ToTorchFormatTensor",
    "evaluation_transform",
    "training_transform",
]

# Where crops lie, as (x, y) in quarters of the way that a crop can move.
_CORNERS_AND_CENTRE = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))
_EDGES_AND_QUARTERS = ((0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
_LEFT_RIGHT_CENTRE = ((0, 2), (4, 2), (2, 2))

_RGB_SCALES = (1, 0.875, 0.75, 0.66)
_MOTION_SCALES = (1, 0.875, 0.75)

# A CPU converts this many frames at a time, so that they stay in its cache between the steps.
_FRAMES_AT_A_TIME = 4


# Group transforms


def _offsets(
    slack_w: int, slack_h: int, places: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    # Kept: the step is rounded down before it is multiplied, so "right" may end up to three pixels
    # left of the edge. The published scores were measured so (test_offsets_are_rounded_down).
    step_x, step_y = slack_w // 4, slack_h // 4
    return [(x * step_x, y * step_y) for x, y in places]


class _GroupTransform:
    """Checks the frames, then applies what the class does to them."""

    def __call__(self, frames: FramesT) -> FramesT:
        check_frames(self, frames)
        return self._apply(frames)

    def _apply(self, frames: FramesT) -> FramesT:
        raise NotImplementedError

    def crops(self, frames: FramesT) -> list[FramesT]:
        """What a call returns, one crop of all frames after the other; of a tensor, views."""
        return [self(frames)]


@dataclass
class _SizedTransform(_GroupTransform):
    size: Size

    def __post_init__(self) -> None:
        to_hw(self, "size", self.size)


class GroupScale(_SizedTransform):
    """Resize all frames.

    Attributes:
        size: length of the shorter side in pixels, the other one being int(size * longer /
            shorter); or both sides as (height, width), as for torchvision's Resize.
    """

    def _apply(self, frames: FramesT) -> FramesT:
        size_h, size_w = to_hw(self, "size", self.size)
        if isinstance(self.size, Sequence) and len(self.size) == 2:
            return resize(frames, size_w, size_h)
        return resize_short_side(frames, size_w)


class GroupCenterCrop(_SizedTransform):
    """Cut the centre out of all frames, where torchvision's CenterCrop does.

    Attributes:
        size: side of a square in pixels, or (height, width).
    """

    def _apply(self, frames: FramesT) -> FramesT:
        crop_h, crop_w = to_hw(self, "size", self.size)
        slack_w, slack_h = slack(self, frames, crop_w, crop_h)
        return crop(frames, round(slack_w / 2), round(slack_h / 2), crop_w, crop_h)


class GroupRandomCrop(_SizedTransform):
    """Cut one random rectangle out of all frames.

    Attributes:
        size: side of a square in pixels, or (height, width).
    """

    def _apply(self, frames: FramesT) -> FramesT:
        crop_h, crop_w = to_hw(self, "size", self.size)
        slack_w, slack_h = slack(self, frames, crop_w, crop_h)
        x, y = randint(slack_w + 1), randint(slack_h + 1)
        return crop(frames, x, y, crop_w, crop_h)


@dataclass
class GroupRandomHorizontalFlip(_GroupTransform):
    """Mirror all frames or none, with equal chances.

    Attributes:
        is_flow: whether the frames are flow, whose u images (in a list: the even ones) are
            inverted, 255 - p, when they are mirrored. RGB frames are then refused.
    """

    is_flow: bool = False

    def _apply(self, frames: FramesT) -> FramesT:
        if self.is_flow and not is_flow(frames):
            raise ValueError(
                "GroupRandomHorizontalFlip: is_flow=True wants images of mode L or a tensor with 1 "
                "or 2 channels, got RGB frames; for them leave is_flow=False"
            )
        return mirror(frames, invert_u=self.is_flow) if randint(2) else frames


@dataclass
class _FixedCrops(_GroupTransform):
    """Crops at fixed places, each as it is and then, with `flip`, mirrored."""

    crop_size: Size
    scale_size: Size | None
    flip: bool = True

    _places: ClassVar[Sequence[tuple[int, int]]]

    def __post_init__(self) -> None:
        to_hw(self, "crop_size", self.crop_size)
        if self.scale_size is not None:
            to_hw(self, "scale_size", self.scale_size)

    def _apply(self, frames: FramesT) -> FramesT:
        return join(self.crops(frames))

    def crops(self, frames: FramesT) -> list[FramesT]:
        if self.scale_size is not None:
            frames = GroupScale(self.scale_size)(frames)
        if isinstance(frames, Tensor):
            frames = frames.contiguous()  # once, rather than wherever crops overlap
        crop_w, crop_h = to_hw(self, "crop_size", self.crop_size)
        slack_w, slack_h = slack(self, frames, crop_w, crop_h)
        # Mirrored once as a whole: a mirrored crop is a crop of the mirrored frame.
        mirrored = mirror(frames, invert_u=is_flow(frames)) if self.flip else None
        crops = []
        for x, y in _offsets(slack_w, slack_h, self._places):
            crops.append(crop(frames, x, y, crop_w, crop_h))
            if mirrored is not None:
                crops.append(crop(mirrored, slack_w - x, y, crop_w, crop_h))
        return crops


@dataclass
class GroupOverSample(_FixedCrops):
    """Ten crops: four corners and the centre, each followed by its mirror image.

    The crops stand one behind the other, all frames of the first, then all frames of the second:
    the first axis of the result is (crop, mirrored, frame). Mirrored flow has its u inverted.

    Attributes:
        crop_size: side of a square in pixels, or (width, height).
        scale_size: what GroupScale does first, if anything; a pair is (height, width), as there.
        flip: False leaves out the mirror images, so that there are five crops.
    """

    scale_size: Size | None = None

    _places = _CORNERS_AND_CENTRE


class GroupFullResSample(_FixedCrops):
    """Three crops at half height: left, right and centre, each followed by its mirror image.

    With a crop as high as the frames, these cover the whole picture. Order as in GroupOverSample.

    Attributes:
        crop_size: side of a square in pixels, or (width, height).
        scale_size: what GroupScale does first, or None; a pair is (height, width), as there.
        flip: False leaves out the mirror images.
    """

    _places = _LEFT_RIGHT_CENTRE


@dataclass
class GroupMultiScaleCrop(_GroupTransform):
    """Cut one rectangle of random size, shape and place out of all frames, and resize it.

    The sides of the rectangle are int(s * shorter side of the frames) for two of the `scales`, or
    those of `input_size` where they are less than 3 pixels away (and the frames are that large),
    so that nothing is resized for next to nothing.

    Attributes:
        input_size: side of the resulting square in pixels, or (width, height).
        scales: of the shorter side, above 0 and at most 1; None means 1, 0.875, 0.75, 0.66.
        max_distort: how many places apart in `scales` width and height may be.
        fix_crop: whether the place is one of the fixed ones instead of any.
        more_fix_crop: whether there are 13 fixed places, rather than the corners and the centre.
    """

    input_size: Size
    scales: Sequence[float] | None = None
    max_distort: int = 1
    fix_crop: bool = True
    more_fix_crop: bool = True

    def __post_init__(self) -> None:
        to_hw(self, "input_size", self.input_size)
        scales = _RGB_SCALES if self.scales is None else self.scales
        if not scales or min(scales) <= 0 or max(scales) > 1:
            raise ValueError(
                f"GroupMultiScaleCrop: scales must be above 0 and at most 1, got {scales!r}"
            )
        if self.max_distort < 0:
            raise ValueError(
                f"GroupMultiScaleCrop: max_distort must be 0 or more, got {self.max_distort!r}"
            )

    def crop_sizes(self, w: int, h: int) -> list[tuple[int, int]]:
        """The (width, height) of every crop that frames of `w` x `h` pixels may get."""
        input_w, input_h = to_hw(self, "input_size", self.input_size)
        scales = _RGB_SCALES if self.scales is None else self.scales
        sides = [max(1, int(min(w, h) * scale)) for scale in scales]
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
        slack_w, slack_h = slack(self, frames, crop_w, crop_h)
        if self.fix_crop:
            places = _CORNERS_AND_CENTRE + (_EDGES_AND_QUARTERS if self.more_fix_crop else ())
            x, y = _offsets(slack_w, slack_h, places)[randint(len(places))]
        else:
            x, y = randint(slack_w + 1), randint(slack_h + 1)
        input_w, input_h = to_hw(self, "input_size", self.input_size)
        return resize(crop(frames, x, y, crop_w, crop_h), input_w, input_h)


class GroupRandomSizedCrop(_SizedTransform):
    """Cut 8 to 100 % of the area at a ratio of 3/4 to 4/3 out of all frames, and resize it.

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
                size_h, size_w = to_hw(self, "size", self.size)
                return resize(crop(frames, x, y, crop_w, crop_h), size_w, size_h)
        return GroupRandomCrop(self.size)(GroupScale(self.size)(frames))


# From frames to the input of a model


def _arrays(images: list[Image.Image]) -> list[npt.NDArray[np.uint8]]:
    """Every image as (H, W, channels)."""
    return [np.atleast_3d(np.asarray(image)) for image in images]


def _as_tensor(frames: Frames) -> Tensor:
    """The frames as a uint8 tensor (frames, channels, H, W)."""
    if isinstance(frames, Tensor):
        return frames
    return torch.from_numpy(np.stack(_arrays(frames))).permute(0, 3, 1, 2)


def _fresh_memory(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A float32 tensor whose values are yet to be written.

    For the CPU it comes from NumPy, which asks Linux for huge pages. Getting 48 MB in small ones
    takes three times as long as computing ten crops into them.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return torch.empty(shape, dtype=torch.float32, device=device)


@dataclass
class Stack:
    """Put the channels of all frames behind one another.

    Attributes:
        roll: whether RGB frames become BGR, each for itself. Flow is left as it is.
    """

    roll: bool = False

    @overload
    def __call__(self, frames: list[Image.Image]) -> npt.NDArray[np.uint8]: ...
    @overload
    def __call__(self, frames: Tensor) -> Tensor: ...
    def __call__(self, frames: Frames) -> npt.NDArray[np.uint8] | Tensor:
        """Stack a group.

        Args:
            frames: PIL images or a uint8 tensor, see the top of this file.

        Returns:
            For a list, a uint8 array (H, W, frames * channels); for a tensor, a uint8 tensor
            (frames * channels, H, W).
        """
        check_frames(self, frames)
        roll = self.roll and not is_flow(frames)
        if isinstance(frames, Tensor):
            return (frames.flip(1) if roll else frames).flatten(0, 1)
        arrays = _arrays(frames)
        return np.concatenate([a[..., ::-1] if roll else a for a in arrays], axis=2)


@dataclass
class ToTorchFormatTensor:
    """Turn what Stack returns into floating point.

    Attributes:
        div: whether to divide by 255.
    """

    div: bool = True

    def __call__(self, stacked: npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """Convert.

        Args:
            stacked: uint8 array (H, W, channels) or uint8 tensor (channels, H, W).

        Returns:
            A float32 tensor (channels, H, W), 0..1 with `div`, otherwise 0..255.

        Raises:
            ValueError: for anything but uint8 arrays and tensors of three dimensions.
        """
        kind = str(getattr(stacked, "dtype", type(stacked).__name__))
        if kind not in ("uint8", "torch.uint8"):
            raise ValueError(
                f"ToTorchFormatTensor: expected a uint8 array or tensor from Stack, got {kind}"
            )
        if stacked.ndim != 3:
            raise ValueError(
                "ToTorchFormatTensor: expected an array (H, W, channels) or a tensor (channels, H, "
                f"W), got {type(stacked).__name__} of shape {tuple(stacked.shape)}"
            )
        if isinstance(stacked, np.ndarray):
            # Copied, since PyTorch takes neither read-only arrays nor negative strides.
            stacked = torch.from_numpy(np.array(stacked.transpose(2, 0, 1), order="C"))
        image = stacked.to(torch.float32)
        return image.div_(255) if self.div else image


def _check_statistics(owner: object, mean: Sequence[float], std: Sequence[float]) -> None:
    lists = isinstance(mean, Sequence) and isinstance(std, Sequence)
    if not (lists and mean and std and min(std) > 0):
        raise ValueError(
            f"{type(owner).__name__}: mean and std must be lists of at least one value each and "
            f"std positive, got mean={mean!r}, std={std!r}"
        )


def _repeated(owner: object, argument: str, values: Sequence[float], channels: int) -> list[float]:
    if channels % len(values):
        raise ValueError(
            f"{type(owner).__name__}: {channels} channels are not a multiple of the {len(values)} "
            f"values of {argument}={values!r}"
        )
    return list(values) * (channels // len(values))


@dataclass
class GroupNormalize:
    """Subtract the mean and divide by the standard deviation, channel by channel.

    Attributes:
        mean: repeated over the channels, so that three values serve any number of RGB frames.
        std: likewise; may have another length than `mean`.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        _check_statistics(self, self.mean, self.std)

    def __call__(self, stacked: Tensor) -> Tensor:
        """Normalise a floating-point tensor (channels, H, W) into a new one.

        Raises:
            ValueError: for anything but a floating-point tensor of three dimensions, or where the
                channels are not a multiple of the values of `mean` or `std`.
        """
        if not isinstance(stacked, Tensor) or not stacked.is_floating_point():
            what = getattr(stacked, "dtype", type(stacked).__name__)
            raise ValueError(
                "GroupNormalize: expected a floating-point tensor from ToTorchFormatTensor, got "
                f"{what}"
            )
        if stacked.ndim != 3:
            raise ValueError(
                f"GroupNormalize: expected (channels, H, W), got {tuple(stacked.shape)}"
            )
        mean = _repeated(self, "mean", self.mean, stacked.shape[0])
        std = _repeated(self, "std", self.std, stacked.shape[0])
        subtracted = stacked - stacked.new_tensor(mean).view(-1, 1, 1)
        return subtracted.div_(stacked.new_tensor(std).view(-1, 1, 1))


@dataclass
class ToModelInput:
    """Stack, ToTorchFormatTensor and GroupNormalize in one: the same numbers, written once.

    Attributes:
        mean: in units of `input_range`, repeated over the channels.
        std: likewise.
        input_space: "RGB" or "BGR", the order that RGB frames get; flow is left as it is.
        input_range: what 0 and 255 become before the mean is subtracted.
    """

    mean: Sequence[float]
    std: Sequence[float]
    input_space: str = "RGB"
    input_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check_statistics(self, self.mean, self.std)
        if self.input_space not in ("RGB", "BGR"):
            raise ValueError(
                f"ToModelInput: input_space must be 'RGB' or 'BGR', got {self.input_space!r}"
            )

    def __call__(self, frames: Frames) -> Tensor:
        """Convert a group.

        Args:
            frames: PIL images or a uint8 tensor, see the top of this file.

        Returns:
            A float32 tensor (frames * channels, H, W) on the device of the frames.
        """
        check_frames(self, frames)
        return self.converted([_as_tensor(frames)])

    def converted(self, groups: Sequence[Tensor]) -> Tensor:
        """Convert groups, uint8 tensors of one shape, as if they were joined."""
        n, c, h, w = groups[0].shape
        total = len(groups) * n
        output = _fresh_memory((total, c, h, w), groups[0].device)
        mean, std = (
            output.new_tensor(_repeated(self, name, values, total * c)).view(total, c, 1, 1)
            for name, values in (("mean", self.mean), ("std", self.std))
        )
        roll = self.input_space == "BGR" and not is_flow(groups[0])
        step = _FRAMES_AT_A_TIME if output.device.type == "cpu" else n
        first = 0
        for piece in (piece for group in groups for piece in group.split(step)):
            part = slice(first, first + len(piece))
            for channel in range(c):
                output[part, channel] = piece[:, c - 1 - channel if roll else channel]
            self._normalise(output[part], mean[part], std[part])
            first = part.stop
        return output.flatten(0, 1)

    def _normalise(self, output: Tensor, mean: Tensor, std: Tensor) -> None:
        """((p / 255 * (high - low) + low) - mean) / std in place, without steps of no effect."""
        low, high = self.input_range
        if (low, high) != (0, 255):
            output.div_(255)
            if (low, high) != (0, 1):
                output.mul_(high - low).add_(low)
        if any(self.mean):
            output.sub_(mean)
        if set(self.std) != {1}:
            output.div_(std)


# Presets


@dataclass
class RequireModality:
    """Let frames of the right modality through and refuse others.

    Attributes:
        modality: "RGB" or "RGBDiff" (RGB frames), or "Flow" (u and v in pairs).
    """

    modality: str

    def __post_init__(self) -> None:
        if self.modality not in ("RGB", "Flow", "RGBDiff"):
            raise ValueError(
                f"RequireModality: modality must be 'RGB', 'Flow' or 'RGBDiff', got "
                f"{self.modality!r}"
            )

    def __call__(self, frames: FramesT) -> FramesT:
        """Return `frames` as they are, or raise a ValueError that says what is wanted."""
        check_frames(self, frames)
        got_flow = is_flow(frames)
        if got_flow != (self.modality == "Flow"):
            raise ValueError(
                f"a model of modality {self.modality} got {'flow (or grey)' if got_flow else 'RGB'}"
                " frames; RGB and RGBDiff want images of mode RGB or a tensor of 3 channels, Flow "
                "wants images of mode L or a tensor with 2 channels or 1"
            )
        has_pairs = isinstance(frames, Tensor) and frames.shape[1] == 2
        if got_flow and not has_pairs and len(frames) % 2:
            raise ValueError(
                f"flow must come in pairs u0, v0, u1, v1, ...; got {len(frames)} images"
            )
        return frames


class _Model(Protocol):
    """What the presets need to know about a model."""

    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def modality(self) -> str: ...


def _to_model_input(model: _Model) -> ToModelInput:
    expected = model.preprocessing
    mean, std = expected.mean, expected.std
    if model.modality == "RGBDiff":
        # As in tsn-pytorch: the network takes differences of frames itself. A mean would cancel out
        # in them, and a deviation of frames is not one of differences, so its first convolution
        # was trained on differences of plain values.
        mean, std = (0.0,), (1.0,)
    return ToModelInput(mean, std, expected.input_space, expected.input_range)


@dataclass
class _EvaluationTransform:
    """Frames to the input for evaluation; images become a tensor as soon as they are scaled."""

    modality: RequireModality
    scale: GroupScale
    crop: _GroupTransform
    to_input: ToModelInput

    def __call__(self, frames: Frames) -> Tensor:
        if isinstance(frames, Tensor):
            scaled = self.scale(self.modality(frames))
        else:
            scaled = _as_tensor(self.scale(self.modality(frames)))
        return self.to_input.converted(self.crop.crops(scaled))


def evaluation_transform(model: _Model, crop_count: int = 1) -> Callable[[Frames], Tensor]:
    """What turns frames into input for evaluating `model`, by the model's own preprocessing.

    Args:
        model: any model of this library.
        crop_count: 1, the centre; 3, left, right and centre at the full height `scale_size`;
            10, corners and centre with their mirror images.

    Returns:
        A callable that takes a list of PIL images or a uint8 tensor (see the top of this file) and
        returns a float32 tensor (crops * frames * channels, H, W). With a batch axis,
        `model(x.unsqueeze(0))`, it gives one prediction per crop.

    Raises:
        ValueError: for another `crop_count`, or an unknown `model.modality`.

    Example:
        >>> transform = evaluation_transform(model, crop_count=10)
        >>> verbs, nouns = model(transform(frames).unsqueeze(0))  # (10, 125), (10, 352)
    """
    crop, scale = model.preprocessing.input_size, model.preprocessing.scale_size
    crops: dict[int, _GroupTransform] = {
        1: GroupCenterCrop(crop),
        3: GroupFullResSample(scale, None, flip=False),
        10: GroupOverSample(crop),
    }
    if isinstance(crop_count, bool | float) or crop_count not in crops:
        raise ValueError(f"crop_count must be 1, 3 or 10, got {crop_count!r}")
    return _EvaluationTransform(
        RequireModality(model.modality),
        GroupScale(scale),
        crops[crop_count],
        _to_model_input(model),
    )


def training_transform(model: _Model, *, flip: bool = True) -> Callable[[Frames], Tensor]:
    """What turns frames into input for training `model`: random crops and flips of tsn-pytorch.

    Args:
        model: any model of this library.
        flip: whether to mirror half of the clips. Mirrored, "move left" looks like "move right":
            False where such directions are labels.

    Returns:
        A callable like that of `evaluation_transform`, with one random crop: float32 (frames *
        channels, H, W). Draws come from torch's global generator.

    Raises:
        ValueError: for an unknown `model.modality`.
    """
    scales = _RGB_SCALES if model.modality == "RGB" else _MOTION_SCALES
    transform: Callable[[Frames], Tensor] = Compose(
        [
            RequireModality(model.modality),
            GroupMultiScaleCrop(model.preprocessing.input_size, scales),
            *([GroupRandomHorizontalFlip(is_flow=model.modality == "Flow")] if flip else []),
            _to_model_input(model),
        ]
    )
    return transform
