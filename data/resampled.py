"""Frames of a video file as they are numbered when they are extracted at a constant rate.

EPIC-KITCHENS numbers its frames at 60 per second (videos PXX_1YY: 50), whatever the rate of the
video file: 29.97, 47.952, 50, 59.94 and 90 occur.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.video_file import VideoFile
from data.views import View

__all__ = ["ResampledFrames"]


class ResampledFrames(View):
    """A video file at a constant rate, its frames numbered from 1.

    Number f stands for (f - 1) / rate seconds, and shows the last frame that begins before half a
    period later, as FFmpeg's filter fps rounds: frames are repeated or left out. There are as many
    numbers as it extracts images. `ffmpeg -r` differs from the filter by one frame at times, and by
    up to four where it has to leave frames out.

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
        times = video.times
        count = max(round((times[-1] + 1 / (video.fps or rate)) * rate), 1)
        # A frame that begins exactly between two numbers belongs to the later one.
        ends = (np.arange(count) + 0.5) / rate - 1e-9
        self._shown = np.maximum(np.searchsorted(times, ends) - 1, 0)

    def __len__(self) -> int:
        return len(self._shown)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers 1, 2, ..., int64 (frames,)."""
        return np.arange(1, len(self) + 1)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        yield from self._show(indices, self._shown[indices])
