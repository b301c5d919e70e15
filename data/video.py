"""Where frames come from: video files, folders of images, arrays; and the frames of one clip.

Every source answers `len(source)` and `source.read(indices)`, so that models, data sets and the
predictor never ask what a clip is stored as. `load_clip` joins a source with the sampling of TSN
(arXiv:1608.00859) and its relatives, whose formulas are in `data.sampling`.

- Over a whole video: `for block in open_frames("clip.mp4").blocks(64)` decodes each frame once and
  keeps 64 of them.
- By file number: `load_clip(folder, ..., start=101, stop=250, by_number=True)`, or
  `source.index_of(101)`. `start` and `stop` are indices otherwise: index 0 is the lowest number.
- By time: `VideoFile("clip.mp4").index_at(seconds)` is the index of the frame on the screen.

How EPIC-KITCHENS stores its clips:
- RGB frames `PXX/PXX_YY/frame_%010d.jpg`, numbered from 1, 60 per second (videos `PXX_1YY`: 50).
- Flow `PXX/PXX_YY/{u,v}/frame_%010d.jpg`, 8 bits, 128 meaning no motion; every second RGB frame in
  the videos of 2018 and every frame in `PXX_1YY`, so RGB number f is flow number
  (f - 1) // stride + 1.
- As downloaded, `PXX/rgb_frames/PXX_YY.tar` and `PXX/flow_frames/PXX_YY.tar` hold the same files.
- Labelled frame numbers are int(60 t) (`PXX_1YY`: int(50 t)) of the time t in seconds, whatever
  the rate of the video file (29.97, 47.95, 59.94 and 90 occur). In frames they are file numbers; in
  a video file, number f is `VideoFile.index_at(f / 60)`.
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


def open_frames(clip: Clip, modality: str = "RGB", *, short_side: int | None = None) -> FrameSource:
    """The frames of a clip, whatever it is stored as.

    A path is opened once: while the file or the folder is unchanged, the source that a process
    opened before is returned (the last 16 are kept). Sources may be shared between threads.

    Args:
        clip: path of a video file, of a folder of images or of a tar of them; a seekable binary
            file object, or bytes, of a video or tar, which is read from its beginning; a uint8
            array or tensor; a list of PIL images; or a `FrameSource`, which is returned as it is.
        modality: "RGB", "Flow" or "RGBDiff" (which reads RGB frames), in any case.
        short_side: resize every frame as it is read, so that its shorter side has this many pixels,
            as evaluation does: with a model's `preprocessing.scale_size` its input is the same, and
            large frames need not fit into memory together. None: frames as they are.

    Returns:
        A source with 3 channels, or 2 for flow. `read(indices)` gives frames by index,
        `blocks(size)` all of them in turn; images have `numbers` and `index_of(number)`, and a
        `VideoFile` has `index_at(seconds)`.

    Raises:
        FileNotFoundError: for a path where there is nothing.
        ValueError: for anything that cannot be read as a clip of this modality.
        ImportError: for a video file, if PyAV is not installed.

    Example:
        >>> import torch
        >>> from data.video import open_frames
        >>> source = open_frames(torch.zeros(40, 3, 256, 456, dtype=torch.uint8))  # or "clip.mp4"
        >>> len(source), source.read([0, 10]).shape
        (40, torch.Size([2, 3, 256, 456]))
        >>> [len(block) for block in source.blocks(16)]
        [16, 16, 8]
    """
    source = _open(clip, modality)
    return source if short_side is None else ResizedFrames(source, short_side)


def _open(clip: Clip, modality: str) -> FrameSource:
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
        return _open_path(clip, channels)
    if isinstance(clip, bytes):
        clip = io.BytesIO(clip)
    if not (hasattr(clip, "read") and hasattr(clip, "seek")):
        raise ValueError(f"clip must be {_LAYOUTS[channels]}, got a {type(clip).__name__}")
    return _open_file(_checked_file(clip), channels)


def _open_path(path: str | os.PathLike[str], channels: int) -> FrameSource:
    """The source of a file or a folder: the one opened before, unless it has changed since."""
    # Beside a folder of flow others matter, which its real path may be far from.
    place = os.path.realpath(path) if channels == 3 else str(Path(path).absolute())
    folders = get_image_folders(place, channels)
    if not folders:
        if re.match(r"\w{2,}:/", str(path)):
            raise ValueError(
                f"clip must be {_LAYOUTS[channels]}, got the address {path}: download it, and give "
                f"the path of the file"
            )
        raise FileNotFoundError(f"{path}: no such file or folder")
    return _opened(place, channels, tuple(map(_version, folders)))


def _version(path: str) -> tuple[int, ...]:
    """What changes when a file, or the list of a folder's files, does."""
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
def _opened(path: str, channels: int, versions: tuple[tuple[int, ...], ...]) -> FrameSource:
    """The source of a path, whose versions tell the cache when it has changed."""
    if os.path.isfile(path):
        return _open_file(path, channels)
    return FrameFolder(path) if channels == 3 else FlowFolder(path)


def _open_file(file: Any, channels: int) -> FrameSource:
    """The source of a file's path, or of a binary file object."""
    if is_tar(file):
        return FrameFolder(file) if channels == 3 else FlowFolder(file)
    if channels == 2:
        raise ValueError(
            f"{file}: a flow model cannot read a video, since flow must be computed beforehand; "
            f"accepted are {FLOW_LAYOUTS}"
        )
    return VideoFile(file)


def _checked_file(file: Any) -> Any:
    """A file object, refused unless it is open, binary and seekable."""
    if getattr(file, "closed", False):
        raise ValueError(f"clip must be an open file, got {file!r}, which is closed")
    if hasattr(file, "seekable") and not file.seekable():
        raise ValueError(f"clip must be a seekable file, got {file!r}: give its bytes, file.read()")
    if not isinstance(file.read(0), bytes):
        raise ValueError(f"clip must be a binary file, got {file!r}: open it with mode 'rb'")
    return file


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
    """The frames of a clip that a model sees; no others are kept in memory.

    Args:
        clip: see `open_frames`.
        num_segments: T, the model's.
        new_length: L, the model's; None: as models have it, 1 for RGB and 5 otherwise. RGBDiff
            reads one frame more.
        modality: "RGB", "Flow" or "RGBDiff", in any case.
        mode: how to sample, see `data.sampling`.
        generator: what random modes draw from; torch's global one if None.
        start: index of the first frame that belongs to the clip; 0 if None.
        stop: index behind the last one; the number of frames if None.
        by_number: whether `start` and `stop` are file numbers of images instead, as labels of
            EPIC-KITCHENS have them. All numbers from the first to the last can then be sampled; one
            that is missing shows the frame before it.

    Returns:
        uint8 tensor (T * L', C, H, W), snippet after snippet, with L' = L, or L + 1 for RGBDiff,
        and C = 3 (RGB), or 2 for flow (u, v). The modes "twice" and "dense-test" give twice and
        ten times as many frames.

    Raises:
        FileNotFoundError: for a path where there is nothing.
        ValueError: for a clip that cannot be read, a range outside it, and wrong options.

    Example:
        >>> import torch
        >>> from data.video import load_clip
        >>> frames = torch.zeros(40, 3, 256, 456, dtype=torch.uint8)
        >>> load_clip(frames, num_segments=8).shape
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
