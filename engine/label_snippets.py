"""The snippets of a file or of a live source, as a stream sees them: one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.frames import FrameSource
from data.functional import resize
from data.live import LiveFrame
from data.live_times import LiveTimes
from data.video_file import VideoFile
from data.views import FrameSelection
from data.windows import Windows
from snippets import get_crops
from tsn import TSN

__all__ = ["TimedSnippet", "choose_frames", "file_snippets", "frame_borders", "live_snippets"]


class TimedSnippet(NamedTuple):
    """A snippet, and the time for which what it shows counts.

    Attributes:
        start: seconds from the first frame of the video.
        stop: likewise; of a live source, whose next snippet has not come yet, what its rate lets
            expect.
        inputs: float (crops, L'*C, H, W) on the model's device, L' `frames_per_snippet`.
    """

    start: float
    stop: float
    inputs: Tensor


def frame_borders(source: FrameSource, fps: float | None) -> NDArray[np.float64]:
    """Return the seconds at which frames begin, and the last one ends, float64 (frames + 1,).

    Args:
        source: the video.
        fps: frames per second of images; video files know theirs.

    Raises:
        ValueError: if they are not known.
    """
    if isinstance(source, VideoFile):
        times, fps = source.times, source.fps or 1.0
    elif fps is None:
        raise ValueError(
            f"{source.name}: its images have no times: give their RGB frames a second (fps; on the "
            f"command line --fps)"
        )
    else:
        numbers = np.arange(len(source)) if source.numbers is None else source.numbers
        times = (numbers - numbers[0]) / fps
    return np.append(times, times[-1] + 1 / fps)


def choose_frames(borders: NDArray[np.float64], rate: float) -> NDArray[np.int64]:
    """Return the indices of a video's frames that a live source would give at a rate, int64.

    Args:
        borders: as `frame_borders` returns them.
        rate: at most so many frames a second.
    """
    is_due = LiveTimes(rate).is_due
    return np.flatnonzero([is_due(seconds) for seconds in borders[:-1].tolist()])


def file_snippets(
    model: TSN,
    source: FrameSource,
    borders: NDArray[np.float64],
    rate: float,
    *,
    crop_count: int,
) -> Iterator[TimedSnippet]:
    """Yield the snippets of a video that begin at a rate, as far as they fit.

    Args:
        model: decides about L' and the preprocessing.
        source: the video, its frames resized for the model.
        borders: as `frame_borders` returns them.
        rate: at most so many snippets a second.
        crop_count: 1, 3 or 10.
    """
    length, to_inputs = model.frames_per_snippet, _to_inputs(model, crop_count)
    starts = choose_frames(borders, rate)
    starts = starts[: max(int(np.searchsorted(starts, len(source) - length, side="right")), 1)]
    edges = np.append(borders[starts], borders[-1]).tolist()
    offsets = np.arange(length).clip(max=len(source) - 1)  # a shorter video repeats its last frame
    frames, windows = Windows.over(len(source), starts, offsets)
    snippets = windows.gather(FrameSelection(source, frames).blocks(1), 1)
    for (start, stop), snippet in zip(pairwise(edges), snippets, strict=True):
        yield TimedSnippet(start, stop, to_inputs(snippet[0]))


def live_snippets(
    model: TSN, frames: Iterable[LiveFrame], rate: float, *, crop_count: int
) -> Iterator[TimedSnippet]:
    """Yield the snippets of a live source that end at a rate.

    Args:
        model: decides about L' and the preprocessing.
        frames: as they come, at this rate or, for snippets of several frames, all of them.
        rate: at most so many snippets a second.
        crop_count: 1, 3 or 10.
    """
    length, to_inputs = model.frames_per_snippet, _to_inputs(model, crop_count)
    short_side = [model.preprocessing.scale_size]
    held: deque[Tensor] = deque(maxlen=length)
    times = LiveTimes(rate)
    for frame in frames:
        is_due = times.is_due(frame.seconds)
        if is_due or length > 1:
            held.append(resize(frame.image, short_side))
        if is_due and len(held) == length:
            inputs = to_inputs(torch.stack(list(held)))
            yield TimedSnippet(frame.seconds, frame.seconds + 1 / rate, inputs)


def _to_inputs(model: TSN, crop_count: int) -> Callable[[Tensor], Tensor]:
    """Return what turns resized frames, uint8 (L', C, H, W), to inputs (crops, L'*C, H, W)."""
    crops, weights = get_crops(model, crop_count), next(model.parameters())

    def convert(frames: Tensor) -> Tensor:
        inputs = crops(frames.to(weights.device)).to(weights.dtype)
        # (crops*L'*C, H, W) -> (crops, L'*C, H, W)
        crops_apart: Tensor = inputs.unflatten(0, (crop_count, -1))
        return crops_apart

    return convert
