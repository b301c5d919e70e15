"""Frames in memory: arrays, tensors, and lists of PIL images."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from data.frames import FrameSource, size_of

__all__ = ["FrameArray", "FrameImages", "concat_flow", "image_tensor"]


class FrameArray(FrameSource):
    """Frames in a uint8 NumPy array or tensor; those of a tensor stay on its device.

    Args:
        frames: uint8, (frames, C, H, W) or (frames, H, W, C). Where both could be meant (H or W
            equals C), channels come first.
        channels: C, 3 for RGB, 2 for flow.

    Raises:
        ValueError: for another dtype or shape, or no frames.
    """

    def __init__(self, frames: NDArray[Any] | Tensor, channels: int = 3) -> None:
        self.name = "array of frames"
        self.channels = channels
        shape = tuple(frames.shape)
        if isinstance(frames, Tensor) and frames.layout != torch.strided:
            raise ValueError(f"clip must be a dense tensor, got one of layout {frames.layout}")
        if str(frames.dtype).removeprefix("torch.") != "uint8":
            raise ValueError(
                f"clip must be a uint8 array with values 0 ... 255, got {frames.dtype} of shape "
                f"{shape}; convert it first (and multiply by 255 where it holds 0 ... 1)"
            )
        if len(shape) != 4 or channels not in (shape[1], shape[3]) or 0 in shape:
            raise ValueError(
                f"clip must be an array (frames, {channels}, H, W) or (frames, H, W, {channels}) "
                f"of at least one frame and pixel, got shape {shape}"
            )
        self._array = frames
        self._channels_last = shape[1] != channels

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            frame = self._array[index]
            if isinstance(
                frame, np.ndarray
            ):  # copied, for it may be read-only or have negative strides
                frame = torch.from_numpy(np.array(frame, order="C"))
            yield index, frame.permute(2, 0, 1) if self._channels_last else frame


class FrameImages(FrameSource):
    """Frames in a list of PIL images: RGB ones, or for flow u, v, u, v, ... of mode L.

    Args:
        images: the list; RGB frames of another mode are converted.
        channels: 3 for RGB, 2 for flow.

    Raises:
        ValueError: for an empty list, things that are no images, or flow not in pairs of mode L.
    """

    def __init__(self, images: Sequence[Image.Image], channels: int = 3) -> None:
        self.name = "list of images"
        self.channels = channels
        self._images = list(images)
        other = next((image for image in images if not isinstance(image, Image.Image)), None)
        if other is not None or not self._images:
            what = "an empty one" if other is None else f"one with a {type(other).__name__}"
            raise ValueError(f"clip must be a list of PIL images, got {what}")
        if channels == 2:
            modes = sorted({image.mode for image in self._images})
            if modes != ["L"] or len(self._images) % 2:
                raise ValueError(
                    "a flow clip must be a list of mode L images u, v, u, v, ..., got "
                    f"{len(self._images)} images of mode {', '.join(modes)}"
                )

    def __len__(self) -> int:
        return len(self._images) // (1 if self.channels == 3 else 2)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            if self.channels == 3:
                image = self._images[index]
                yield index, image_tensor(image, "RGB", str(image))
            else:
                u, v = (
                    image_tensor(image, "L", str(image))
                    for image in self._images[2 * index : 2 * index + 2]
                )
                yield index, concat_flow(u, v, self.name)


def image_tensor(source: Image.Image | str | BinaryIO, mode: str, name: str) -> Tensor:
    """Return an image or image file as a uint8 tensor (C, H, W), of mode "RGB" or "L".

    RGB files are turned upright (EXIF); flow and images in memory stay as they are.

    Raises:
        ValueError: if it is no 8-bit image that can be read; `name` says which one.
    """
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        if image.mode[0] in "IF":  # converting would clip, not scale
            raise ValueError(f"has mode {image.mode}")
        if image is not source and mode == "RGB":
            image = _upright(image)
        pixels = np.array(image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: not an 8-bit image that can be read ({error})") from error
    # (H, W) or (H, W, 3) -> (C, H, W)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def _upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF data say."""
    image.load()
    with suppress(SyntaxError):  # damaged EXIF, beside pixels that are sound
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return ImageOps.exif_transpose(image)
    return image


def concat_flow(u: Tensor, v: Tensor, name: str) -> Tensor:
    """Return u and v, each (1, H, W), as one frame of flow (2, H, W).

    Raises:
        ValueError: if they differ in size; `name` says where they are from.
    """
    if u.shape != v.shape:
        raise ValueError(f"{name}: u is {size_of(u)} and v {size_of(v)} pixels (width x height)")
    return torch.cat((u, v))
