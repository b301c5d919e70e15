"""The videos of a run: their names, and the rates of their frames."""

from pathlib import Path

import pytest
from helpers.epic_dataset import write_flow, write_rgb, write_video

from data.dataset import ClipDataset
from data.segments import Segment
from engine.video_list import list_videos, list_videos_of_segments


def test_frames_of_the_dataset_have_published_rates(tmp_path: Path) -> None:
    frames = {"P01_11": 9, "P02_101": 9}
    write_rgb(tmp_path / "rgb", videos=frames)
    write_flow(tmp_path / "flow", videos=frames)
    rgb = list_videos([tmp_path / "rgb"], "RGB")
    assert [(video.id, video.fps) for video in rgb] == [("P01_11", 60), ("P02_101", 50)]
    flow = list_videos([tmp_path / "flow"], "Flow")
    assert [(video.id, video.fps) for video in flow] == [("P01_11", 30), ("P02_101", 50)]
    assert [video.fps for video in list_videos([tmp_path / "flow"], "Flow", 24, 3)] == [8, 8]


def test_rates_of_other_images_are_given(tmp_path: Path) -> None:
    write_rgb(tmp_path, videos={"P01_11": 9})
    other = (tmp_path / "P01" / "P01_11").rename(tmp_path / "other")
    assert list_videos([other], "RGB")[0].fps is None
    assert list_videos([other], "RGB", 24)[0].fps == 24


def test_names_of_folders_are_whole_and_links_keep_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rgb(tmp_path, videos={"P01_11": 9})
    folders = [tmp_path / "cam.1", tmp_path / "cam.2"]
    (tmp_path / "P01" / "P01_11").rename(folders[0])
    folders[1].symlink_to(folders[0])
    assert [video.id for video in list_videos(folders, "RGB")] == ["cam.1", "cam.2"]
    monkeypatch.chdir(folders[0])
    assert [video.id for video in list_videos([Path(".")], "RGB")] == ["cam.1"]
    segments = [Segment(path.name, path.name) for path in folders]
    dataset = ClipDataset(segments, tmp_path, modality="RGB", num_segments=1)
    assert [video.id for video in list_videos_of_segments(dataset, segments)] == ["cam.1", "cam.2"]


def test_names_of_plain_clips_are_their_paths(tmp_path: Path) -> None:
    for name in ("a/one.mp4", "b/one.mp4", "b/one.avi"):
        write_video(tmp_path / name, 3, 25)
    segments = [Segment(f"{index}", f"{name}/one.mp4") for index, name in enumerate("aba")]
    dataset = ClipDataset(segments, tmp_path, modality="RGB", num_segments=1)
    videos = list_videos_of_segments(dataset, segments)
    assert [(video.id, len(video.segments)) for video in videos] == [("a/one", 2), ("b/one", 1)]
    for path, message in (("b/one.avi", "names that differ"), ("../up.mp4", "inside the dataset")):
        write_video(tmp_path / path, 3, 25)
        more = [*segments, Segment("x", path)]
        with pytest.raises(ValueError, match=message):
            list_videos_of_segments(dataset, more)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_rates_that_cannot_be(tmp_path: Path, fps: float) -> None:
    write_rgb(tmp_path / "rgb")
    with pytest.raises(ValueError, match="fps must be a positive number"):
        list_videos([tmp_path / "rgb"], "RGB", fps)
    with pytest.raises(ValueError, match="flow_stride must be a positive integer"):
        list_videos([tmp_path / "rgb"], "RGB", None, 0)
