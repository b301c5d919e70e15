"""Frames of image folders, and frames that are in memory already: arrays, tensors, lists."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data.frames import FLOW_LAYOUTS, RGB_LAYOUTS, FrameSource, size_of

__all__ = ["FlowFolder", "FrameArray", "FrameFolder", "FrameImages"]

_IMAGE_NAME = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)\.(?:jpg|jpeg|png)", re.IGNORECASE)
_RGB_PREFIXES = ("frame_", "img_")
_FLOW_PREFIXES = (("x_", "y_"), ("flow_x_", "flow_y_"), ("u_", "v_"))


class FrameFolder(FrameSource):
    """RGB images in one folder, in the order of the numbers that end their names.

    Flow images (x_, y_, ...) beside them are left alone, and names that begin with frame_ or img_
    are preferred to others. Index 0 is the lowest number; gaps between numbers are passed over.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has no numbered RGB images, or several kinds of them.
    """

    channels = 3

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)
        groups = _numbered_images(path)
        flow = [prefix for pair in _FLOW_PREFIXES for prefix in pair if groups.pop(prefix, None)]
        preferred = {prefix: groups[prefix] for prefix in _RGB_PREFIXES if prefix in groups}
        images = _only_group(path, preferred or groups)
        if not images:
            hint = f" (but flow images {flow[0]}*, which modality 'Flow' reads)" if flow else ""
            hint = hint or _hint_of_folders(path)
            raise ValueError(f"{path}: no numbered RGB images{hint}; accepted are {RGB_LAYOUTS}")
        self._files = [images[number] for number in sorted(images)]

    def __len__(self) -> int:
        return len(self._files)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            yield index, _image_tensor(self._files[index], "RGB")


class FlowFolder(FrameSource):
    """Flow images u and v: in sub-folders u/ and v/, or side by side under two prefixes.

    The prefixes are x_ and y_, flow_x_ and flow_y_, or u_ and v_. Values are 8-bit grey levels, 128
    for no motion; images of another mode than L are converted.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has no flow images, or u and v do not have the same numbers.
    """

    channels = 2

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)
        groups = _numbered_images(path)
        layouts = {
            pair: (groups.get(pair[0], {}), groups.get(pair[1], {}))
            for pair in _FLOW_PREFIXES
            if groups.keys() & set(pair)
        }
        folders = [os.path.join(path, half) for half in ("u", "v")]
        if any(os.path.isdir(folder) for folder in folders):
            u, v = (
                _only_group(folder, _numbered_images(folder)) if os.path.isdir(folder) else {}
                for folder in folders
            )
            layouts["u/", "v/"] = u, v
        if not layouts:
            hint = _hint_of_folders(path)
            raise ValueError(f"{path}: no flow images{hint}; accepted is one of: {FLOW_LAYOUTS}")
        if len(layouts) != 1:
            found = " and ".join(f"{u}*, {v}*" for u, v in layouts)
            raise ValueError(f"{path}: has {found}; accepted is one of: {FLOW_LAYOUTS}")

        (((u_name, v_name), (u, v)),) = layouts.items()
        if not u and not v:
            raise ValueError(f"{path}: {u_name} and {v_name} hold no numbered images")
        for name, lost in ((u_name, v.keys() - u.keys()), (v_name, u.keys() - v.keys())):
            if lost:
                numbers = f": {', '.join(map(str, sorted(lost)[:5]))}{', ...' * (len(lost) > 5)}"
                raise ValueError(
                    f"{path}: flow needs u and v of the same numbers, but {u_name}* has {len(u)} "
                    f"images and {v_name}* has {len(v)}; {name}* lacks {len(lost)} numbers{numbers}"
                )
        self._files = [(u[number], v[number]) for number in sorted(u)]

    def __len__(self) -> int:
        return len(self._files)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            u, v = self._files[index]
            yield index, _join_flow(_image_tensor(u, "L"), _image_tensor(v, "L"), u)


def _hint_of_folders(path: str | os.PathLike[str]) -> str:
    """Say which folders inside hold images or flow, for somebody who gave the one around them."""
    inside = sorted(entry.path for entry in os.scandir(path) if entry.is_dir())
    clips = [
        folder
        for folder in inside
        if any(
            _IMAGE_NAME.fullmatch(entry.name) or (entry.name in ("u", "v") and entry.is_dir())
            for entry in os.scandir(folder)
        )
    ]
    if not clips:
        return ""
    others = f" and {len(clips) - 1} more" * (len(clips) > 1)
    return f" (but there are images in {clips[0]}{others}: give the folder of one clip)"


def _numbered_images(folder: str | os.PathLike[str]) -> dict[str, dict[int, str]]:
    """Paths of a folder's images, by lower-case prefix and number."""
    groups: dict[str, dict[int, str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = _IMAGE_NAME.fullmatch(entry.name)
            if name is None or entry.name.startswith(".") or not entry.is_file():
                continue
            group = groups.setdefault(name["prefix"].lower(), {})
            if group.setdefault(int(name["number"]), entry.path) != entry.path:
                other = group[int(name["number"])]
                raise ValueError(f"{entry.path} has the same number as {other}: remove one of them")
    return groups


def _only_group(
    folder: str | os.PathLike[str], groups: dict[str, dict[int, str]]
) -> dict[int, str]:
    """The images of the only prefix; {} if there is none."""
    if len(groups) > 1:
        kinds = ", ".join(f"{prefix}*" for prefix in sorted(groups))
        raise ValueError(f"{folder}: must hold the images of one clip, but has several: {kinds}")
    return next(iter(groups.values()), {})


def _image_tensor(source: str | Image.Image, mode: str) -> Tensor:
    """uint8 tensor (C, H, W) of an image file or an image, converted to mode "RGB" or "L"."""
    try:
        image = Image.open(source) if isinstance(source, str) else source
        if image.mode[0] in "IF":  # converting would clip, not scale
            raise ValueError(f"has mode {image.mode}")
        pixels = np.array(image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: not an 8-bit image that can be read ({error})") from error
    # (H, W) or (H, W, 3) -> (C, H, W)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def _join_flow(u: Tensor, v: Tensor, name: str) -> Tensor:
    """(2, H, W) from two (1, H, W)."""
    if u.shape != v.shape:
        raise ValueError(f"{name}: u is {size_of(u)} and v {size_of(v)} pixels (width x height)")
    return torch.cat((u, v))


class FrameArray(FrameSource):
    """Frames in a uint8 NumPy array or tensor, which stays where it is (frames too: its device).

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
            if isinstance(frame, np.ndarray):  # copied, for it may be read-only or mirrored
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
                yield index, _image_tensor(self._images[index], "RGB")
            else:
                u, v = self._images[2 * index : 2 * index + 2]
                yield index, _join_flow(_image_tensor(u, "L"), _image_tensor(v, "L"), self.name)
