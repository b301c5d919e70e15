"""Synthetic clips, to try things out without a real one: a disc crosses the picture."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.preprocessing import FLOW_ZERO

__all__ = ["make_flow", "make_video"]

_WIDTH, _HEIGHT = 456, 256
_DISC_RADIUS = 50


def _disc(index: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw frame `index` of `count`, and return it with a mask of the disc."""
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    ramp = x * 255 // _WIDTH
    frame = np.stack([ramp, y, 255 - ramp], axis=-1).astype(np.uint8)
    centre = _DISC_RADIUS + (_WIDTH - 2 * _DISC_RADIUS) * index / max(count - 1, 1)
    inside = (x - centre) ** 2 + (y - _HEIGHT / 2) ** 2 < _DISC_RADIUS**2
    frame[inside] = (250, 200, 40)
    return frame, inside


def make_video(path: str | os.PathLike[str], frame_count: int = 60) -> Path:
    """Write a video file, 456 x 256 at 30 frames per second.

    Args:
        path: destination; its ending names the container, such as `.mp4`.
        frame_count: number of frames.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: if PyAV is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("video files need the package av: pip install av") from error
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.bit_rate = 2_000_000
        for index in range(frame_count):
            frame = av.VideoFrame.from_ndarray(_disc(index, frame_count)[0], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def make_flow(folder: str | os.PathLike[str], frame_count: int = 60) -> Path:
    """Write flow images of the same scene into folders u and v: the disc moves to the right.

    Args:
        folder: an existing folder.
        frame_count: number of pairs of images.

    Returns:
        The folder.
    """
    folder = Path(folder)
    for component in ("u", "v"):
        (folder / component).mkdir()
    for index in range(frame_count):
        _, inside = _disc(index, frame_count)
        for component, grey in (("u", FLOW_ZERO + 36), ("v", FLOW_ZERO)):
            image = np.where(inside, grey, FLOW_ZERO).astype(np.uint8)
            name = f"frame_{index + 1:010d}.jpg"
            Image.fromarray(image).save(folder / component / name)
    return folder
