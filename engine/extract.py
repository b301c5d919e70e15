"""Features of videos by one model, a file for each video.

Process r of W takes videos r, r + W, ... Each of its worker processes decodes and crops one video
at a time; the backbone takes in turn what they have read. Rows go to the disk as they come, so that
memory does not grow with the videos.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from data.dataset import ClipDataset
from data.video import open_frames
from engine.feature_writer import ExtractOptions, FeatureWriter
from engine.loading import load_items
from engine.output_folder import OutputFolder
from engine.processes import Processes
from engine.progress import show_progress
from engine.video_list import Video
from engine.video_rows import VideoRows, dense_rows, segment_rows
from snippets import get_crops, read_crops
from tsn import TSN

__all__ = ["extract"]


class _UnreadableError(Exception):
    """A video that cannot be read, which costs this video alone."""


@dataclass(frozen=True)
class _Step:
    """A part of a video that is done.

    Attributes:
        share: which part of it.
        video: its id, once it is finished.
        failure: why it could not be read, if so.
        skipped: what had to be left out of it.
    """

    share: float
    video: str = ""
    failure: str | None = None
    skipped: tuple[str, ...] = ()


def extract(
    model: TSN,
    videos: Sequence[Video],
    folder: OutputFolder,
    processes: Processes,
    options: ExtractOptions,
    *,
    dataset: ClipDataset | None = None,
    workers: int = 1,
    about: Mapping[str, Any],
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Write the features of all videos that a folder does not have yet.

    Args:
        model: on the device of `processes`, in evaluation mode, best an optimised copy.
        videos: all videos of the run.
        folder: where files go. Its request must hold everything that features depend on.
        processes: the processes of this run.
        options: what is written.
        dataset: finds the frames of annotated segments; None for whole videos.
        workers: processes that decode and crop, for each process of the run, a video each; 0: this
            process does.
        about: metadata for each file, beside those that `FeatureWriter` has.

    Returns:
        Id of each video that could not be read -> why, and of each that lacks something -> what was
        left out; the same in all processes.

    Raises:
        ValueError: for options that the model does not allow.
        OSError: if a file cannot be written.
        RuntimeError: if a worker ended before its time.
    """
    options.check(model, densely=dataset is None)
    model.eval()
    mine = processes.share(videos)
    pending = [video for video in mine if not folder.has(options.file_name(video.id))]
    writer = FeatureWriter(model, options, folder, about)
    count = min(max(workers, 1), len(pending))
    lanes = [
        _extract_in_turn(
            _Reader(model, pending[lane::count], options, dataset), writer, min(workers, 1)
        )
        for lane in range(count)
    ]
    several = f" of process 1 of {processes.count}" if processes.count > 1 else ""
    steps = show_progress(
        _take_turns(lanes), len(mine), unit=f"videos{several}", done=len(mine) - len(pending),
        amount=lambda step: step.share, hidden=processes.rank > 0,
    )  # fmt: skip
    finished = [step for step in steps if step.video]
    failures = [(step.video, step.failure) for step in finished if step.failure]
    skipped = [(step.video, step.skipped) for step in finished if step.skipped]
    return dict(processes.gather(failures)), dict(processes.gather(skipped))


class _Reader(IterableDataset[VideoRows | Tensor | str]):
    """Videos read one after the other: the rows of each, then blocks of its crops.

    In the place of what cannot be read comes the reason, and then the next video.
    """

    def __init__(
        self,
        model: TSN,
        videos: Sequence[Video],
        options: ExtractOptions,
        dataset: ClipDataset | None,
    ) -> None:
        self.videos = videos
        self.model, self._options, self._dataset = model, options, dataset
        self._crops = get_crops(model, options.crop_count)

    def __iter__(self) -> Iterator[VideoRows | Tensor | str]:
        for video in self.videos:
            try:
                yield from self._read(video)
            except ImportError:  # which no video could be read without
                raise
            except Exception as error:  # damage raises nearly anything from a decoder's depths
                yield " ".join(str(error).split()) or type(error).__name__

    def _read(self, video: Video) -> Iterator[VideoRows | Tensor]:
        model, options = self.model, self._options
        source = open_frames(video.path, model.modality, strict=True)
        if self._dataset is None:
            rows = dense_rows(model, source, options.dense, video.fps)
        else:
            rows = segment_rows(model, source, self._dataset, video.segments, video.fps)
        if options.file_format == "actionformer" and (rows.skipped or rows.seconds is None):
            reason = "; ".join(rows.skipped) or f"{source.name}: its frame rate is not known"
            raise ValueError(f"ActionFormer wants rows at a known rate without gaps: {reason}")
        yield rows
        scale_size = model.preprocessing.scale_size
        yield from read_crops(
            source, rows.snippets.frames, self._crops, scale_size, options.batch_size
        )


def _extract_in_turn(reader: _Reader, writer: FeatureWriter, workers: int) -> Iterator[_Step]:
    """Extract one video after the other."""
    on_gpu = not next(reader.model.parameters()).is_cpu
    items = load_items(reader, None, workers=workers, pin_memory=on_gpu)
    for video in reader.videos:
        done = 0.0
        try:
            rows = next(items)
            yield _Step(0)  # all lanes start their workers before any of them computes
            if not isinstance(rows, VideoRows):
                raise _UnreadableError(rows)
            for share in writer.write(video.id, rows, _blocks(items)):
                done += share
                yield _Step(share)
            yield _Step(0, video.id, skipped=rows.skipped)
        except _UnreadableError as error:
            yield _Step(1 - done, video.id, failure=str(error))


def _blocks(items: Iterator[VideoRows | Tensor | str]) -> Iterator[Tensor]:
    for item in items:
        if not isinstance(item, Tensor):
            raise _UnreadableError(item)
        yield item


def _take_turns(lanes: Sequence[Iterator[_Step]]) -> Iterator[_Step]:
    """Take one step in each lane in turn, until all lanes have ended."""
    waiting = deque(lanes)
    while waiting:
        lane = waiting.popleft()
        for step in lane:
            yield step
            waiting.append(lane)
            break
