"""The videos of a run: what paths or annotated segments stand for, and their frame rates."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.dataset import ClipDataset
from data.layouts import describe_layouts, find_videos
from data.options import positive_integer, positive_number
from data.segments import Segment
from data.timestamps import nominal_rate
from data.video import open_frames

__all__ = ["Video", "list_videos", "list_videos_of_segments"]


@dataclass(frozen=True)
class Video:
    """One video.

    Attributes:
        id: names its file of results.
        path: what `data.video.open_frames` takes.
        segments: annotated ones that are wanted; empty for the whole video.
        fps: frames per second of images, where they are known.
    """

    id: str
    path: Path
    segments: tuple[Segment, ...] = ()
    fps: float | None = None


def list_videos(
    paths: Iterable[Path], modality: str, fps: float | None = None, flow_stride: int | None = None
) -> list[Video]:
    """Return the videos that paths stand for.

    Args:
        paths: each a video file, a folder or tar of images, a folder of videos, or a dataset in a
            layout of `data.layouts`.
        modality: the model's.
        fps: RGB frames per second of images; None: EPIC-KITCHENS's for its videos, else not known.
        flow_stride: RGB frames for each flow image; None: EPIC-KITCHENS's for its videos.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if there is no video of this modality, several have one id, or a number is not
            positive.
    """
    found: list[tuple[str, Path]] = []
    for path in paths:
        inside = find_videos(path, modality) if path.is_dir() else {}
        if not inside:
            try:
                open_frames(path, modality)
            except ValueError as error:
                if not path.is_dir():
                    raise
                raise ValueError(
                    f"{path}: holds no videos for a model of modality {modality}; looked for are "
                    f"{describe_layouts(modality)}"
                ) from error
        found += list(inside.items()) or [(_name_of(Path(os.path.abspath(path))), path)]
    return _check_ids(
        Video(name, path, fps=_frame_rate(name, modality, fps, flow_stride)) for name, path in found
    )


def list_videos_of_segments(
    dataset: ClipDataset,
    segments: Sequence[Segment],
    fps: float | None = None,
    flow_stride: int | None = None,
) -> list[Video]:
    """Return the videos that have some segments; a folder of one segment alone counts as a video.

    Args:
        dataset: finds the videos.
        segments: of the dataset.
        fps: as for `list_videos`.
        flow_stride: as for `list_videos`.

    Raises:
        FileNotFoundError: if there is no video of a segment.
        ValueError: if several videos have one id, or a video lies outside the dataset.
    """
    of_paths: dict[tuple[Path, bool], list[Segment]] = {}
    for segment in segments:
        of_paths.setdefault(dataset.find_video(segment), []).append(segment)
    videos = []
    for (path, alone), inside in of_paths.items():
        video = inside[0].video
        name = path.name if alone else str(Path(video).with_name(_name_of(path))).lstrip("/")
        rate = _frame_rate(video, dataset.modality, fps, flow_stride)
        videos.append(Video(name, path, tuple(inside), rate))
    return _check_ids(videos)


def _name_of(path: Path) -> str:
    """Return the name of a file without suffix; a folder's may have dots."""
    return path.name if path.is_dir() else path.stem


def _check_ids(videos: Iterable[Video]) -> list[Video]:
    """Return the videos; raise ValueError unless their ids can name their files."""
    named: dict[str, Video] = {}
    for video in videos:
        if ".." in Path(video.id).parts:
            raise ValueError(f"videos must lie inside the dataset, got {video.id}")
        if video.id in named:
            raise ValueError(
                f"videos must have names that differ, got {named[video.id].path} and {video.path}"
            )
        named[video.id] = video
    return list(named.values())


def _frame_rate(
    video: str, modality: str, fps: float | None, flow_stride: int | None
) -> float | None:
    """Return the images per second of a video, None if they are not known."""
    if fps is not None:
        positive_number("fps", fps)
    if flow_stride is not None:
        positive_integer("flow_stride", flow_stride)
    published = nominal_rate(video)
    rate = fps or published
    if rate is None or modality != "Flow":
        return rate
    return rate / (flow_stride or (1 if published == 50 else 2))
