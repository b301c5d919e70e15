"""Features of videos by one model, a file for each video.

Process r of W takes videos r, r + W, ... Each of its worker processes decodes and crops the frames
of one video at a time; the backbone takes what they have read in turn. Rows go to the disk as they
come, so that memory does not grow with the videos.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from data.dataset import ClipDataset
from data.segments import Segment
from data.video import open_frames
from engine.feature_files import RowFile
from engine.loading import load_items
from engine.output_folder import OutputFolder
from engine.processes import Processes
from engine.progress import show_progress
from engine.video_rows import DenseOptions, VideoRows, dense_rows, segment_rows
from presets import CropsToInput
from streaming import get_crops, read_crops, run_snippets
from tsn import TSN

__all__ = ["ExtractOptions", "Video", "extract"]


@dataclass(frozen=True)
class Video:
    """One video to extract features of.

    Attributes:
        id: names its file.
        path: of what `data.video.open_frames` takes.
        segments: annotated ones that are wanted; empty for the whole video.
        fps: frames per second of images, where they are known.
    """

    id: str
    path: Path
    segments: tuple[Segment, ...] = ()
    fps: float | None = None


@dataclass(frozen=True)
class ExtractOptions:
    """What is written of each video.

    Attributes:
        dense: where rows lie along whole videos.
        mean: whether the features of a segment's snippets are averaged.
        logits: whether logits are written beside features.
        crop_count: 1, 3 or 10; features are averaged over the crops.
        batch_size: snippets that go through the backbone together.
        file_format: "safetensors", "npz", or "actionformer", which is npz with the array `feats`.
    """

    dense: DenseOptions = DenseOptions()
    mean: bool = False
    logits: bool = False
    crop_count: int = 1
    batch_size: int = 16
    file_format: str = "safetensors"

    def file_name(self, video: Video) -> str:
        """Return the name of a video's file in the output folder."""
        suffix = "safetensors" if self.file_format == "safetensors" else "npz"
        return f"{video.id}.{suffix}"


class _Unreadable(Exception):
    """A video that cannot be read, which costs this video alone."""


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

    Beside `about`, the metadata of each file say: `video`; `first_frame`, the lowest number in
    `frames`; `fps` of the video; `rate`, rows per second; `stride`, frames between rows (None where
    `rate` sets them, or along no grid); `window`, steps averaged in a row; `snippet_length`;
    `tsm_windows`, None or the `segments` and the `hop` of windows; `ids`, segments of the rows.

    Args:
        model: on the device of `processes`, in evaluation mode, best an optimised copy.
        videos: all videos of the run.
        folder: where files go. Its request must hold everything that features depend on.
        processes: the processes of this run.
        options: what is written.
        dataset: finds the frames of annotated segments.
        workers: processes that decode and crop, for each process of the run.
        about: further metadata, the same for each video.

    Returns:
        Id of each video that could not be read -> why, and of each that lacks something -> what was
        left out; the same in all processes.

    Raises:
        ValueError: for options that this model does not allow.
        OSError: if a file cannot be written.
        ChildProcessError: if a worker ended before its time.
    """
    _check_options(model, options, videos)
    mine = processes.share(videos)
    pending = [video for video in mine if not folder.has(options.file_name(video))]
    count = min(max(workers, 1), len(pending))
    reader = _Reader(model, options, dataset)
    lanes = deque(
        _extract_in_turn(
            model, reader.of(pending[lane::count]), folder, about, workers=min(workers, 1)
        )
        for lane in range(count)
    )
    failures: list[tuple[str, str]] = []
    skipped: list[tuple[str, tuple[str, ...]]] = []
    several = f" of process 1 of {processes.count}" if processes.count > 1 else ""
    for video, outcome in show_progress(
        _take_turns(lanes), len(mine), unit=f"videos{several}", done=len(mine) - len(pending),
        hidden=processes.rank > 0,
    ):  # fmt: skip
        if isinstance(outcome, str):
            failures.append((video.id, outcome))
        elif outcome:
            skipped.append((video.id, outcome))
    return dict(processes.gather(failures)), dict(processes.gather(skipped))


def _check_options(model: TSN, options: ExtractOptions, videos: Sequence[Video]) -> None:
    densely = not any(video.segments for video in videos)
    if options.logits and not model.before_softmax:
        raise ValueError("logits need a model that gives them: before_softmax is False")
    if options.logits and densely and model.variant in ("TRN", "MTRN"):
        raise ValueError(
            f"logits along a video need a model that classifies single snippets; {model.variant} "
            f"relates the {model.num_segments} of a segment: give annotated segments"
        )


_Outcome = str | tuple[str, ...]
"""Why a video could not be read, or what was left out of it."""


def _take_turns(
    lanes: deque[Iterator[tuple[Video, _Outcome] | None]],
) -> Iterator[tuple[Video, _Outcome]]:
    while lanes:
        try:
            outcome = next(lanes[0])
        except StopIteration:
            lanes.popleft()
            continue
        lanes.rotate(-1)
        if outcome is not None:
            yield outcome


class _Reader(IterableDataset[VideoRows | Tensor | str]):
    """Videos read one after the other: the rows of each, then its blocks of crops.

    In the place of what cannot be read comes the reason, and then the next video.
    """

    videos: Sequence[Video] = ()

    def __init__(self, model: TSN, options: ExtractOptions, dataset: ClipDataset | None) -> None:
        self.model, self.options, self.dataset = model, options, dataset
        self.crops: CropsToInput = get_crops(model, options.crop_count)

    def of(self, videos: Sequence[Video]) -> "_Reader":
        """Return a reader of these videos."""
        reader = _Reader(self.model, self.options, self.dataset)
        reader.videos = videos
        return reader

    def __iter__(self) -> Iterator[VideoRows | Tensor | str]:
        scale_size = self.model.preprocessing.scale_size
        for video in self.videos:
            try:
                source = open_frames(video.path, self.model.modality)
                if self.dataset is None:
                    rows = dense_rows(self.model, source, self.options.dense, video.fps)
                else:
                    rows = segment_rows(
                        self.model, source, self.dataset, video.segments, video.fps,
                        skip_missing=self.options.dense.skip_missing,
                    )  # fmt: skip
                if self.options.file_format == "actionformer":
                    _check_grid(rows, self.options.dense, video)
                yield rows
                yield from read_crops(
                    source, rows.snippets.frames, self.crops, scale_size, self.options.batch_size
                )
            except ImportError:  # which no video could be read without
                raise
            except Exception as error:  # damage raises nearly anything from a decoder's depths
                yield " ".join(str(error).split()) or type(error).__name__


def _check_grid(rows: VideoRows, options: DenseOptions, video: Video) -> None:
    """Raise ValueError unless the rows of a video are evenly spaced in time."""
    if rows.skipped:
        raise ValueError(f"ActionFormer wants rows without gaps: {'; '.join(rows.skipped)}")
    if options.rate is None and rows.fps is None:
        raise ValueError(f"{video.path}: its frame rate is not known, which ActionFormer wants")


def _extract_in_turn(
    model: TSN, reader: _Reader, folder: OutputFolder, about: Mapping[str, Any], *, workers: int
) -> Iterator[tuple[Video, _Outcome] | None]:
    """Extract one video after the other; yield None after each batch, and each outcome."""
    on_gpu = not next(model.parameters()).is_cpu
    items = iter(load_items(reader, None, workers=workers, pin_memory=on_gpu))
    for video in reader.videos:
        rows = next(items)
        if isinstance(rows, str):
            yield video, rows
            continue
        rows = cast(VideoRows, rows)
        try:
            yield from _extract_video(model, video, rows, _blocks(items), reader, folder, about)
        except _Unreadable as error:
            yield video, str(error)
        else:
            yield video, rows.skipped


def _blocks(items: Iterator[VideoRows | Tensor | str]) -> Iterator[Tensor]:
    for block in items:
        if not isinstance(block, Tensor):
            raise _Unreadable(block)
        yield block


def _extract_video(
    model: TSN,
    video: Video,
    rows: VideoRows,
    blocks: Iterator[Tensor],
    reader: _Reader,
    folder: OutputFolder,
    about: Mapping[str, Any],
) -> Iterator[None]:
    options = reader.options
    names = "feats" if options.file_format == "actionformer" else "features"
    arrays: dict[str, RowFile] = {}

    def append(name: str, values: NDArray[Any]) -> None:
        arrays.setdefault(name, RowFile(folder.path)).append(values)

    features = run_snippets(model, blocks, rows.snippets, reader.crops, options.batch_size)
    for part in _gather_rows(features, rows.items):
        densely = rows.ids is None
        pooled = part.mean(1) if densely or options.mean else part
        append(names, pooled.cpu().numpy())
        if options.logits:
            for task, scores in _get_logits(model, part, densely).items():
                append(task, scores.float().cpu().numpy())
        yield
    if names == "features":
        squeezed = rows.frames[:, 0] if rows.frames.ndim > 1 and options.mean else rows.frames
        append("frames", squeezed)
        if rows.seconds is not None:
            append("seconds", rows.seconds[:, 0] if squeezed.ndim < rows.frames.ndim else rows.seconds)
    folder.write_rows(
        options.file_name(video), arrays, **about, **_describe(model, video, rows, options)
    )


def _gather_rows(features: Iterable[Tensor], items: NDArray[np.int64]) -> Iterator[Tensor]:
    """Yield rows (n, K, D) in order, from features (m, D) that come in order."""
    complete = np.maximum.accumulate(items.max(1))
    needed = np.minimum.accumulate(items.min(1)[::-1])[::-1]
    held, offset, done = torch.empty(0), 0, 0
    for part in features:
        held = torch.cat([held, part]) if len(held) else part
        ready = int(np.searchsorted(complete, offset + len(held)))
        if ready > done:
            yield held[torch.from_numpy(items[done:ready] - offset).to(held.device)]
            done = ready
            keep = int(needed[done]) if done < len(items) else offset + len(held)
            held, offset = held[keep - offset :], keep


@torch.inference_mode()
def _get_logits(model: TSN, rows: Tensor, densely: bool) -> dict[str, Tensor]:
    """Return the logits of rows (n, K, D) by task: of segments, or of the mean of snippets."""
    dtype = next(model.parameters()).dtype
    if densely:
        outputs = [head(rows.mean(1).to(dtype)) for head in model._heads()]
    else:
        logits = model.logits(rows.flatten(0, 1).to(dtype))
        outputs = list(logits) if isinstance(logits, tuple) else [logits]
    tasks = ("verb", "noun") if len(outputs) == 2 else ("label",)
    return dict(zip(tasks, outputs, strict=True))


def _describe(
    model: TSN, video: Video, rows: VideoRows, options: ExtractOptions
) -> dict[str, Any]:
    """Return the metadata of a video's file."""
    dense, densely = options.dense, rows.ids is None
    steps = dense.rate or rows.fps
    tsm = model.variant == "TSM"
    hop = dense.hop or model.num_segments
    about = {
        "video": video.id,
        "first_frame": rows.first_frame,
        "fps": rows.fps,
        "snippet_length": model.frames_per_snippet,
        "tsm_windows": {"segments": model.num_segments, "hop": hop if densely else None} if tsm else None,
    }
    if not densely:
        return {**about, "ids": rows.ids, "averaged": options.mean}
    step = dense.stride * (model.num_segments // model._feature_segments)
    return {
        **about,
        "rate": steps / step if steps else None,
        "stride": None if dense.rate else step,
        "window": dense.window,
    }
