"""Which snippets make the rows of a video, along it and for its segments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.counting import NoiseFrames, tiny
from helpers.epic_dataset import number_in, write_flow, write_rgb, write_videos

from data.dataset import ClipDataset
from data.segments import Segment
from data.video import open_frames
from engine.video_rows import DenseOptions, VideoRows, dense_rows, segment_rows

VIDEO = {"P01_11": 40}


def dense(source: Any, variant: str = "TSN", fps: float | None = None, **options: Any) -> VideoRows:
    model = tiny(variant, "Flow", new_length=5) if source.channels == 2 else tiny(variant)
    return dense_rows(model, source, DenseOptions(**options), fps)


def members(rows: VideoRows) -> list[list[int]]:
    """First frames of the snippets in each row, by index in the source."""
    places = rows.row_starts[:, None] + np.arange(rows.row_length)
    return rows.snippets.starts[rows.items[places]].tolist()


def test_without_options_each_frame_is_a_row() -> None:
    rows = dense(NoiseFrames(5))
    assert members(rows) == [[0], [1], [2], [3], [4]]
    assert rows.frames.tolist() == [0, 1, 2, 3, 4]
    assert (rows.seconds, rows.fps, rows.first_frame, rows.ids) == (None, None, 0, None)


def test_windows_of_a_stride_are_full() -> None:
    rows = dense(NoiseFrames(11), stride=3, window=4, fps=10.0)
    assert members(rows) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert rows.snippets.frames.tolist() == list(range(10))
    assert rows.seconds is not None
    assert rows.seconds.tolist() == pytest.approx([0, 0.3, 0.6])
    assert members(dense(NoiseFrames(3), stride=3, window=4)) == [[0, 1, 2]]


def test_frames_between_distant_rows_are_not_read() -> None:
    rows = dense(NoiseFrames(100), stride=40, window=2)
    assert rows.snippets.frames.tolist() == [0, 1, 40, 41, 80, 81]


@pytest.mark.parametrize("rate", [10, 25, 30, 60])
def test_a_rate_takes_the_frame_nearest_in_time(tmp_path: Path, rate: float) -> None:
    write_videos(tmp_path, "{video}.mp4", {"P02_101": 50}, 25)
    rows = dense(open_frames(tmp_path / "P02_101.mp4"), rate=rate)
    assert len(rows.frames) == rate  # the video lasts a second
    times = rows.frames / 25
    assert np.abs(times - np.arange(rate) / rate).max() <= max(0.5 / rate, 1 / 25) + 1e-9
    assert len(rows.snippets.windows) == min(rate, 25)  # each frame is seen once
    assert rows.fps == 25


def test_a_rate_of_images_wants_theirs() -> None:
    with pytest.raises(ValueError, match="noise: its frame rate is not known"):
        dense(NoiseFrames(9), rate=30.0)
    assert members(dense(NoiseFrames(10), rate=30.0, fps=60.0)) == [[0], [2], [4], [6], [8]]


def test_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    write_flow(tmp_path, videos=VIDEO)
    rows = dense(open_frames(tmp_path / "P01" / "P01_11", "Flow"), stride=4, fps=30.0)
    assert rows.frames.tolist() == [1, 5, 9, 13]  # of 19 flow images, 5 in a snippet
    assert rows.first_frame == 1
    assert rows.snippets.frames.tolist() == list(range(17))


def test_missing_images_are_named_or_left_out(tmp_path: Path) -> None:
    write_rgb(tmp_path, videos=VIDEO, missing=(7, 8, 20))
    source = open_frames(tmp_path / "P01" / "P01_11")
    with pytest.raises(ValueError, match=r"P01_11: no frame has number 7, 8, 20$"):
        dense(source)
    rows = dense(source, skip_missing=True)
    assert rows.frames.tolist() == [n for n in range(1, 41) if n not in (7, 8, 20)]
    assert rows.skipped[0].endswith("no frame has number 7, 8, 20")
    read = source.read(rows.snippets.frames)
    assert [number_in(frame) for frame in read] == rows.frames.tolist()
    assert dense(source, stride=8).frames.tolist() == [1, 9, 17, 25, 33]  # none of them is read


def test_temporal_pooling_has_a_row_for_every_second_step() -> None:
    model = tiny("TSM", temporal_pool=True)
    rows = dense_rows(model, NoiseFrames(9), DenseOptions(stride=2), 10.0)
    assert rows.frames.tolist() == [0, 4, 8]


SEGMENTS = [
    Segment("c", "P01_11", frames=(20, 36)),
    Segment("a", "P01_11", frames=(1, 17)),
    Segment("b", "P01_11", frames=(5, 21)),
    Segment("d", "P01_11", frames=(9, 11)),
]


def of_segments(root: Path, variant: str = "TSN", **options: Any) -> tuple[VideoRows, ClipDataset]:
    model = tiny(variant, segments=4)
    dataset = ClipDataset(SEGMENTS, root, modality="RGB", num_segments=4, **options)
    path, _ = dataset.find_video(SEGMENTS[0])
    return segment_rows(model, open_frames(path), dataset, SEGMENTS, 60.0), dataset


@pytest.mark.parametrize("variant", ["TSN", "TSM"])
def test_segments_have_the_frames_of_the_dataset(tmp_path: Path, variant: str) -> None:
    write_rgb(tmp_path, videos=VIDEO)
    rows, dataset = of_segments(tmp_path, variant)
    assert rows.ids == ["a", "b", "d", "c"]  # in the order of time
    clips = {item["id"]: item["clip"] for item in map(dataset.__getitem__, range(4))}
    for name, frames in zip(rows.ids, rows.frames.tolist(), strict=True):
        assert [number_in(frame) for frame in clips[name]] == frames
    assert rows.seconds is not None
    assert rows.seconds.tolist() == ((rows.frames - 1) / 60).tolist()
    distinct = {number for frames in rows.frames.tolist() for number in frames}
    assert len(rows.snippets.frames) == len(distinct) < 16
    assert rows.snippets.windows.shape[:2] == ((4, 4) if variant == "TSM" else (len(distinct), 1))


def test_frames_of_a_slow_video_are_seen_once(tmp_path: Path) -> None:
    """At 60 numbers a second, two of them show one frame of a video of 30."""
    write_videos(tmp_path, videos=VIDEO, rate=30)
    rows, dataset = of_segments(tmp_path)
    clips = {item["id"]: item["clip"] for item in map(dataset.__getitem__, range(4))}
    source = open_frames(tmp_path / "P01" / "videos" / "P01_11.MP4")
    for name, frames in zip(rows.ids or [], rows.frames.tolist(), strict=True):
        assert clips[name].equal(source.read(frames))
    assert len(rows.snippets.windows) <= 20


def test_segments_without_their_frames_are_all_named(tmp_path: Path) -> None:
    write_rgb(tmp_path, videos={"P01_11": 30}, missing=(10,))
    with pytest.raises(ValueError, match=r"c: .* has number 34.*; d: .* has number 10") as error:
        of_segments(tmp_path)
    assert "b:" not in str(error.value)
