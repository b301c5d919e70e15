"""Scores along a video file, or a live source as it comes: which way a model can see it.

Networks that see no later frames run as a stream, each frame once. Of a file, all others see
windows; of a live source, TSN, TRN and MTRN are streams too, and what looks ahead sees a window
again and again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.frames import FrameSource
from data.live import LiveFrame
from data.options import positive_integer
from data.read_ahead import ReadAhead
from data.views import FrameSelection, ResizedFrames
from engine.label_rows import (
    ScoredRow,
    every_nth,
    live_window_rows,
    smooth_rows,
    stream_rows,
    window_rows,
)
from engine.label_snippets import TimedSnippet, choose_frames, file_snippets, live_snippets
from engine.smoothing import make_smoothing
from snippets import get_crops
from tsm import TSM
from tsn import TSN

__all__ = ["CLIP_SECONDS", "LabelOptions", "label_file", "label_live", "sees_past_alone"]

CLIP_SECONDS = 2.0
"""What T snippets span by default: half of the actions that EPIC-KITCHENS annotates are shorter."""


@dataclass(frozen=True)
class LabelOptions:
    """Which parts of a video get scores.

    Attributes:
        rate: at most so many frames a second are used, each for a snippet. None: of a file that is
            seen in windows, all; else T / `CLIP_SECONDS`.
        stride: used frames from one that counts to the next.
        window: used frames that a window spans. None: `CLIP_SECONDS` of a file, of a live source or
            where there is a `stride`, T * stride.
        hop: used frames from row to row. None: half a window; of a stream 1.
        crop_count: 1, 3 or 10; outputs are averaged over the crops.
        batch_size: snippets that go through the backbone together.
        smoothing: as `engine.smoothing.make_smoothing` takes it, over windows or, of a stream,
            frames; None for none.

    Raises:
        ValueError: for numbers that are not positive, or another smoothing.
    """

    rate: float | None = None
    stride: int | None = None
    window: int | None = None
    hop: int | None = None
    crop_count: int = 1
    batch_size: int = 16
    smoothing: str | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < np.inf:
            raise ValueError(f"rate must be positive, in frames per second, got {self.rate!r}")
        for name in ("stride", "window", "hop", "batch_size"):
            if (value := getattr(self, name)) is not None:
                positive_integer(name, value)
        if self.smoothing is not None:
            make_smoothing(self.smoothing)

    def live_rate(self, model: TSN) -> float:
        """Return how many frames a second a stream uses at most."""
        return self.rate or model.num_segments / CLIP_SECONDS

    def windows(self, model: TSN, rate: float | None) -> tuple[int, int, int]:
        """Return window, stride and hop in frames, of which `rate` come a second (None: T).

        Raises:
            ValueError: for a hop that leaves out frames.
        """
        stride = self.stride or 1
        window = self.window or model.num_segments * stride
        if rate and not self.window and not self.stride:
            window = max(round(CLIP_SECONDS * rate), window)
        hop = self.hop or max(window // stride // 2, 1) * stride
        if hop > window:
            raise ValueError(f"hop must be at most the window, {window} frames, got {hop}")
        return window, stride, hop


def sees_past_alone(model: TSN) -> bool:
    """Return whether a frame's outputs depend on no later frames."""
    return isinstance(model, TSM) and model.shift_direction == "past"


def label_file(
    model: TSN, source: FrameSource, borders: NDArray[np.float64], options: LabelOptions
) -> Iterator[ScoredRow]:
    """Return rows that lie side by side from the beginning of a video to its end.

    Frames are decoded by a thread, ahead of the model.

    Args:
        model: on the device that computes, in evaluation mode, best an optimised copy.
        source: the video.
        borders: seconds at which frames begin, and the last one ends, float64 (frames + 1,).
        options: which parts get scores.

    Raises:
        ValueError: for options that the model does not allow; while iterating, for frames that
            cannot be read.
    """
    get_crops(model, options.crop_count)
    resized = ResizedFrames(source, model.preprocessing.scale_size)
    frames: FrameSource = ReadAhead(resized, 2 * options.batch_size)
    if sees_past_alone(model):
        snippets = file_snippets(
            model, frames, borders, options.live_rate(model), crop_count=options.crop_count
        )
        return _stream(model, snippets, options, chunk=options.batch_size)
    if options.rate is not None:
        if model.frames_per_snippet > 1:
            raise ValueError(
                f"rate would take the {model.frames_per_snippet} frames of a snippet apart: give "
                f"window and hop in frames instead"
            )
        chosen = choose_frames(borders, options.rate)
        frames, borders = FrameSelection(frames, chosen), np.append(borders[chosen], borders[-1])
    window, stride, hop = options.windows(model, (len(borders) - 1) / float(borders[-1]))
    rows = window_rows(
        model, frames, borders, window=window, stride=stride, hop=hop,
        crop_count=options.crop_count, batch_size=options.batch_size,
    )  # fmt: skip
    return _smooth(rows, options)


def label_live(
    model: TSN, frames: Iterable[LiveFrame], options: LabelOptions
) -> Iterator[ScoredRow]:
    """Return rows that lie side by side from the first frame to the last, as frames come.

    Args:
        model: as for `label_file`.
        frames: as they come, at `options.live_rate` or, for snippets of several frames, all of
            them.
        options: which parts get scores.

    Raises:
        ValueError: as for `label_file`.
    """
    snippets = live_snippets(model, frames, options.live_rate(model), crop_count=options.crop_count)
    if isinstance(model, TSM) and not sees_past_alone(model):
        window, stride, hop = options.windows(model, None)
        rows = live_window_rows(model, snippets, window=window, stride=stride, hop=hop)
        return _smooth(rows, options)
    return _stream(model, snippets, options, chunk=1)


def _stream(
    model: TSN, snippets: Iterable[TimedSnippet], options: LabelOptions, *, chunk: int
) -> Iterator[ScoredRow]:
    """Return rows of a stream, whose frames go through the backbone `chunk` at a time."""
    if options.window is not None:
        raise ValueError(
            f"window is for models that see windows, and this one scores each frame as it comes: "
            f"leave it out, got {options.window} (smoothing averages the scores of frames)"
        )
    rows = stream_rows(model, snippets, stride=options.stride or 1, chunk=chunk)
    return every_nth(_smooth(rows, options), options.hop or 1)


def _smooth(rows: Iterator[ScoredRow], options: LabelOptions) -> Iterator[ScoredRow]:
    if options.smoothing is None:
        return rows
    return smooth_rows(rows, make_smoothing(options.smoothing))
