"""What a dataset finds before a long run, and going on without it."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.epic_dataset import segments, write_flow, write_rgb, write_video, write_videos

from data.dataset import ClipDataset, Problem
from data.segments import Segment


def dataset(rows: list[Segment], root: Path, **options) -> ClipDataset:
    return ClipDataset(rows, root, **({"modality": "RGB", "num_segments": 3} | options))


def lines(clips: ClipDataset) -> list[str]:
    return [str(problem) for problem in clips.problems()]


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    write_rgb(tmp_path, "folders", {"P01_11": 110, "P02_101": 100}, missing=(18, 90))
    write_flow(tmp_path, "downloads", {"P03_01": 20})
    rows = [
        *segments(),
        *(Segment(id=f"P01_12_{number}", video="P01_12", frames=(1, 9)) for number in range(2, 5)),
        Segment(id="P03_01_0", video="P03_01", frames=(1, 9)),
        Segment(id="P01_11_3", video="P01_11", frames=(111, 131)),
        Segment(id="P01_11_4", video="P01_11", frames=(9, 9)),
    ]
    clips = dataset(rows, tmp_path)
    folder = tmp_path / "P01/P01_11"
    assert lines(clips) == [
        f"P01_12: no RGB frames under {tmp_path} (5 segments)",
        f"P03_01: no RGB frames under {tmp_path}, only Flow in {tmp_path}/P03/flow_frames/P03_01 "
        "(P03_01_0)",
        f"{folder}: no frame between start and stop (P01_11_4)",
        f"{folder}: no frame has number 18, 114, 121, 127; there are 108 with numbers from 1 to "
        "110 (P01_11_0, P01_11_3)",
        f"{tmp_path}/P02/P02_101: no frame has number 90; there are 98 with numbers from 1 to 100 "
        "(P02_101_1)",
    ]
    with pytest.raises(ValueError, match=r"segment P01_11_0: .* no frame has number 18;"):
        clips[0]
    with pytest.raises(ValueError, match="segment P03_01_0: P03_01: no RGB frames under"):
        clips[10]
    with pytest.raises(ValueError, match=r"segment P01_11_4: .* no frame between start and stop"):
        clips[12]


def test_random_sampling_needs_all_frames(tmp_path: Path) -> None:
    write_rgb(tmp_path, videos={"P01_11": 120}, missing=(90,))
    rows = segments(["P01_11"])
    assert lines(dataset(rows, tmp_path)) == []
    (problem,) = dataset(rows, tmp_path, mode="train").problems()
    assert problem.ids == ("P01_11_1",)
    assert "no frame has number 90;" in problem.message


def test_going_on_without_what_is_wrong(tmp_path: Path, caplog) -> None:
    write_rgb(tmp_path, videos={"P01_11": 120})
    clips = dataset(segments(), tmp_path)
    with caplog.at_level(logging.WARNING):
        rest = clips.without(clips.problems())
    assert [segment.id for segment in rest.segments] == ["P01_11_0", "P01_11_1", "P01_11_2"]
    assert [item["index"] for item in rest] == [0, 1, 2]
    assert len(clips) == 7
    assert caplog.messages == [
        "4 of 7 segments are skipped:\n"
        f"P01_12: no RGB frames under {tmp_path} (P01_12_0, P01_12_1)\n"
        f"P02_101: no RGB frames under {tmp_path} (P02_101_0, P02_101_1)"
    ]
    caplog.clear()
    assert len(rest.without(rest.problems())) == 3
    assert not caplog.records
    with pytest.raises(ValueError, match="no segment can be read:\nall is wrong"):
        clips.without([Problem("all is wrong", tuple(row.id for row in clips.segments))])


@pytest.mark.parametrize("write", [None, write_rgb, write_videos])
def test_a_folder_without_the_videos(tmp_path: Path, write: Callable | None) -> None:
    if write:
        write(tmp_path)
    (line,) = lines(dataset(segments(), tmp_path, modality="Flow"))
    assert line.startswith(f"{tmp_path}: none of the videos is there, such as P01_11: no Flow")
    assert "PXX/flow_frames/PXX_YY/{u,v}/*.jpg" in line
    assert line.endswith("(7 segments)")
    assert ("only RGB in" in line) == (write is not None)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    write_rgb(tmp_path, "tars", {"P01_12": 90})
    write_flow(tmp_path, "tars", {"P02_101": 100})
    (tmp_path / "P02/flow_frames").rename(tmp_path / "P02/rgb_frames")
    (tmp_path / "P01_11.MP4").write_bytes(b"no video")
    found = dataset(segments(), tmp_path).problems()
    assert [problem.ids[0] for problem in found] == ["P01_11_0", "P02_101_0"]
    assert "P01_11.MP4" in found[0].message
    assert "no numbered RGB images" in found[1].message


def test_segments_that_videos_do_not_have(tmp_path: Path) -> None:
    write_videos(tmp_path, videos={"P01_11": 60}, rate=30)
    write_video(tmp_path / "clip.mp4", 60, 30)
    rows = [
        Segment(id="late", video="P01_11", frames=(50, 80)),
        Segment(id="after", video="clip.mp4", seconds=(3.0, 4.0)),
        Segment(id="sound", video="clip.mp4", seconds=(1.0, 2.5)),
    ]
    assert lines(dataset(rows, tmp_path)) == [
        f"{tmp_path}/P01/videos/P01_11.MP4: no frame has number 65, 75; there are 60 with numbers "
        "from 1 to 60 (late)",
        f"{tmp_path}/clip.mp4: ends after 2.00 seconds, before a segment does (after)",
    ]


def test_a_stop_far_away_takes_no_memory(tmp_path: Path) -> None:
    write_rgb(tmp_path, videos={"P01_11": 12})
    rows = [Segment(id="far", video="P01_11", frames=(1, 10**12))]
    (line,) = lines(dataset(rows, tmp_path))
    assert "no frame has number 166666666667, 500000000000, 833333333333; there are 12" in line


def test_flow_of_one_frame_is_empty(tmp_path: Path) -> None:
    write_flow(tmp_path)
    row = Segment(id="1", video="P01_11", frames=(7, 8))
    (line,) = lines(dataset([row], tmp_path, modality="Flow"))
    assert line == f"{tmp_path}/P01/P01_11: no frame between start and stop (1)"
