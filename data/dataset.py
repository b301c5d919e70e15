"""Annotated segments of videos as a torch Dataset, and checks of its files before a long run."""

import copy
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data.archives import is_tar
from data.frame_numbers import ExactNumbers, frame_numbers
from data.frame_times import ResampledFrames, frames_between
from data.frames import FrameSource
from data.layouts import VideoFinder, describe_layouts
from data.options import MODALITIES, default_length, one_of, positive_integer
from data.sampling import SAMPLING_MODES, segment_indices
from data.segments import Segment
from data.timestamps import nominal_rate, seconds_to_frame
from data.video import load_clip, open_frames
from data.video_file import VideoFile

__all__ = ["ClipDataset", "Problem"]

logger = logging.getLogger(__name__)

_LABELS = ("verb_class", "noun_class", "label_class")
_MAX_LISTED = 3
_RANDOM_MODES = ("train", "dense")


@dataclass(frozen=True)
class Problem:
    """A reason why segments of one video cannot be read; as a string, one line.

    Attributes:
        message: what is wrong, beginning with the video or its path.
        ids: the segments that it concerns.
        damaged: whether it is a video file that cannot be decoded, so that nothing is missing.
    """

    message: str
    ids: tuple[str, ...]
    damaged: bool = False

    def __str__(self) -> str:
        count = len(self.ids)
        segments = ", ".join(self.ids) if count <= _MAX_LISTED else f"{count} segments"
        return f"{self.message} ({segments})"


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips of annotated segments: an ordinary dataset, which pickles, for any DataLoader.

    `dataset[i]` is a dictionary: "clip", which is uint8 (T * L', C, H, W) as `data.video.load_clip`
    returns it, or what `transform` makes of it; "id"; "index", which is i; and "verb_class",
    "noun_class" and "label_class" where the segment has them.

    Segments with `frames` are found by number (`data.frame_numbers`): the number in an image's
    name; in a video file, that of the image which extracting it would give (`data.frame_times`).
    Segments with `seconds` alone are the frames of a video file from the one shown at the start up
    to the one shown at the stop, or images by number with `rate`; those with neither are whole
    clips. A number that is missing, and a frame that cannot be decoded, is an error where sampling
    reads it.

    Nothing is opened before the first item, and a process keeps the last 16 sources: items in the
    order of the annotation files, which is by video, open each video once. Opening a folder lists
    it; opening a video file reads its packets.

    Args:
        segments: rows of an annotation file, see `epic.annotations`.
        root: folder of the videos, in a layout of `data.layouts`. For other data, `Segment.video`
            is the path of a clip from there, or an absolute one; flow of a video file lies at its
            path without the suffix.
        modality: "RGB", "Flow" or "RGBDiff", in any case.
        num_segments: T, the model's.
        new_length: L, the model's; None: the models' default, 1 for RGB and 5 otherwise.
        mode: how to sample, see `data.sampling`.
        include_stop: whether the stop frame belongs to a segment of RGB frames: False for models of
            EPIC-KITCHENS-55, True for those of -100 (C1).
        flow_stride: RGB frames for each flow image; None: as published, see `data.frame_numbers`.
        rate: RGB frames per second that numbers count, to find `Segment.frames` in video files, and
            `Segment.seconds` among images; None: 60 for EPIC-KITCHENS, 50 for its videos PXX_1YY,
            and each file's own frames for others.
        short_side: resize frames to this shorter side in pixels as they are read, see
            `data.video.open_frames`.
        transform: called with each clip.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        ValueError: for wrong options. `dataset[i]` names the segment whose video is missing, or
            whose frames are missing or damaged.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        root: str | os.PathLike[str],
        *,
        modality: str,
        num_segments: int,
        new_length: int | None = None,
        mode: str = "test",
        include_stop: bool = False,
        flow_stride: int | None = None,
        rate: float | None = None,
        short_side: int | None = None,
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self.segments = list(segments)
        self.root = Path(root)
        self.modality = one_of("modality", modality, MODALITIES)
        self.num_segments = positive_integer("num_segments", num_segments)
        self.new_length = positive_integer(
            "new_length", default_length(self.modality) if new_length is None else new_length
        )
        self.mode = one_of("mode", mode, SAMPLING_MODES)
        self.include_stop = include_stop
        self.flow_stride = flow_stride
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"rate must be positive, in frames per second, got {rate!r}")
        self.rate = rate
        self.short_side = short_side
        self.transform = transform
        self._videos = VideoFinder(self.root, self.modality)

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        segment = self.segments[index]
        try:
            clip = self._load(segment)
        except (OSError, ValueError) as error:
            raise ValueError(f"segment {segment.id}: {error}") from error
        item = {"clip": clip if self.transform is None else self.transform(clip)}
        item |= {"id": segment.id, "index": index}
        labels = {name: getattr(segment, name) for name in _LABELS}
        return item | {name: label for name, label in labels.items() if label is not None}

    def problems(self) -> list[Problem]:
        """Return why segments cannot be read: all reasons at once, before a long run.

        Opens every video once, and looks for each frame that sampling will read, or may read where
        it draws at random. Only decoding finds damaged frames. A video file's packets are all read,
        so this takes as long as reading the files.

        Returns:
            Videos that are missing or of another modality, segments without frames or outside those
            of the video, and missing numbers; one problem for each video and reason.

        Raises:
            ValueError: if the root has a video several times in the same form.
        """
        reasons: dict[str, list[str]] = {}
        found: dict[tuple[Path, bool], list[Segment]] = {}
        for segment in self.segments:
            try:
                found.setdefault(self.find_video(segment), []).append(segment)
            except FileNotFoundError as error:
                reasons.setdefault(str(error), []).append(segment.id)
        if reasons and not found:
            message = f"{self.root}: none of the videos is there, such as {next(iter(reasons))}"
            message += f"; places looked in: {describe_layouts(self.modality)}"
            return [Problem(message, tuple(segment.id for segment in self.segments))]
        unopened = []
        for (path, alone), segments in found.items():
            try:
                source = open_frames(path, self.modality, strict=True)
            except (OSError, ValueError) as error:
                is_video = self.modality != "Flow" and path.is_file() and not is_tar(str(path))
                ids = tuple(segment.id for segment in segments)
                unopened.append(Problem(str(error), ids, damaged=is_video))
                continue
            for message, names in self._problems_in(source, alone, segments).items():
                reasons.setdefault(message, []).extend(names)
        return [Problem(message, tuple(ids)) for message, ids in reasons.items()] + unopened

    def without(self, problems: Iterable[Problem]) -> "ClipDataset":
        """Return a dataset of the other segments; those left out are logged as a warning.

        Raises:
            ValueError: if no segment is left.
        """
        problems = list(problems)
        skipped = {segment_id for problem in problems for segment_id in problem.ids}
        dataset = copy.copy(self)
        dataset.segments = [segment for segment in self.segments if segment.id not in skipped]
        lines = "\n".join(map(str, problems))
        if not dataset.segments:
            raise ValueError(f"no segment can be read:\n{lines}")
        if problems:
            count, total = len(self) - len(dataset), len(self)
            logger.warning("%d of %d segments are skipped:\n%s", count, total, lines)
        return dataset

    def _load(self, segment: Segment) -> Tensor:
        path, alone = self.find_video(segment)
        frames = self.select_frames(segment, open_frames(path, self.modality, strict=True), alone)
        return load_clip(
            open_frames(frames, self.modality, short_side=self.short_side),
            num_segments=self.num_segments,
            new_length=self.new_length,
            modality=self.modality,
            mode=self.mode,
        )

    def find_video(self, segment: Segment) -> tuple[Path, bool]:
        """Return the path of a segment's video, and whether it holds this segment alone.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the root has the video several times in the same form.
        """
        return self._videos.find(segment)

    def select_frames(self, segment: Segment, source: FrameSource, alone: bool) -> FrameSource:
        """Return the frames of a segment, given those of its video, or of the segment alone.

        Raises:
            ValueError: if the segment is empty, outside its video, or has seconds where `rate` is
                needed.
        """
        if segment.frames is None and segment.seconds is not None:
            if isinstance(source, VideoFile):
                return frames_between(source, *segment.seconds)
            if self.rate is None:
                raise ValueError(
                    f"{source.name}: images of segments with seconds need rate (--fps), their "
                    f"frames per second"
                )
            start, stop = (seconds_to_frame(seconds, self.rate) for seconds in segment.seconds)
            segment = replace(segment, frames=(start, stop))
        if segment.frames is None:
            return source
        numbers = frame_numbers(
            segment, self.modality, include_stop=self.include_stop, flow_stride=self.flow_stride
        )
        if isinstance(source, VideoFile):
            source = ResampledFrames(source, self.rate or nominal_rate(segment.video))
        return ExactNumbers(source, range(1, len(numbers) + 1) if alone else numbers)

    def _problems_in(
        self, source: FrameSource, alone: bool, segments: list[Segment]
    ) -> dict[str, list[str]]:
        """Return why segments of one video cannot be read, and their ids."""
        reasons: dict[str, list[str]] = {}
        missing: dict[str, list[int]] = {}
        for segment in segments:
            try:
                frames = self.select_frames(segment, source, alone)
            except ValueError as error:
                reasons.setdefault(str(error), []).append(segment.id)
                continue
            if isinstance(frames, ExactNumbers):
                numbers = frames.missing(self._indices_read(len(frames)))
                if numbers:
                    missing[segment.id], view = numbers, frames
        if missing:
            numbers = sorted({number for numbers in missing.values() for number in numbers})
            reasons[view.describe_missing(numbers)] = list(missing)
        return reasons

    def _indices_read(self, length: int) -> NDArray[np.int64]:
        """Return the indices that sampling may read of so many frames."""
        if self.mode in _RANDOM_MODES:
            return np.arange(length)
        snippet_length = self.new_length + (self.modality == "RGBDiff")
        indices = segment_indices(length, self.num_segments, snippet_length, mode=self.mode)
        return indices.flatten().numpy()
