"""Rows along a video: scores of parts that lie side by side, from its start to its end."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from data.frames import FrameSource
from data.sampling import segment_indices
from engine.label_snippets import TimedSnippet
from engine.smoothing import Scores
from long_videos import window_logits
from streaming import Stream
from tsn import TSN, Logits, to_tasks

__all__ = [
    "ScoredRow",
    "every_nth",
    "live_window_rows",
    "smooth_rows",
    "stream_rows",
    "window_rows",
]


_MAX_PAUSE = 1.0
"""Seconds for which the labels of a live frame count at most while no other one comes."""


@dataclass(frozen=True)
class ScoredRow:
    """The scores of a part of a video.

    Attributes:
        start: seconds from the first frame of the video.
        stop: likewise, of the part's end.
        scores: the model's outputs, averaged over crops.
    """

    start: float
    stop: float
    scores: Scores


def window_rows(
    model: TSN,
    source: FrameSource,
    borders: NDArray[np.float64],
    *,
    window: int,
    stride: int,
    hop: int,
    crop_count: int,
    batch_size: int,
) -> Iterator[ScoredRow]:
    """Return a row for each window of a video, which reaches half-way to the next window's middle.

    Args:
        model: in evaluation mode.
        source: the video.
        borders: seconds at which frames begin, and the last one ends, float64 (frames + 1,).
        window: frames of a window.
        stride: frames from one that counts to the next.
        hop: frames from one window to the next.
        crop_count: crops whose outputs are averaged.
        batch_size: snippets that go through the backbone together.
    """
    length, start = min(window, len(source)), 0.0
    held: tuple[int, Scores] | None = None
    for places, logits in window_logits(
        model, source,
        window=window, stride=stride, hop=hop, crop_count=crop_count, batch_size=batch_size,
    ):  # fmt: skip
        for place, *scores in zip(places.tolist(), *_to_scores(logits), strict=True):
            if held:
                stop = float(borders[(held[0] + place + length) // 2])
                yield ScoredRow(start, stop, held[1])
                start = stop
            held = place, tuple(scores)
    assert held  # there is at least one window
    yield ScoredRow(start, float(borders[-1]), held[1])


def stream_rows(
    model: TSN, snippets: Iterable[TimedSnippet], *, stride: int, chunk: int
) -> Iterator[ScoredRow]:
    """Return a row for each snippet of a stream, when the next one has come.

    It lasts until then; but where a live source pauses, or drops frames, at most `_MAX_PAUSE`.

    Args:
        model: in evaluation mode; one that `streaming.Stream` takes.
        snippets: as they come.
        stride: as for `streaming.Stream`.
        chunk: snippets that go through the backbone together.
    """
    snippets = iter(snippets)
    stream: Stream | None = None
    held: ScoredRow | None = None
    while part := list(islice(snippets, chunk)):
        inputs = torch.stack([snippet.inputs for snippet in part], dim=1)  # (crops, t, L'*C, H, W)
        if stream is None:
            stream = Stream(model, streams=len(inputs), stride=stride)
        # (crops, t, classes) -> (t, classes)
        tasks = [task.mean(0) for task in _to_scores(stream(inputs))]
        for snippet, *scores in zip(part, *tasks, strict=True):
            if held:
                longest = max(held.stop, held.start + _MAX_PAUSE)
                yield replace(held, stop=min(snippet.start, longest))
            held = ScoredRow(snippet.start if held else 0.0, snippet.stop, tuple(scores))
    if held:
        yield held


@torch.inference_mode()
def live_window_rows(
    model: TSN, snippets: Iterable[TimedSnippet], *, window: int, stride: int, hop: int
) -> Iterator[ScoredRow]:
    """Return a row for each window of a live source, when the window has come.

    It reaches half-way to the next window's middle; the last window ends with the source.

    Args:
        model: in evaluation mode.
        snippets: as they come.
        window: snippets of a window.
        stride: snippets from one that counts to the next.
        hop: snippets from one window to the next, at most `window`.
    """
    held: deque[TimedSnippet] = deque(maxlen=window)
    start = 0.0
    for count, snippet in enumerate(snippets, start=1):
        held.append(snippet)
        if count >= window and (count - window) % hop == 0:
            middle = (window + hop) // 2
            stop = held[middle].start if middle < window else held[-1].stop
            yield ScoredRow(start, stop, _classify(model, held, stride))
            start = stop
    if held and start < held[-1].stop:
        yield ScoredRow(start, held[-1].stop, _classify(model, held, stride))


def smooth_rows(
    rows: Iterable[ScoredRow], smoothing: Callable[[Scores], Scores]
) -> Iterator[ScoredRow]:
    """Yield rows with smoothed scores."""
    for row in rows:
        yield replace(row, scores=smoothing(row.scores))


def every_nth(rows: Iterable[ScoredRow], hop: int) -> Iterator[ScoredRow]:
    """Yield every `hop`-th row, and the last one, each in the place of those before it, too."""
    rows = iter(rows)
    while part := list(islice(rows, hop)):
        yield replace(part[-1], start=part[0].start)


def _classify(model: TSN, window: Iterable[TimedSnippet], stride: int) -> Scores:
    """Return the scores of a clip of these snippets, sampled as evaluation samples clips."""
    clip = list(window)[::stride]
    chosen = segment_indices(len(clip), model.num_segments, 1)[:, 0].tolist()
    # (crops, T, L'*C, H, W)
    inputs = torch.stack([clip[index].inputs for index in chosen], dim=1)
    # (crops, ..., classes): with identity consensus, of each segment
    return tuple(task.flatten(0, -2).mean(0) for task in _to_scores(model(inputs)))


def _to_scores(outputs: Logits) -> Scores:
    """Return outputs of each task, float32 on the CPU."""
    return tuple(task.float().cpu() for task in to_tasks(outputs))
