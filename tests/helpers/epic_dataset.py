"""A tiny EPIC-KITCHENS in the official layouts: frames, flow, tars, video files and CSVs.

    write_rgb(tmp_path, "folders")
    write_flow(tmp_path, "tars")
    csvs = write_csvs(tmp_path / "annotations")

Every picture shows the number of its frame as black and white bars, which `number_in` reads: file
numbers of frames and flow, 1, 2, ... in video files. The v of flow shows `MAX_NUMBER` minus that.
"""

import csv
import io
import tarfile
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.segments import Segment

WIDTH, HEIGHT, BITS = 96, 64, 12
MAX_NUMBER = 2**BITS - 1

VIDEOS = {"P01_11": 120, "P01_12": 90, "P02_101": 100}
"""Frames of each video, at its nominal rate."""

LAYOUTS = ("folders", "downloads", "segments", "tars", "split tars")
"""PXX/PXX_YY/, PXX/rgb_frames/PXX_YY/, the 55 library's segments, and both downloads of tars."""

_IDS = ["participant_id", "video_id"]
_TIMES = ["start_timestamp", "stop_timestamp", "start_frame", "stop_frame"]
_LABELS = ["verb", "verb_class", "noun", "noun_class", "all_nouns", "all_noun_classes"]
_COLUMNS_55 = ["uid", *_IDS, "narration", *_TIMES, *_LABELS]
_COLUMNS_100 = ["narration_id", *_IDS, "narration_timestamp", *_TIMES, "narration", *_LABELS]

SEGMENTS = [
    # uid, video, seconds, verb, noun, their classes in EPIC-KITCHENS-55 and -100
    (1924, "P01_11", (0.0, 0.59), ("take", 0, 0), ("plate", 2, 2)),
    (1925, "P01_11", (0.52, 1.89), ("put-down", 1, 1), ("plate", 2, 2)),
    (1926, "P01_11", (1.1, 1.45), ("open", 2, 3), ("door", 8, 8)),
    (2100, "P01_12", (0.14, 1.12), ("open", 2, 3), ("door", 8, 8)),
    (2101, "P01_12", (0.8, 1.3), ("wash", 4, 2), ("tap", 3, 0)),
    (None, "P02_101", (0.16, 0.75), ("take", 0, 0), ("knife", 6, 4)),
    (None, "P02_101", (1.0, 1.96), ("wash", 4, 2), ("knife", 6, 4)),
]
"""One tuple a row; videos PXX_1YY are not in EPIC-KITCHENS-55, so that they have no uid."""


def nominal_rate(video: str) -> int:
    """Return the frames per second that annotations count: 50 for PXX_1YY, else 60."""
    return 50 if _is_extension(video) else 60


def frame_number(video: str, seconds: float) -> int:
    """Return the frame number that the official CSVs give to a time within the first minute."""
    return max(1, int(nominal_rate(video) * seconds))


def flow_length(video: str, frames: int) -> int:
    """Return the number of flow images that are published for a video of so many frames."""
    return frames - 1 if _is_extension(video) else -(-(frames - 3) // 2)


def number_in(frame: torch.Tensor | np.ndarray) -> int:
    """Read the number that a frame (C, H, W) shows; of flow, that of u."""
    bars = np.asarray(frame)[0].reshape(HEIGHT, BITS, -1)[:, :, 2:6].mean(axis=(0, 2))
    return sum(1 << bit for bit in range(BITS) if bars[bit] > 128)


def numbers_in(frames: torch.Tensor) -> list[int]:
    """Read the numbers that frames (n, C, H, W) show."""
    return [number_in(frame) for frame in frames]


def write_rgb(
    root: Path, layout: str = "folders", videos: Mapping[str, int] = VIDEOS, missing: Iterable = ()
) -> Path:
    """Write RGB frames 1, 2, ... of each video in one of `LAYOUTS`, without the missing numbers."""
    for video, count in videos.items():
        if layout == "segments":
            _write_segments(root, video)
            continue
        images = {
            f"frame_{number:010d}.jpg": _jpeg(number)
            for number in range(1, count + 1)
            if number not in missing
        }
        _write_images(root, video, "rgb", layout, images)
    return root


def write_flow(
    root: Path, layout: str = "folders", videos: Mapping[str, int] = VIDEOS, missing: Iterable = ()
) -> Path:
    """Write flow u/ and v/ of videos of so many RGB frames: every second frame, PXX_1YY: all."""
    for video, count in videos.items():
        images = {
            f"{component}/frame_{number:010d}.jpg": _jpeg(shown, "L")
            for number in range(1, flow_length(video, count) + 1)
            for component, shown in (("u", number), ("v", MAX_NUMBER - number))
            if number not in missing
        }
        _write_images(root, video, "flow", layout, images)
    return root


def write_videos(
    root: Path,
    pattern: str = "{participant}/videos/{video}.MP4",
    videos: Mapping[str, int] = VIDEOS,
    rate: int | Fraction | None = None,
) -> Path:
    """Write a video file for each video, of frames that show 1, 2, ...

    Args:
        root: the folder.
        pattern: path under the root, of {participant} and {video}.
        videos: number of frames of each, at the nominal rate.
        rate: frames per second of the files; the nominal ones if None. Durations stay.
    """
    for video, count in videos.items():
        path = root / pattern.format(participant=_participant(video), video=video)
        own_rate = Fraction(rate or nominal_rate(video))
        write_video(path, round(count * own_rate / nominal_rate(video)), own_rate)
    return root


def write_video(path: Path, count: int, rate: int | Fraction) -> Path:
    """Write an MPEG-4 video whose frames show 1 ... count, with a key frame every 12."""
    av = pytest.importorskip("av", reason="PyAV (package `av`) is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 12
        for number in range(1, count + 1):
            frame = av.VideoFrame.from_ndarray(np.stack([_picture(number)] * 3, -1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_csvs(folder: Path, videos: Iterable[str] = VIDEOS) -> dict[str, Path]:
    """Write the rows of these videos in the official columns and under the official names.

    Returns:
        Paths by "55 train", "100 validation" and "100 test".
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows_55 = [_row(segment, "uid") for segment in segments(videos, epic_55=True)]
    rows_100 = [_row(segment, "narration_id") for segment in segments(videos)]
    tables = {
        "55 train": ("EPIC_train_action_labels.csv", rows_55, _COLUMNS_55),
        "100 validation": ("EPIC_100_validation.csv", rows_100, _COLUMNS_100),
        "100 test": ("EPIC_100_test_timestamps.csv", rows_100, _COLUMNS_100[:8]),
    }
    for name, rows, columns in tables.values():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    return {key: folder / name for key, (name, _, _) in tables.items()}


def segments(videos: Iterable[str] = VIDEOS, *, epic_55: bool = False) -> list[Segment]:
    """Return the rows of "100 validation", or of "55 train"."""
    found, narrations = [], dict.fromkeys(videos, 0)
    for uid, video, times, (verb, *verbs), (noun, *nouns) in SEGMENTS:
        if video not in narrations or (epic_55 and uid is None):
            continue
        found.append(
            Segment(
                id=str(uid) if epic_55 else f"{video}_{narrations[video]}",
                video=video,
                participant=_participant(video),
                frames=(frame_number(video, times[0]), frame_number(video, times[1])),
                seconds=times,
                narration=f"{verb.replace('-', ' ')} {noun}",
                verb=verb,
                verb_class=verbs[not epic_55],
                noun=noun,
                noun_class=nouns[not epic_55],
            )
        )
        narrations[video] += 1
    return found


def _is_extension(video: str) -> bool:
    return len(video.partition("_")[2]) == 3


def _row(segment: Segment, id_column: str) -> dict[str, object]:
    """Return a row with all columns that occur."""
    start, stop = (f"00:00:{seconds:05.2f}" for seconds in segment.seconds)
    return {
        id_column: segment.id,
        "participant_id": segment.participant,
        "video_id": segment.video,
        "narration_timestamp": start,
        "start_timestamp": start,
        "stop_timestamp": stop,
        "start_frame": segment.frames[0],
        "stop_frame": segment.frames[1],
        "narration": segment.narration,
        "verb": segment.verb,
        "verb_class": segment.verb_class,
        "noun": segment.noun,
        "noun_class": segment.noun_class,
        "all_nouns": [segment.noun],
        "all_noun_classes": [segment.noun_class],
    }


def _participant(video: str) -> str:
    return video.partition("_")[0]


def _picture(number: int) -> np.ndarray:
    """Return grey levels (HEIGHT, WIDTH) with one bar for each bit of the number."""
    bits = np.array([255 * (number >> bit & 1) for bit in range(BITS)], dtype=np.uint8)
    return np.broadcast_to(bits.repeat(WIDTH // BITS), (HEIGHT, WIDTH))


@cache  # writing a dataset for each test is cheap then
def _jpeg(number: int, mode: str = "RGB") -> bytes:
    data = io.BytesIO()
    Image.fromarray(_picture(number)).convert(mode).save(data, format="JPEG")
    return data.getvalue()


def _write_images(
    root: Path, video: str, kind: str, layout: str, images: Mapping[str, bytes]
) -> None:
    participant = _participant(video)
    folder = root / participant if layout == "folders" else root / participant / f"{kind}_frames"
    if layout == "split tars":
        folder = root / kind / "train" / participant
    if layout in ("tars", "split tars"):
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / f"{video}.tar", "w") as tar:
            for name, data in images.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return
    for name, data in images.items():
        path = folder / video / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _write_segments(root: Path, video: str) -> None:
    """Write the frames of each segment of EPIC-KITCHENS-55, from number 1, without stop frames."""
    for segment in segments([video], epic_55=True):
        narration = segment.narration.lower().replace(" ", "-")
        folder = root / segment.participant / video / f"{video}_{segment.id}_{narration}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, shown in enumerate(range(*segment.frames), start=1):
            (folder / f"frame_{number:010d}.jpg").write_bytes(_jpeg(shown))
