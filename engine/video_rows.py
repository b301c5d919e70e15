"""The rows of a video: which of its snippets a model sees, and which of them make a row.

Rows lie along the whole video, or stand for its annotated segments, in the order of time.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.dataset import ClipDataset
from data.frame_times import resample
from data.frames import FrameSource
from data.options import first_few, positive_integer
from data.segments import Segment
from data.video import load_clip
from data.video_file import VideoFile
from snippets import Snippets, dense_snippets
from tsn import TSN

__all__ = ["DenseOptions", "VideoRows", "dense_rows", "segment_rows"]


@dataclass(frozen=True)
class DenseOptions:
    """Where rows lie along a video.

    Attributes:
        stride: steps from one row to the next. A step is a frame, or 1/`rate` seconds.
        rate: steps per second, each showing the frame that is nearest in time; None: every frame.
        window: steps of a row, whose features are averaged.
        hop: for TSM, see `snippets.dense_snippets`.
        skip_missing: whether rows of missing images are left out; otherwise they are an error.

    Raises:
        ValueError: for a number that is not positive.
    """

    stride: int = 1
    rate: float | None = None
    window: int = 1
    hop: int | None = None
    skip_missing: bool = False

    def __post_init__(self) -> None:
        positive_integer("stride", self.stride)
        positive_integer("window", self.window)
        if self.rate is not None and not 0 < self.rate < np.inf:
            raise ValueError(f"rate must be positive, in steps per second, got {self.rate!r}")


@dataclass(frozen=True)
class VideoRows:
    """What is to be computed of one video.

    Attributes:
        snippets: what the model sees.
        items: features of `snippets` by index; the rows lie in it, int64.
        row_starts: where in `items` each of R rows begins, int64 (R,); rows are in order of their
            first features.
        row_length: K, features of a row, which lie in ascending order.
        frames: number of the first frame of each row's snippet, int64 (R,) along a video, (R, K)
            of segments: the number of an image's file, in other sources the index from 0.
        seconds: when these are shown, likewise, float64; None where the frame rate is not known.
        first_frame: the lowest number.
        fps: frames per second, None where they are not known.
        ids: segments of the rows; None along a video.
        skipped: what was left out, one message each.
    """

    snippets: Snippets
    items: NDArray[np.int64]
    row_starts: NDArray[np.int64]
    row_length: int
    frames: NDArray[np.int64]
    seconds: NDArray[np.float64] | None
    first_frame: int
    fps: float | None
    ids: list[str] | None = None
    skipped: tuple[str, ...] = ()


def dense_rows(
    model: TSN, source: FrameSource, options: DenseOptions, fps: float | None
) -> VideoRows:
    """Return rows along a whole video, as many as fit, and at least one.

    Args:
        model: the model that will see it.
        source: the video.
        options: where rows lie.
        fps: frames per second of images; video files know theirs.

    Raises:
        ValueError: if an image is missing (unless skipped), or a rate is wanted and `fps` unknown.
    """
    length, times = model.frames_per_snippet, _get_times(source, fps)
    places, first = _places_of_numbers(source)
    grid = np.arange(len(places))
    if options.rate is not None:
        if times is None:
            raise ValueError(f"{source.name}: its frame rate is not known, give fps")
        grid = resample(times, source.fps or fps or options.rate, options.rate)
    grid = grid[: max(int(np.searchsorted(grid, len(places) - length, side="right")), 1)]
    window = min(options.window, len(grid))
    rows = np.arange(0, len(grid) - window + 1, options.stride)
    skipped: tuple[str, ...] = ()
    absent = _counts(places < 0)
    # Steps whose snippets lack an image, and rows that have such steps.
    holes = absent[(grid + length).clip(max=len(places))] > absent[grid]
    broken = _counts(holes)[rows + window] > _counts(holes)[rows]
    if broken.any():
        used = grid[_steps_of(rows, window, len(grid)) & holes]
        frames = np.unique((used[:, None] + np.arange(length)).clip(max=len(places) - 1))
        missing = frames[places[frames] < 0] + first
        message = f"{source.name}: no frame has number {first_few(missing)}"
        if not options.skip_missing or broken.all():
            raise ValueError(message)
        rows, skipped = rows[~broken], (message,)
    starts = np.unique(grid[_steps_of(rows, window, len(grid))])
    items = np.searchsorted(starts, grid)
    snippets = dense_snippets(model, starts, len(places), hop=options.hop)
    if model._feature_segments != model.num_segments:  # temporal pooling; windows are of one step
        items = rows = np.arange(len(snippets.starts))
    frames = snippets.starts[items[rows]]
    return VideoRows(
        replace(snippets, frames=places[snippets.frames]),
        items,
        rows,
        window,
        frames + first,
        None if times is None else times[frames],
        first,
        source.fps or fps,
        skipped=skipped,
    )


def _counts(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many of the first 0, 1, ... flags are set, int64 (flags + 1,)."""
    return np.append(0, np.cumsum(flags))


def _steps_of(rows: NDArray[np.int64], window: int, count: int) -> NDArray[np.bool_]:
    """Return which of so many steps are in a row, given where the rows begin."""
    changes = np.zeros(count + 1, dtype=np.int64)
    changes[rows] += 1
    changes[rows + window] -= 1
    used: NDArray[np.bool_] = np.cumsum(changes[:-1]) > 0
    return used


def segment_rows(
    model: TSN,
    source: FrameSource,
    dataset: ClipDataset,
    segments: Sequence[Segment],
    fps: float | None,
) -> VideoRows:
    """Return rows for annotated segments of a video: the T snippets of each that the model samples.

    Args:
        model: the model that will see them.
        source: the video, or the frames of one segment alone.
        dataset: finds the frames of a segment.
        segments: of this video.
        fps: frames per second of images; video files know theirs.

    Raises:
        ValueError: if frames are missing, naming all segments that lack some.
    """
    clips, faults = [], []
    indices = _show_indices(source)
    for segment in segments:
        try:
            _, alone = dataset.find_video(segment)
            clip = load_clip(
                dataset.select_frames(segment, indices, alone),
                num_segments=model.num_segments,
                new_length=model.new_length,
                modality=model.modality,
            )
            clips.append(clip.view(model.num_segments, -1).numpy())
        except ValueError as error:
            faults.append(f"{segment.id}: {error}")
    if faults:
        raise ValueError("; ".join(faults))
    windows = np.stack(clips)  # (S, T, L')
    order = np.argsort(windows[:, 0, 0], kind="stable")
    windows = windows[order]
    s, _, length = windows.shape
    features = model._feature_segments
    if model.variant == "TSM":
        snippets = Snippets.of(windows, np.ones((s, features), dtype=bool))
        items = np.arange(s * features)
    else:
        distinct, items = np.unique(windows.reshape(-1, length), axis=0, return_inverse=True)
        snippets = Snippets.of(distinct[:, None], np.ones((len(distinct), 1), dtype=bool))
    _, first = _places_of_numbers(source)
    times = _get_times(source, fps)
    starts = snippets.starts[items].reshape(s, features)
    if source.numbers is not None:
        starts = source.numbers[starts] - first
    return VideoRows(
        snippets,
        items.ravel(),
        np.arange(s) * features,
        features,
        starts + first,
        None if times is None else times[starts],
        first,
        source.fps or fps,
        ids=[segments[index].id for index in order],
    )


def _places_of_numbers(source: FrameSource) -> tuple[NDArray[np.int64], int]:
    """Return the index of each number from the lowest on, -1 where missing; and the lowest."""
    numbers = source.numbers
    if numbers is None:
        return np.arange(len(source)), 0
    places = np.full(int(numbers[-1] - numbers[0]) + 1, -1, dtype=np.int64)
    places[numbers - numbers[0]] = np.arange(len(numbers))
    return places, int(numbers[0])


def _get_times(source: FrameSource, fps: float | None) -> NDArray[np.float64] | None:
    """Return the seconds from the first frame to each; of images, from the first number to each."""
    if isinstance(source, VideoFile):
        return source.times
    places, _ = _places_of_numbers(source)
    return None if fps is None else np.arange(len(places)) / fps


def _show_indices(source: FrameSource) -> FrameSource:
    """Return a copy of a source whose frames are their indices, int64 (1, 1, 1), as views show."""

    def frames(indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            yield index, torch.full((1, 1, 1), index)

    shown = copy(source)
    shown._frames = frames  # type: ignore[method-assign]  # of this copy alone
    return shown
