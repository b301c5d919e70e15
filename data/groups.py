"""Groups of frames in either form: checked, cropped, resized, mirrored.

A group is a list of PIL images or a uint8 tensor, as `transforms` describes them; what is done to
either gives the same pixels.
"""

import operator
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

__all__ = [
    "Frames",
    "FramesT",
    "Size",
    "check_frames",
    "crop",
    "is_flow",
    "join",
    "mirror",
    "randint",
    "resize",
    "resize_short_side",
    "slack",
    "to_hw",
    "uniform",
    "width_height",
]

Frames = list[Image.Image] | Tensor
"""A list of PIL images, or a uint8 tensor (frames, channels, H, W); see the top of this file."""

_FAST = ("AVX2", "AVX512")
"""Instruction sets for which PyTorch resizes 8-bit pixels without making numbers of them."""

FramesT = TypeVar("FramesT", list[Image.Image], Tensor)
Size = int | Sequence[int]


def check_frames(owner: object, frames: object) -> None:
    """Refuse what is not frames, in the name of the transform `owner`."""
    name = type(owner).__name__
    if isinstance(frames, Tensor):
        if frames.dtype != torch.uint8:
            raise ValueError(f"{name}: a tensor of frames must be uint8, got {frames.dtype}")
        if frames.layout != torch.strided:
            raise ValueError(f"{name}: a tensor of frames must be dense, got {frames.layout}")
        if frames.ndim != 4 or frames.shape[1] not in (1, 2, 3) or 0 in frames.shape:
            last = frames.ndim == 4 and frames.shape[3] in (1, 2, 3)
            remedy = "; frames.permute(0, 3, 1, 2) puts channels first" if last else ""
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
    strangers = {type(frame).__name__ for frame in frames if not isinstance(frame, Image.Image)}
    if strangers:
        raise ValueError(f"{name}: a list of frames must hold PIL images, got {sorted(strangers)}")
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
    """Both sides of `size`; a single number, also in a sequence, stands for both."""
    try:
        sides = [operator.index(side) for side in (size if isinstance(size, Sequence) else (size,))]
    except TypeError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(
            f"{type(owner).__name__}: {argument} must be a positive whole number of pixels or a "
            f"pair of them, got {size!r}"
        )
    return sides[0], sides[-1]


def slack(owner: object, frames: Frames, crop_w: int, crop_h: int) -> tuple[int, int]:
    """How far a crop can move to the right and down; refuses one that does not fit."""
    w, h = width_height(frames)
    if crop_w > w or crop_h > h:
        raise ValueError(
            f"{type(owner).__name__}: a crop of {crop_w}x{crop_h} (width x height) does not fit "
            f"into frames of {w}x{h}; enlarge them first, with GroupScale(size) or scale_size"
        )
    return w - crop_w, h - crop_h


def width_height(frames: Frames) -> tuple[int, int]:
    """Width and height of every frame in pixels."""
    if isinstance(frames, Tensor):
        return frames.shape[-1], frames.shape[-2]
    return frames[0].size


def is_flow(frames: Frames) -> bool:
    """Whether the frames are flow (or grey) rather than RGB."""
    if isinstance(frames, Tensor):
        return frames.shape[1] != 3
    return frames[0].mode == "L"


def crop(frames: FramesT, x: int, y: int, w: int, h: int) -> FramesT:
    """The same rectangle of every frame; of a tensor, a view."""
    if isinstance(frames, Tensor):
        return frames[..., y : y + h, x : x + w]
    return [image.crop((x, y, x + w, y + h)) for image in frames]


def resize(frames: FramesT, w: int, h: int) -> FramesT:
    """Every frame resized, bilinear and antialiased."""
    if (w, h) == width_height(frames):
        return frames
    if isinstance(frames, Tensor):
        fast = frames.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in _FAST
        if fast and frames.shape[1] == 3 and frames.stride(1) != 1:
            return _resize_planes(frames, w, h)
        resized: Tensor = functional.resize(frames, [h, w], antialias=True)
        return resized
    return [image.resize((w, h), Image.Resampling.BILINEAR) for image in frames]


def resize_short_side(frames: FramesT, size: int) -> FramesT:
    """Every frame resized, the shorter side to `size`, the other int(size * longer / shorter)."""
    w, h = width_height(frames)
    longer = int(size * max(w, h) / min(w, h))
    return resize(frames, *((size, longer) if w <= h else (longer, size)))


def _resize_planes(frames: Tensor, w: int, h: int) -> Tensor:
    """What `functional.resize` makes of RGB frames whose channels lie apart, sooner.

    PyTorch's kernel works on pixels of four bytes, and puts such frames together byte by byte.
    Numbers of four bytes do the same with whole registers.
    """
    pixels = torch.empty(frames.shape[-2:], dtype=torch.int32)
    # The same memory as (4, H, W): on these processors the lowest byte, red, comes first.
    channels = pixels.view(torch.uint8).unflatten(-1, (-1, 4)).permute(2, 0, 1)
    resized = frames.new_empty((*frames.shape[:2], h, w))
    for (red, green, blue), output in zip(frames, resized, strict=True):
        pixels.copy_(blue).mul_(256).add_(green).mul_(256).add_(red)
        output.copy_(functional.resize(channels, [h, w], antialias=True)[:3])
    return resized


def mirror(frames: FramesT, invert_u: bool) -> FramesT:
    """Every frame flipped left to right; `invert_u` turns the horizontal motion round as well."""
    if isinstance(frames, Tensor):
        flipped = frames.flip(-1)
        if invert_u:
            u = flipped[:, 0] if flipped.shape[1] == 2 else flipped[::2]
            u.copy_(255 - u)
        return flipped
    mirrored = [ImageOps.mirror(image) for image in frames]
    if invert_u:
        mirrored[::2] = [ImageOps.invert(image) for image in mirrored[::2]]
    return mirrored


def join(groups: list[FramesT]) -> FramesT:
    """Several groups as one."""
    first = groups[0]
    if isinstance(first, Tensor):
        return torch.cat(groups)
    return [image for group in groups for image in group]


def randint(count: int) -> int:
    """A random integer from 0 to count - 1, from the CPU's generator whatever holds the frames."""
    return int(torch.randint(count, (), device="cpu"))


def uniform(low: float, high: float) -> float:
    """A random number, from the CPU's generator whatever holds the frames."""
    return float(torch.empty((), device="cpu").uniform_(low, high))
