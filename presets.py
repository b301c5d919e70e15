"""Presets: transforms from frames to model input, built from a model's own preprocessing.

They take frames in the forms that `transforms` describes. RGB frames and flow are told apart, and
what the model does not take is refused: wrong input is the most reported cause of low accuracy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import Compose

from data.functional import Frames, FramesT, check_frames, is_flow, to_tensor
from data.preprocessing import Preprocessing
from transforms import (
    GroupCenterCrop,
    GroupFullResSample,
    GroupMultiScaleCrop,
    GroupNormalize,
    GroupOverSample,
    GroupRandomHorizontalFlip,
    GroupScale,
)

__all__ = [
    "CropsToInput",
    "RequireModality",
    "ToModelInput",
    "evaluation_transform",
    "training_transform",
]

_MOTION_SCALES = (1, 0.875, 0.75)
"""Scales of crops for flow and RGB differences; for RGB, GroupMultiScaleCrop's default."""

_CHUNK_SIZE = 4
"""Frames that are converted at a time, so that they stay in the cache between the steps."""


@dataclass
class RequireModality:
    """Check of the modality of frames, which pass unchanged.

    Attributes:
        modality: "RGB" or "RGBDiff" for RGB frames, "Flow" for pairs of u and v.
    """

    modality: str

    def __post_init__(self) -> None:
        if self.modality not in ("RGB", "Flow", "RGBDiff"):
            raise ValueError(
                f"RequireModality: modality must be 'RGB', 'Flow' or 'RGBDiff', got "
                f"{self.modality!r}"
            )

    def __call__(self, frames: FramesT) -> FramesT:
        """Return `frames` as they are.

        Raises:
            ValueError: if they are of another modality, no frames, or flow that is not in pairs.
        """
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


@dataclass
class ToModelInput:
    """Stack, ToTorchFormatTensor and GroupNormalize in one: the same numbers, written once.

    Attributes:
        mean: in units of `input_range`, repeated over the channels.
        std: likewise.
        input_space: "RGB" or "BGR", the order that RGB frames get; flow is left as it is.
        input_range: what 0 and 255 become before the mean is subtracted: (0, 1) or (0, 255).
    """

    mean: Sequence[float]
    std: Sequence[float]
    input_space: str = "RGB"
    input_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        # Both refuse what cannot be.
        GroupNormalize(self.mean, self.std)
        Preprocessing(tuple(self.mean), tuple(self.std), self.input_space, self.input_range)

    def __call__(self, frames: Frames) -> Tensor:
        """Convert frames to a float32 tensor (frames * channels, H, W) on their device."""
        check_frames(self, frames)
        return self.convert([to_tensor(frames)])

    def convert(self, crops: list[Tensor]) -> Tensor:
        """Convert crops, uint8 (frames, C, H, W) of one shape, as if they were one tensor."""
        bgr = self.input_space == "BGR" and not is_flow(crops[0])
        n, c, h, w = crops[0].shape
        n *= len(crops)
        output = _empty_float32((n, c, h, w), crops[0].device)
        mean, std = (
            output.new_tensor(values).view(n, c, 1, 1)
            for values in GroupNormalize(self.mean, self.std).statistics(n * c)
        )
        # Each step in place, so that nothing as large as the output is held twice.
        chunks = [chunk for crop in crops for chunk in crop.split(_CHUNK_SIZE)]
        sizes = [len(chunk) for chunk in chunks]
        for chunk, out, chunk_mean, chunk_std in zip(
            chunks, *(tensor.split(sizes) for tensor in (output, mean, std)), strict=True
        ):
            for channel in range(c):
                out[:, channel] = chunk[:, c - 1 - channel if bgr else channel]
            if self.input_range[1] == 1:
                out.div_(255)
            if any(self.mean):
                out.sub_(chunk_mean)
            if set(self.std) != {1}:
                out.div_(chunk_std)
        return output.flatten(0, 1)


@dataclass
class CropsToInput:
    """Conversion of crops one by one: put behind one another first, they would be copied twice.

    Attributes:
        crop: what makes crops of frames, which images become a tensor for.
        to_input: what converts them.
    """

    crop: GroupCenterCrop | GroupFullResSample | GroupOverSample
    to_input: ToModelInput

    def __call__(self, frames: Frames) -> Tensor:
        """Convert frames to a float32 tensor (crops * frames * channels, H, W)."""
        return self.to_input.convert(self.crop.crops(to_tensor(frames)))


def _empty_float32(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return an uninitialised float32 tensor.

    For the CPU it comes from NumPy, which asks Linux for huge pages. Getting 48 MB in small ones
    takes three times as long as computing ten crops into them.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return torch.empty(shape, dtype=torch.float32, device=device)


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


def evaluation_transform(model: _Model, crop_count: int = 1) -> Callable[[Frames], Tensor]:
    """Return the transform from frames to input for evaluating `model`.

    Args:
        model: any model of this library.
        crop_count: 1, the centre; 3, left, right and centre at the full height `scale_size`;
            10, corners and centre, each as it is and then flipped.

    Returns:
        A callable from frames to a float32 tensor (crops * frames * channels, H, W). With a batch
        axis, `model(x.unsqueeze(0))`, it gives one prediction per crop.

    Raises:
        ValueError: for another `crop_count`, or an unknown `model.modality`.

    Example:
        >>> transform = evaluation_transform(model, crop_count=10)
        >>> verbs, nouns = model(transform(frames).unsqueeze(0))  # (10, 125), (10, 352)
    """
    crop, scale = model.preprocessing.input_size, model.preprocessing.scale_size
    crops: dict[int, GroupCenterCrop | GroupFullResSample | GroupOverSample] = {
        1: GroupCenterCrop(crop),
        3: GroupFullResSample(scale, None, flip=False),
        10: GroupOverSample(crop),
    }
    if isinstance(crop_count, bool | float) or crop_count not in crops:
        raise ValueError(f"crop_count must be 1, 3 or 10, got {crop_count!r}")
    transform: Callable[[Frames], Tensor] = Compose(
        [
            RequireModality(model.modality),
            GroupScale(scale),
            CropsToInput(crops[crop_count], _to_model_input(model)),
        ]
    )
    return transform


def training_transform(model: _Model, *, flip: bool = True) -> Callable[[Frames], Tensor]:
    """Return the transform from frames to input for training `model`, tsn-pytorch's augmentation.

    Args:
        model: any model of this library.
        flip: whether to flip half of the clips. Flipped, "move left" looks like "move right":
            False where such directions are labels.

    Returns:
        A callable from frames to a float32 tensor (frames * channels, H, W) of one random crop.

    Raises:
        ValueError: for an unknown `model.modality`.
    """
    size, flow = model.preprocessing.input_size, model.modality == "Flow"
    rgb = model.modality == "RGB"
    transform: Callable[[Frames], Tensor] = Compose(
        [
            RequireModality(model.modality),
            GroupMultiScaleCrop(size) if rgb else GroupMultiScaleCrop(size, _MOTION_SCALES),
            *([GroupRandomHorizontalFlip(is_flow=flow)] if flip else []),
            _to_model_input(model),
        ]
    )
    return transform
