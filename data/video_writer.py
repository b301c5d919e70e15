"""Video files written with PyAV: H.264, or MPEG-4 Part 2 where FFmpeg lacks libx264.

Frames may come at any times. Pixels become YUV 4:2:0 of BT.709, which the file says, so that
players and `data.video_file` show the colours that were given.
"""

import logging
import os
import uuid
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

from data.decoder import import_av
from data.options import one_of
from data.rgb import check_image

__all__ = ["VideoWriter"]

logger = logging.getLogger(__name__)

# AVI stores no times, and encoding WebM's codecs takes many times as long.
_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}

_ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "mpeg4": {"flags": "+qscale", "global_quality": "354"},  # 3 of 31, in units of 1/118
}
"""Encoders in order of preference, with options that leave text sharp."""

_TICK = Fraction(1, 60_000)  # seconds: exact for usual rates; MPEG-4 admits no less than 1/65535
_MIN_DISTANCE = 60  # ticks between frames: Matroska rounds times to 1 ms
_MAX_DISTANCE = 3600  # seconds: MP4 counts the ticks between a few frames with 32 bits


class VideoWriter:
    """A video file that is written frame by frame, whole or not at all.

    The file has a temporary name beside `path` until `close`, or the end of a `with` block, which
    renames it; an older file is then replaced. Where the block ends by an exception, also by
    Ctrl-C, nothing is left. Without frames there is no file.

    Example:
        >>> import torch
        >>> with VideoWriter("out.mp4", rate=25) as writer:
        ...     for _ in range(50):
        ...         writer.write(torch.zeros(3, 256, 456, dtype=torch.uint8))

    Args:
        path: destination, which ends in `.mp4`, `.mov` or `.mkv`.
        rate: frames per second, from 0.001 to 1000, of frames that come without a time.

    Raises:
        ValueError: if the ending or the rate is another.
        OSError: if there is no such folder, the destination is one, or it cannot be written to.
        ImportError: if PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, rate: float | Fraction) -> None:
        self._path = Path(path)
        container_format = _FORMATS[one_of("the ending of path", self._path.suffix, _FORMATS)]
        if not 0.001 <= rate <= 1000:
            raise ValueError(f"rate must be from 0.001 to 1000 frames per second, got {rate!r}")
        self._rate = Fraction(rate).limit_denominator(1_000_000)
        if self._path.is_dir():
            raise IsADirectoryError(f"expected the name of a file, got a folder: {self._path}")
        if not self._path.parent.is_dir():
            raise FileNotFoundError(f"no such folder: {self._path.parent}")
        self._av = import_av()
        self._partial = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}.partial")
        # FFmpeg's own files would not tell every error of the disk.
        self._file = open(self._partial, "xb")  # noqa: SIM115  # closed by `close` or `_discard`
        self._container = self._av.open(self._file, "w", format=container_format)
        self._stream: Any = None  # added with the first frame, whose size it has
        self._converter = self._av.video.reformatter.VideoReformatter()
        self._size = (0, 0)
        self._last_seconds = self._next_seconds = 0.0
        self._last_tick = -_MIN_DISTANCE

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def write(self, image: Tensor, seconds: float | None = None) -> None:
        """Append a frame.

        Args:
            image: uint8 RGB (3, H, W), of the size of the first frame. Where H or W is odd, the
                video repeats the last row or column, since H.264 needs even sizes.
            seconds: when it is shown, from 0, not before the last frame and at most an hour after
                it. Frames less than 1 ms apart are moved apart. None: one frame later than the last
                by `rate`.

        Raises:
            ValueError: if the image, its size or its time is none of these, or the file is closed.
            OSError: if the file cannot be written.
        """
        if self._file.closed:
            raise ValueError(f"{self._path} is closed: no frame can be written any more")
        check_image(image)
        height, width = image.shape[1:]
        if self._stream is None:
            self._stream = self._add_stream(width, height)
        elif (width, height) != self._size:
            raise ValueError(
                f"image must have the size of the first, {self._size[0]} x {self._size[1]} "
                f"(width x height), got {width} x {height}"
            )
        if seconds is None:
            seconds = self._next_seconds
        latest = self._last_seconds + _MAX_DISTANCE
        if not self._last_seconds <= seconds <= latest:
            raise ValueError(
                f"seconds must be from {self._last_seconds}, the time of the frame before, to "
                f"{latest}, got {seconds}"
            )
        self._last_seconds, self._next_seconds = seconds, seconds + float(1 / self._rate)
        self._last_tick = max(round(seconds / _TICK), self._last_tick + _MIN_DISTANCE)
        pixels = image.permute(1, 2, 0).cpu().numpy()  # (3, H, W) -> (H, W, 3)
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        colours = self._av.video.reformatter
        frame = self._converter.reformat(
            frame,
            format="yuv420p",
            dst_colorspace=colours.Colorspace.ITU709,
            dst_color_range=colours.ColorRange.MPEG,
            threads=1,  # a scaler with threads of its own would hang a forked process
        )
        frame.pts, frame.time_base = self._last_tick, _TICK
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name; afterwards, do nothing.

        Raises:
            OSError: if the file cannot be written; then nothing is left of it.
        """
        if self._file.closed:
            return
        try:
            if self._stream is None:
                logger.warning("%s: no frame was written, so there is no file", self._path)
            else:
                self._container.mux(self._stream.encode())
                self._container.close()
                # The content must reach the disk before the name does, or a crash leaves neither.
                self._file.flush()
                os.fsync(self._file.fileno())
                os.replace(self._partial, self._path)
        finally:
            self._discard()

    def _discard(self) -> None:
        """Close everything, and remove the file unless it has its name."""
        with suppress(Exception):  # it would hide the error that led here
            self._container.close()
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _add_stream(self, width: int, height: int) -> Any:
        codec = next(name for name in _ENCODERS if name in self._av.codecs_available)
        stream = self._container.add_stream(codec, rate=self._rate, options=_ENCODERS[codec])
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = _TICK
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # of video: 16 to 235
        self._size = width, height
        return stream
