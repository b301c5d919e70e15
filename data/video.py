"""Where frames come from: video files, folders of images, arrays; and the frames of one clip.

Every source answers `len(source)` and `source.read(indices)`, so that models, data sets and the
predictor never ask what a clip is stored as. `load_clip` joins a source with the sampling of TSN
(arXiv:1608.00859) and its relatives, whose formulas are in `data.sampling`.

How EPIC-KITCHENS stores its clips:
- RGB frames `PXX/PXX_YY/frame_%010d.jpg`, numbered from 1, 60 per second (videos `PXX_1YY`: 50).
- Flow `PXX/PXX_YY/{u,v}/frame_%010d.jpg`, 8 bits, 128 meaning no motion; every second RGB frame in
  the videos of 2018 and every frame in `PXX_1YY`, so RGB number f is flow number
  (f - 1) // stride + 1.
- Labelled frame numbers are int(60 t) (`PXX_1YY`: int(50 t)) of the time t in seconds, whatever
  the rate of the video file (29.97, 47.95, 59.94 and 90 occur). In a folder of frames, number f is
  index f - 1; in a video file it is `VideoFile.index_at(f / 60)`.
"""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data.frames import FLOW_LAYOUTS, RGB_LAYOUTS, FrameRange, FrameSource
from data.images import FlowFolder, FrameArray, FrameFolder, FrameImages
from data.options import MODALITIES, default_length, one_of, positive_integer
from data.sampling import segment_indices
from data.video_file import VideoFile

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
    str | os.PathLike[str] | FrameSource | Tensor | NDArray[Any] | Sequence[Image.Image]
)
"""What `open_frames` takes: a path, a source, or frames in memory."""


def open_frames(clip: Clip, modality: str = "RGB") -> FrameSource:
    """The frames of a clip, whatever it is stored as.

    Args:
        clip: path of a video file or of a folder of images, a uint8 array or tensor, a list of PIL
            images, or a `FrameSource`, which is returned as it is.
        modality: "RGB", "Flow" or "RGBDiff" (which reads RGB frames), in any case.

    Returns:
        A source with 3 channels, or 2 for flow.

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
    """
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
    layouts = RGB_LAYOUTS if channels == 3 else FLOW_LAYOUTS
    if not isinstance(clip, str | os.PathLike):
        raise ValueError(f"clip must be {layouts}, got a {type(clip).__name__}")
    if not os.path.exists(clip):
        if "://" in str(clip):
            raise ValueError(
                f"clip must be {layouts}, got the address {clip}: download it, and give the path "
                f"of the file"
            )
        raise FileNotFoundError(f"{clip}: no such file or folder")
    if os.path.isdir(clip):
        return FrameFolder(clip) if channels == 3 else FlowFolder(clip)
    if channels == 2:
        raise ValueError(
            f"{clip}: a flow model cannot read a single file, since flow must be computed "
            f"beforehand; accepted are {FLOW_LAYOUTS}"
        )
    return VideoFile(clip)


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
    source = open_frames(clip, modality)
    if start is not None or stop is not None:
        source = FrameRange(source, start or 0, stop)
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
