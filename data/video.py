"""Clips from video files, folders of images, tars and arrays: `open_frames` and `load_clip`.

Every source has `len(source)` and `source.read(indices)`, so that no other code asks how a clip is
stored. `load_clip` reads the frames that TSN (arXiv:1608.00859) and its relatives sample; the
formulas are in `data.sampling`.

- A whole video: `for block in open_frames("clip.mp4").blocks(64)` decodes each frame once and
  keeps 64 of them in memory.
- By file number: `load_clip(folder, ..., start=101, stop=250, by_number=True)`, or
  `source.index_of(101)`. Without it, `start` and `stop` are indices, and 0 is the lowest number.
- By time: `VideoFile("clip.mp4").index_at(seconds)` is the index of the frame shown then.

How EPIC-KITCHENS stores its clips:

- RGB frames `PXX/PXX_YY/frame_%010d.jpg`, numbered from 1, 60 per second (videos `PXX_1YY`: 50).
- Flow `PXX/PXX_YY/{u,v}/frame_%010d.jpg`, 8 bits, 128 for no motion. It has every second RGB frame
  (stride 2) in the videos of 2018, every frame (stride 1) in `PXX_1YY`: RGB number f is flow number
  (f - 1) // stride + 1.
- The downloads `PXX/rgb_frames/PXX_YY.tar` and `PXX/flow_frames/PXX_YY.tar` hold the same files.
- Annotated frame numbers are int(60 t) (`PXX_1YY`: int(50 t)) of the time t in seconds, whatever
  the frame rate of the video file (29.97, 47.952, 59.94 and 90 occur). They are the file numbers of
  the frames; `data.frame_times` finds them in a video file, `data.dataset` in any of these.
"""

import io
import os
import re
import stat
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data.archives import is_tar
from data.arrays import FrameArray, FrameImages
from data.frames import FLOW_LAYOUTS, RGB_LAYOUTS, FrameSource
from data.images import FlowFolder, FrameFolder, get_image_folders
from data.options import MODALITIES, default_length, one_of, positive_integer
from data.sampling import segment_indices
from data.video_file import VideoFile
from data.views import FrameRange, ResizedFrames, select

__all__ = [
    "Clip",
    "FlowFolder",
    "FrameArray",
    "FrameFolder",
    "FrameImages",
    "FrameRange",
    "FrameSource",
    "VideoFile",
    "keep_sources",
    "load_clip",
    "open_frames",
]

Clip: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | BinaryIO
    | FrameSource
    | Tensor
    | NDArray[Any]
    | Sequence[Image.Image]
)
"""What `open_frames` takes: a path, a file object or its bytes, a source, or frames in memory."""

_LAYOUTS = {3: RGB_LAYOUTS, 2: FLOW_LAYOUTS}


def open_frames(
    clip: Clip, modality: str = "RGB", *, short_side: int | None = None, strict: bool = False
) -> FrameSource:
    """Open a clip, however it is stored.

    A path is opened once: while the file or folder is unchanged, later calls return the same source
    (a process keeps the last 16, or as many as `keep_sources` says). Threads may share a source.

    Args:
        clip: path of a video file, of a folder of images or of a tar of them; a seekable binary
            file object, or bytes, of a video or tar, which is read from its beginning; a uint8
            array or tensor; a list of PIL images; or a `FrameSource`, which is returned as it is.
        modality: "RGB", "Flow" or "RGBDiff" (which reads RGB frames), in any case.
        short_side: resize every frame as it is read, so that its shorter side has this many pixels,
            as evaluation does. With a model's `preprocessing.scale_size` its input stays the same,
            in less memory. None: frames as they are.
        strict: whether reading a frame of a video file that cannot be decoded is a ValueError. By
            default it shows the frame before it, as in a player.

    Returns:
        A source with 3 channels, or 2 for flow. `read(indices)` reads frames by index,
        `blocks(size)` all of them in order; images have `numbers` and `index_of(number)`, a
        `VideoFile` has `index_at(seconds)`.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if the clip cannot be read as one of this modality.
        ImportError: for a video file, if PyAV is not installed.

    Example:
        >>> import torch
        >>> clip = torch.zeros(40, 3, 256, 456, dtype=torch.uint8)  # or "clip.mp4"
        >>> source = torch.hub.load(".", "open_frames", clip, source="local")
        >>> len(source), source.read([0, 10]).shape
        (40, torch.Size([2, 3, 256, 456]))
        >>> [len(block) for block in source.blocks(16)]
        [16, 16, 8]
    """
    source = _open(clip, modality, strict)
    return source if short_side is None else ResizedFrames(source, short_side)


def keep_sources(count: int) -> None:
    """Set how many of the last opened paths this process, and processes forked from it, keep.

    Clips in random order, as in training, would otherwise open their video anew each time. What is
    kept takes some 30 bytes for each frame of a video file, and 80 for each image of a folder.

    Args:
        count: number of sources. Those that are open are closed.
    """
    global _open_version
    _open_version = lru_cache(count)(_open_version.__wrapped__)


def _open(clip: Clip, modality: str, strict: bool) -> FrameSource:
    channels = MODALITIES[one_of("modality", modality, MODALITIES)]
    if isinstance(clip, FrameSource):
        if clip.channels != channels:
            raise ValueError(
                f"modality {modality!r} needs frames of {channels} channels, but {clip.name} has "
                f"{clip.channels}"
            )
        return clip
    if isinstance(clip, np.ndarray | Tensor):
        return FrameArray(clip, channels)
    if isinstance(clip, list | tuple):
        return FrameImages(clip, channels)
    if isinstance(clip, str | os.PathLike):
        return _open_path(clip, channels, strict)
    if isinstance(clip, bytes):
        clip = io.BytesIO(clip)
    if not (hasattr(clip, "read") and hasattr(clip, "seek")):
        raise ValueError(f"clip must be {_LAYOUTS[channels]}, got a {type(clip).__name__}")
    _check_file_object(clip)
    return _open_file(clip, channels, strict)


def _open_path(path: str | os.PathLike[str], channels: int, strict: bool) -> FrameSource:
    """Open a file or a folder, unless it is open and unchanged."""
    # Flow: links stay, since the folders of u and v are found beside the path that was given.
    full_path = os.path.realpath(path) if channels == 3 else str(Path(path).absolute())
    folders = get_image_folders(full_path, channels)
    if not folders:
        if re.match(r"\w{2,}:/", str(path)):
            raise ValueError(
                f"clip must be {_LAYOUTS[channels]}, got the URL {path}: download it, and give "
                f"the path of the file"
            )
        raise FileNotFoundError(f"{path}: no such file or folder")
    return _open_version(full_path, channels, strict, tuple(map(_get_version, folders)))


def _get_version(path: str) -> tuple[int, ...]:
    """Return numbers that change when a file, or the list of files in a folder, does."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path}: is no regular file or folder")
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


@lru_cache(maxsize=16)
def _open_version(
    path: str, channels: int, strict: bool, versions: tuple[tuple[int, ...], ...]
) -> FrameSource:
    """Open a file or a folder; `versions` is a key of the cache alone."""
    if os.path.isfile(path):
        return _open_file(path, channels, strict)
    return FrameFolder(path) if channels == 3 else FlowFolder(path)


def _open_file(file: Any, channels: int, strict: bool) -> FrameSource:
    """Open a file, given its path or a binary file object."""
    if is_tar(file):
        return FrameFolder(file) if channels == 3 else FlowFolder(file)
    if channels == 2:
        raise ValueError(
            f"{file}: a flow model cannot read a video: flow must be computed beforehand; accepted "
            f"are {FLOW_LAYOUTS}"
        )
    return VideoFile(file, strict=strict)


def _check_file_object(file: Any) -> None:
    """Raise ValueError unless a file object is open, binary and seekable."""
    if getattr(file, "closed", False):
        raise ValueError(f"clip must be an open file, got {file!r}, which is closed")
    if hasattr(file, "seekable") and not file.seekable():
        raise ValueError(f"clip must be a seekable file, got {file!r}: give its bytes, file.read()")
    if not isinstance(file.read(0), bytes):
        raise ValueError(f"clip must be a binary file, got {file!r}: open it with mode 'rb'")


def load_clip(
    clip: Clip,
    *,
    num_segments: int,
    new_length: int | None = None,
    modality: str = "RGB",
    mode: str = "test",
    generator: torch.Generator | None = None,
    start: int | None = None,
    stop: int | None = None,
    by_number: bool = False,
) -> Tensor:
    """Load the frames of a clip that a model sees.

    Args:
        clip: see `open_frames`.
        num_segments: T, the model's.
        new_length: L, the model's; None: the models' default, 1 for RGB and 5 otherwise. RGBDiff
            reads one frame more.
        modality: "RGB", "Flow" or "RGBDiff", in any case.
        mode: how to sample, see `data.sampling`.
        generator: random generator for the random modes; torch's global one if None.
        start: index of the clip's first frame; 0 if None.
        stop: index after its last frame; the number of frames if None.
        by_number: whether `start` and `stop` are file numbers of images instead of indices, as in
            EPIC-KITCHENS annotations. Sampling then counts missing numbers too, and reads the frame
            before a missing one.

    Returns:
        uint8 tensor (T * L', C, H, W), snippet after snippet, with L' = L, or L + 1 for RGBDiff,
        and C = 3 (RGB), or 2 for flow (u, v). The modes "twice" and "dense-test" return 2 and 10
        times as many frames.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if the clip cannot be read, the range is outside it, or an option is wrong.

    Example:
        >>> import torch
        >>> clip = torch.zeros(40, 3, 256, 456, dtype=torch.uint8)  # or "clip.mp4"
        >>> torch.hub.load(".", "load_clip", clip, num_segments=8, source="local").shape
        torch.Size([8, 3, 256, 456])
    """
    source = select(open_frames(clip, modality), start, stop, by_number)
    modality = one_of("modality", modality, MODALITIES)
    if new_length is None:
        new_length = default_length(modality)
    indices = segment_indices(
        len(source),
        num_segments,
        positive_integer("new_length", new_length) + (modality == "RGBDiff"),
        mode=mode,
        generator=generator,
    )
    return source.read(indices.flatten())
