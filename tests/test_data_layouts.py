"""Where videos are found, and which of several forms is taken."""

from pathlib import Path

import pytest
from helpers.epic_dataset import numbers_in, segments, write_flow, write_rgb
from helpers.numbered_images import save

from data.layouts import VideoFinder, describe_layouts, find_videos
from data.segments import Segment
from data.synthetic import make_flow
from data.video import open_frames

SMALL = {"P01_11": 12, "P02_101": 12}
PLACES = {
    "folders": ("{p}/{v}", "{p}/{v}"),
    "downloads": ("{p}/rgb_frames/{v}", "{p}/flow_frames/{v}"),
    "tars": ("{p}/rgb_frames/{v}.tar", "{p}/flow_frames/{v}.tar"),
    "split tars": ("rgb/train/{p}/{v}.tar", "flow/train/{p}/{v}.tar"),
}


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("layout", PLACES)
def test_official_layouts(tmp_path: Path, layout: str) -> None:
    write_rgb(tmp_path, layout, SMALL)
    write_flow(tmp_path, layout, SMALL)  # beside it
    for modality, place in zip(("RGB", "Flow"), PLACES[layout], strict=True):
        videos = find_videos(tmp_path, modality.lower())
        assert videos == {
            video: tmp_path / place.format(p=video[:3], v=video) for video in ("P01_11", "P02_101")
        }
        for path in videos.values():
            assert numbers_in(open_frames(path, modality).read([0, 2])) == [1, 3]
    assert find_videos(tmp_path, "RGBDiff") == find_videos(tmp_path, "RGB")


@pytest.mark.parametrize("layout", ["folders", "downloads"])
@pytest.mark.parametrize("write", [write_rgb, write_flow])
def test_folders_of_another_modality_are_no_videos(tmp_path: Path, layout: str, write) -> None:
    write(tmp_path, layout, SMALL)
    other = "Flow" if write is write_rgb else "RGB"
    assert find_videos(tmp_path, other) == {}


def test_the_halves_of_a_clip_are_no_videos(tmp_path: Path) -> None:
    write_flow(tmp_path, "folders", SMALL)
    assert find_videos(tmp_path / "P01/P01_11") == {}


def test_tars_below_the_folder_of_the_download_site(tmp_path: Path) -> None:
    write_flow(tmp_path / "frames_rgb_flow", "split tars", SMALL)
    assert list(find_videos(tmp_path, "Flow")) == ["P01_11", "P02_101"]
    assert list(find_videos(tmp_path / "frames_rgb_flow", "Flow")) == ["P01_11", "P02_101"]


def test_video_files(tmp_path: Path) -> None:
    names = {
        "P01_01": "P01/videos/P01_01.MP4",
        "P01_02": "videos/train/P01/P01_02.mp4",
        "P01_11": "videos/test/P01/P01_11.MP4",
        "P02_101": "P02/P02_101.Mkv",
        "P03_01": "P03_01.avi",
        "my clip": "my clip.webm",
    }
    touch(tmp_path, *names.values(), "P03_02.txt", ".P03_03.mp4", "P01/videos/P01_01.csv")
    expected = {video: tmp_path / name for video, name in names.items()}
    assert find_videos(tmp_path) == expected
    assert list(find_videos(tmp_path)) == sorted(names)
    assert find_videos(tmp_path, "Flow") == {}


def test_images_before_tars_before_video_files(tmp_path: Path) -> None:
    touch(tmp_path, "P01_11.mp4")
    assert find_videos(tmp_path) == {"P01_11": tmp_path / "P01_11.mp4"}
    write_rgb(tmp_path, "tars", {"P01_11": 2})
    assert find_videos(tmp_path) == {"P01_11": tmp_path / "P01/rgb_frames/P01_11.tar"}
    write_rgb(tmp_path, "downloads", {"P01_11": 2})
    assert find_videos(tmp_path) == {"P01_11": tmp_path / "P01/rgb_frames/P01_11"}


def test_a_video_twice_in_one_form_is_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.avi")
    with pytest.raises(ValueError, match=r"a is there several times, .*a\.(mp4|avi) and .*a\."):
        find_videos(tmp_path)


def test_links_to_one_video_are_that_video(tmp_path: Path) -> None:
    write_rgb(tmp_path, "folders", {"P01_11": 2})
    (tmp_path / "P01_11").symlink_to(tmp_path / "P01/P01_11")
    assert list(find_videos(tmp_path)) == ["P01_11"]


def test_plain_folders_of_images(tmp_path: Path) -> None:
    for name in ("a/img_00001.jpg", "both/img_00001.jpg", "both/flow_x_00001.jpg"):
        save(tmp_path, name, 1)
    save(tmp_path, "both/flow_y_00001.jpg", 1, "L")
    for name in ("u/c/frame_000001.jpg", "v/c/frame_000001.jpg"):
        save(tmp_path, name, 1, "L")
    assert list(find_videos(tmp_path)) == ["a", "both"]
    flow = find_videos(tmp_path, "Flow")
    assert list(flow) == ["both", "c"]
    assert all(len(open_frames(path, "Flow")) == 1 for path in flow.values())


def test_a_missing_root_and_an_unknown_modality(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find_videos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="modality must be one of RGB, Flow, RGBDiff"):
        find_videos(tmp_path, "Depth")


def test_videos_in_sub_folders(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    for name in ("b.mp4", "kitchen/monday.mp4", "kitchen/late/monday.MKV", ".cache/c.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    save(root / "kitchen/tuesday", "frame_0000000001.jpg", 1)
    save(root / "kitchen/tuesday/masks", "frame_0000000001.jpg", 1)
    save(root / "flow/kitchen/monday/u", "frame_0000000001.jpg", 1)
    save(root / "flow/kitchen/monday/v", "frame_0000000001.jpg", 1)
    assert find_videos(root) == {
        "b": root / "b.mp4",
        "kitchen/late/monday": root / "kitchen/late/monday.MKV",
        "kitchen/monday": root / "kitchen/monday.mp4",
        "kitchen/tuesday": root / "kitchen/tuesday",
    }
    assert find_videos(root / "flow", "Flow") == {
        "kitchen/monday": root / "flow/kitchen/monday",
    }


def test_the_folder_of_one_participant(tmp_path: Path) -> None:
    for name in ("rgb_frames/P01_01.tar", "flow_frames/P01_01.tar", "videos/P01_02.MP4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "object_detection_images").mkdir()
    (tmp_path / "object_detection_images/P01_03.tar").touch()
    rgb, flow = find_videos(tmp_path), find_videos(tmp_path, "Flow")
    assert rgb == {
        "P01_01": tmp_path / "rgb_frames/P01_01.tar", "P01_02": tmp_path / "videos/P01_02.MP4"
    }  # fmt: skip
    assert flow == {"P01_01": tmp_path / "flow_frames/P01_01.tar"}


def test_folders_of_single_segments(tmp_path: Path) -> None:
    write_rgb(tmp_path, "segments")
    finder = VideoFinder(tmp_path, "RGB")
    first, *_ = found = segments(epic_55=True)
    assert finder.find(first) == (tmp_path / "P01/P01_11/P01_11_1924_take-plate", True)
    assert all(finder.find(segment)[1] for segment in found)
    assert find_videos(tmp_path) == {}
    with pytest.raises(FileNotFoundError, match="P01_11: no RGB frames of this segment under"):
        finder.find(Segment(id="192", video="P01_11"))


@pytest.mark.parametrize("inside", ["{s}/{c}", "{c}/{s}"])
def test_flow_of_single_segments(tmp_path: Path, inside: str) -> None:
    for component in "uv":
        folder = inside.format(s="P01_11_7_unnarrated", c=component)
        save(tmp_path / "P01/P01_11" / folder, "frame_0000000001.jpg", 1, "L")
    finder = VideoFinder(tmp_path, "Flow")
    path, alone = finder.find(Segment(id="7", video="P01_11"))
    assert alone
    assert len(open_frames(path, "Flow")) == 1


def test_other_data_lie_at_their_paths(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.mp4", "b.mp4")
    finder = VideoFinder(tmp_path, "RGB")
    paths = {"train/a.mp4": "train/a.mp4", str(tmp_path / "b.mp4"): "b.mp4", "b": "b.mp4"}
    for video, path in paths.items():
        assert finder.find(Segment(id="1", video=video)) == (tmp_path / path, False)
    with pytest.raises(FileNotFoundError, match=r"c\.mp4: no RGB frames under"):
        finder.find(Segment(id="1", video="c.mp4"))


def test_flow_of_other_data_lies_at_the_path_without_its_suffix(tmp_path: Path) -> None:
    """One list of clips serves RGB and flow: videos/a.mp4 beside flow/a/u and flow/a/v."""
    folder = tmp_path / "train" / "a.b"
    folder.mkdir(parents=True)
    make_flow(folder, 1)
    finder = VideoFinder(tmp_path, "Flow")
    assert finder.find(Segment(id="1", video="train/a.b.MP4")) == (folder, False)
    assert finder.find(Segment(id="1", video="train/a.b")) == (folder, False)
    with pytest.raises(FileNotFoundError, match=r"c\.mp4: no Flow frames under"):
        finder.find(Segment(id="1", video="c.mp4"))


def test_a_missing_video_is_named_with_what_is_there(tmp_path: Path) -> None:
    write_rgb(tmp_path, "tars", {"P01_11": 2})
    finder = VideoFinder(tmp_path, "Flow")
    with pytest.raises(FileNotFoundError, match=r"no Flow frames under .*, only RGB in .*P01_11\."):
        finder.find(Segment(id="1", video="P01_11"))


def test_layouts_are_described() -> None:
    assert "PXX/videos/PXX_YY.MP4" in describe_layouts("RGB")
    assert "MP4" not in describe_layouts("Flow")
    assert "{u,v}" in describe_layouts("Flow")
