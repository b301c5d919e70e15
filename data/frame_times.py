"""Which frames of a video file belong to frame numbers, or to seconds.

EPIC-KITCHENS numbers its frames at 60 per second (videos PXX_1YY: 50), whatever the rate of the
video file: 29.97, 47.952, 50, 59.94 and 90 occur.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.video_file import VideoFile
from data.views import FrameRange, View

__all__ = ["ResampledFrames", "frames_between", "resample"]

_END_TOLERANCE = 1.0
"""Seconds that a segment may end behind the last picture: sound often lasts longer."""


def resample(times: NDArray[np.float64], fps: float, rate: float) -> NDArray[np.int64]:
    """Return the index of the frame that is shown at each step of a constant rate.

    Step k stands for k / rate seconds, and shows the last frame that begins before half a step
    later, as FFmpeg's filter fps rounds: frames are repeated or left out. There are as many steps
    as it extracts images. `ffmpeg -r` differs from the filter by one frame at times, and by up to
    four where it has to leave frames out.

    Args:
        times: when frames begin, in seconds, ascending from 0, float64 (frames,).
        fps: frames per second, for how long the last one lasts.
        rate: steps per second.

    Returns:
        int64 (steps,), ascending.
    """
    count = max(int((times[-1] + 1 / fps) * rate + 0.5 + 1e-6), 1)
    # A frame that begins exactly between two steps belongs to the later one.
    ends = (np.arange(count) + 0.5) / rate - 1e-9
    return np.maximum(np.searchsorted(times, ends) - 1, 0)


class ResampledFrames(View):
    """A video file at a constant rate, its frames numbered from 1.

    Number f is step f - 1 of `resample`: it stands for (f - 1) / rate seconds.

    Args:
        video: the video file.
        rate: frames per second; the video's own frames, each once, if None.

    Raises:
        ValueError: if the video has neither timestamps nor a frame rate.
    """

    def __init__(self, video: VideoFile, rate: float | None) -> None:
        super().__init__(video)
        if rate is None:
            self._shown = np.arange(len(video))
            return
        self.fps = rate
        self._shown = resample(video.times, video.fps or rate, rate)

    def __len__(self) -> int:
        return len(self._shown)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers 1, 2, ..., int64 (frames,)."""
        return np.arange(1, len(self) + 1)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        yield from self._show(indices, self._shown[indices])


def frames_between(source: VideoFile, start: float, stop: float) -> FrameRange:
    """Return the frames of a video file from the one shown at a time up to, without, another.

    Args:
        source: the video file.
        start: seconds since the first frame.
        stop: likewise. The frame shown at `start` is there even if it is shown at `stop`, too.

    Raises:
        ValueError: if the video ends before the segment.
    """
    end = float(source.times[-1]) + 1 / (source.fps or 1)
    if start >= end or stop > end + _END_TOLERANCE:
        raise ValueError(f"{source.name}: ends after {end:.2f} seconds, before a segment does")
    first = source.index_at(start)
    last = len(source) if stop >= end else max(source.index_at(stop), first + 1)
    return FrameRange(source, first, last)
