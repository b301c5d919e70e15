"""Functions that group transforms are made of: they check, crop, resize and flip frames.

Frames are a list of PIL images or a uint8 tensor, as `transforms` describes them. Functions take
either form, return the form that they were given, and never write to it.
"""

import operator
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = [
    "Frames",
    "FramesT",
    "Size",
    "check_frames",
    "concat",
    "crop",
    "hflip",
    "is_flow",
    "margin",
    "randint",
    "resize",
    "to_hw",
    "to_tensor",
    "uniform",
    "width_height",
]

Frames = list[Image.Image] | Tensor
"""A list of PIL images, or a uint8 tensor (frames, channels, H, W)."""

FramesT = TypeVar("FramesT", list[Image.Image], Tensor)

Size = int | Sequence[int]
"""Pixels: one number for both sides, or a pair."""


def check_frames(owner: object, frames: object) -> None:
    """Raise a ValueError in the name of the transform `owner` unless `frames` are frames."""
    name = type(owner).__name__
    if isinstance(frames, Tensor):
        if frames.dtype != torch.uint8:
            raise ValueError(f"{name}: a tensor of frames must be uint8, got {frames.dtype}")
        if frames.layout != torch.strided:
            raise ValueError(f"{name}: a tensor of frames must be dense, got {frames.layout}")
        if frames.ndim != 4 or frames.shape[1] not in (1, 2, 3) or 0 in frames.shape:
            channels_last = frames.ndim == 4 and frames.shape[3] in (1, 2, 3)
            remedy = "; frames.permute(0, 3, 1, 2) puts channels first" if channels_last else ""
            raise ValueError(
                f"{name}: expected a tensor of frames (frames, channels, H, W) with 3 channels "
                f"(RGB), 2 (flow u, v) or 1 (flow u and v in turn), got {tuple(frames.shape)}"
                f"{remedy}"
            )
        return
    if not isinstance(frames, list | tuple):
        remedy = "; torch.from_numpy makes a tensor of it" * isinstance(frames, np.ndarray)
        raise ValueError(
            f"{name}: frames must be a list of PIL images or a uint8 tensor (frames, channels, H, "
            f"W), got {type(frames).__name__}{remedy}"
        )
    if not frames:
        raise ValueError(f"{name}: expected at least one frame, got an empty list")
    others = {type(frame).__name__ for frame in frames if not isinstance(frame, Image.Image)}
    if others:
        raise ValueError(f"{name}: a list of frames must hold PIL images, got {sorted(others)}")
    modes = sorted({frame.mode for frame in frames})
    if modes not in (["RGB"], ["L"]):
        raise ValueError(
            f"{name}: all images must have mode RGB, or all mode L (flow), got {modes}; convert "
            "them with image.convert('RGB') or image.convert('L')"
        )
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        raise ValueError(
            f"{name}: all images must have one size, got (width, height) {sizes[0]} and {sizes[1]}"
        )


def to_hw(owner: object, argument: str, size: Size) -> tuple[int, int]:
    """Return both sides of `size`, in its order: a single number stands for both.

    Raises:
        ValueError: for anything but one or two positive integers, in the name of `owner`.
    """
    try:
        sides = [operator.index(side) for side in (size if isinstance(size, Sequence) else (size,))]
    except TypeError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(
            f"{type(owner).__name__}: {argument} must be a positive integer of pixels or a "
            f"pair of them, got {size!r}"
        )
    return sides[0], sides[-1]


def width_height(frames: Frames) -> tuple[int, int]:
    """Return the width and height of the frames in pixels."""
    if isinstance(frames, Tensor):
        return frames.shape[-1], frames.shape[-2]
    return frames[0].size


def margin(owner: object, frames: Frames, crop_w: int, crop_h: int) -> tuple[int, int]:
    """Return how far a crop can move to the right and down.

    Raises:
        ValueError: if the crop is larger than the frames, in the name of `owner`.
    """
    w, h = width_height(frames)
    if crop_w > w or crop_h > h:
        raise ValueError(
            f"{type(owner).__name__}: a crop of {crop_w}x{crop_h} (width x height) does not fit "
            f"into frames of {w}x{h}; enlarge them first, with GroupScale(size) or scale_size"
        )
    return w - crop_w, h - crop_h


def is_flow(frames: Frames) -> bool:
    """Return whether the frames are flow (or grey) rather than RGB."""
    if isinstance(frames, Tensor):
        return frames.shape[1] != 3
    return frames[0].mode == "L"


def crop(frames: FramesT, x: int, y: int, w: int, h: int) -> FramesT:
    """Cut the same rectangle out of every frame; of a tensor, return a view."""
    if isinstance(frames, Tensor):
        return frames[..., y : y + h, x : x + w]
    return [image.crop((x, y, x + w, y + h)) for image in frames]


def resize(frames: FramesT, size: Sequence[int]) -> FramesT:
    """Resize every frame, bilinear and antialiased.

    Args:
        frames: the frames; as a tensor also a single one (channels, H, W).
        size: [height, width], or [shorter side], the longer one being int(shorter side * longer /
            shorter), as for torchvision's Resize.
    """
    if isinstance(frames, Tensor):
        resized: Tensor = F.resize(frames, size, antialias=True)
        return resized
    return [F.resize(image, size, antialias=True) for image in frames]


def hflip(frames: FramesT, invert_u: bool) -> FramesT:
    """Flip every frame left to right.

    Args:
        frames: the frames.
        invert_u: whether they are flow, whose horizontal component then changes its sign: the u
            images (in a list: the even ones) become 255 - p.
    """
    if isinstance(frames, Tensor):
        flipped = frames.flip(-1)
        if invert_u:
            u = flipped[:, 0] if flipped.shape[1] == 2 else flipped[::2]
            u.copy_(255 - u)
        return flipped
    images = [ImageOps.mirror(image) for image in frames]
    if invert_u:
        images[::2] = [ImageOps.invert(image) for image in images[::2]]
    return images


def concat(clips: list[FramesT]) -> FramesT:
    """Put the frames of several clips behind one another; a single one stays as it is."""
    if len(clips) == 1:
        return clips[0]
    if isinstance(clips[0], Tensor):
        return torch.cat(clips)
    return [image for clip in clips for image in clip]


def to_tensor(frames: Frames) -> Tensor:
    """Return the frames as a uint8 tensor (frames, channels, H, W)."""
    if isinstance(frames, Tensor):
        return frames
    # Pixels stay together, (H, W, C), which NumPy copies and PyTorch resizes fastest.
    pixels = np.stack([np.atleast_3d(np.asarray(image)) for image in frames])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def randint(count: int) -> int:
    """Draw an integer from 0 to count - 1, on the CPU whatever the default device is."""
    return int(torch.randint(count, (), device="cpu"))


def uniform(low: float, high: float) -> float:
    """Draw a number between `low` and `high`, on the CPU whatever the default device is."""
    return float(torch.empty((), device="cpu").uniform_(low, high))
