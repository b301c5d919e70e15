"""What `label_video.py` writes: rows, ActivityNet's JSON, a timeline, a video with its labels."""

import argparse
import os
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.frames import FrameSource
from data.functional import resize
from data.live import LiveFrame
from data.read_ahead import ReadAhead
from data.video_writer import VideoWriter
from data.views import ResizedFrames
from engine.label_rows import ScoredRow
from engine.label_writers import (
    ActivityNetWriter,
    LabelWriter,
    MergedRows,
    RowWriter,
    TablePrinter,
)
from pictures import draw_labels, new_figure, to_rgb
from predictor import Prediction, Predictor, TimedPrediction
from timeline_pictures import Timeline

__all__ = ["FileRenderer", "LabelOutputs", "LiveRenderer", "check_outputs"]

_ENDINGS = {
    "--output": (".csv", ".jsonl", ".json"),
    "--timeline": (".png", ".jpg", ".jpeg", ".pdf", ".svg"),
}
_THUMBNAIL_COUNT, _THUMBNAIL_SIDE = 12, 90


def check_outputs(options: argparse.Namespace) -> None:
    """Raise ValueError, naming all that is wrong, unless all outputs can be written anew."""
    wanted = [("--output", path) for path in options.output]
    wanted += [("--timeline", options.timeline), ("--render", options.render)]
    faults = []
    for flag, path in wanted:
        if path is None:
            continue
        endings = _ENDINGS.get(flag)  # those of videos are their writer's
        if endings and path.suffix.lower() not in endings:
            faults.append(f"{flag} must end in one of {', '.join(endings)}, got {path}")
        elif not path.parent.is_dir():
            faults.append(f"{flag}: no such folder: {path.parent}")
        elif not os.access(path.parent, os.W_OK):
            faults.append(f"{flag}: the folder is read-only: {path.parent}")
        elif path.exists():
            faults.append(f"{flag}: {path} exists: remove it, or give another name")
    if len({path.resolve() for path in options.output}) < len(options.output):
        faults.append("--output: each file must be given once")
    if faults:
        raise ValueError("; ".join(faults))


class LabelOutputs:
    """All that is written of one video.

    Args:
        options: of the command line.
        predictor: names classes.
        video: name of the video.
        renderer: draws labels into the video, if that is wanted.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        predictor: Predictor,
        video: str,
        renderer: LabelWriter | None,
    ) -> None:
        self._predictor, self._video = predictor, video
        self._top_k = options.top_k if renderer else 1
        self._writers = [_open_writer(path, video, options.merge) for path in options.output]
        if not options.output:
            table = TablePrinter()
            self._writers.append(MergedRows(table) if options.merge else table)
        if renderer:
            self._writers.append(renderer)
        self._picture: Path | None = options.timeline
        self._timeline: Timeline | None = None
        if self._picture:
            new_figure(1, 1)  # an error now rather than after hours
            names = predictor.class_names
            titles = ("verbs", "nouns") if len(names) == 2 else ("classes",)
            self._timeline = Timeline(dict(zip(titles, names, strict=True)))
        self.row_count = 0

    def add(self, row: ScoredRow) -> None:
        """Write the labels of a row."""
        probabilities = row.scores
        if self._predictor.model.before_softmax:
            probabilities = tuple(task.softmax(dim=0) for task in probabilities)
        prediction = self._predictor.to_prediction(probabilities, top_k=self._top_k)
        for writer in self._writers:
            writer.add(TimedPrediction(row.start, row.stop, prediction))
        if self._timeline:
            self._timeline.add(row.start, row.stop, probabilities)
        self.row_count += 1

    def add_thumbnail(self, seconds: float, image: Tensor) -> None:
        """Offer a frame, uint8 (C, H, W), for the timeline."""
        if self._timeline:
            self._timeline.add_thumbnail(seconds, to_rgb(image))

    def add_thumbnails(self, source: FrameSource, borders: NDArray[np.float64]) -> None:
        """Put frames of a whole video on the timeline."""
        if self._timeline:
            places = np.linspace(0, len(source) - 1, _THUMBNAIL_COUNT).astype(int)
            images = ResizedFrames(source, _THUMBNAIL_SIDE).read(places)
            for place, image in zip(places, images, strict=True):
                self.add_thumbnail(float(borders[place]), image)

    def finish(self) -> None:
        """Write the rest of the rows."""
        for writer in self._writers:
            writer.finish()

    def draw(self) -> None:
        """Draw the timeline, if it is wanted: best when all else is written, whatever happens."""
        if self._timeline and self._picture and self.row_count:
            self._timeline.draw(self._picture, title=self._video)


def _open_writer(path: Path, video: str, merge: bool) -> LabelWriter:
    if path.suffix.lower() == ".json":
        return MergedRows(ActivityNetWriter(path, video))
    return MergedRows(RowWriter(path)) if merge else RowWriter(path)


class FileRenderer(LabelWriter):
    """A video file read once more, and written with its labels.

    Args:
        source: the video.
        borders: seconds at which its frames begin, and the last one ends, float64 (frames + 1,).
        writer: where it goes; its `with` block closes it.
        lines: classes of each kind that are drawn.
    """

    def __init__(
        self,
        source: FrameSource,
        borders: NDArray[np.float64],
        writer: VideoWriter,
        lines: int,
    ) -> None:
        self._times = borders[:-1]
        self._frames = chain.from_iterable(ReadAhead(source, 4).blocks(1))
        self._writer, self._lines = writer, lines
        self._done = 0

    def add(self, row: TimedPrediction) -> None:
        """Write the frames up to the end of a row."""
        stop = int(np.searchsorted(self._times, row.stop))
        for seconds in self._times[self._done : stop].tolist():
            image = draw_labels(to_rgb(next(self._frames)), row.prediction, lines=self._lines)
            self._writer.write(image, seconds)
        self._done = stop


class LiveRenderer(LabelWriter):
    """Frames of a live source, written with the latest labels.

    Args:
        writer: where they go; its `with` block closes it.
        lines: classes of each kind that are drawn.
    """

    def __init__(self, writer: VideoWriter, lines: int) -> None:
        self._writer, self._lines = writer, lines
        self._latest = Prediction()
        self._size: list[int] = []

    def add(self, row: TimedPrediction) -> None:
        """Take the labels of the frames that follow."""
        self._latest = row.prediction

    def draw(self, frame: LiveFrame) -> None:
        """Write a frame, in the size of the first."""
        self._size = self._size or list(frame.image.shape[1:])
        image = frame.image
        if list(image.shape[1:]) != self._size:
            image = resize(image, self._size)
        if any(vars(self._latest).values()):
            image = draw_labels(image, self._latest, lines=self._lines)
        self._writer.write(image, frame.seconds)
