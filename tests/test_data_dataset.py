"""Clips of annotated segments: which frames, in which form; and what is found before a run."""

import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.epic_dataset import (
    LAYOUTS,
    MAX_NUMBER,
    VIDEOS,
    numbers_in,
    segments,
    write_flow,
    write_rgb,
    write_video,
    write_videos,
)
from torch.utils.data import DataLoader

from data.dataset import ClipDataset, Problem
from data.frame_numbers import frame_numbers
from data.sampling import segment_indices
from data.segments import Segment
from data.video import FrameFolder, load_clip


def dataset(rows: list[Segment], root: Path, **options) -> ClipDataset:
    return ClipDataset(rows, root, **({"modality": "RGB", "num_segments": 3} | options))


def lines(clips: ClipDataset) -> list[str]:
    return [str(problem) for problem in clips.problems()]


def expected_numbers(segment: Segment, modality: str, length: int = 1, **options) -> list[int]:
    """Return the numbers of the frames at the middles of three parts."""
    numbers = frame_numbers(segment, modality, **options)
    indices = segment_indices(len(numbers), 3, length).flatten()
    return (indices + numbers.start).tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("include_stop", [False, True])
def test_rgb_in_every_layout(tmp_path: Path, layout: str, include_stop: bool) -> None:
    if layout == "segments" and include_stop:
        pytest.skip("folders of single segments have no stop frames")
    rows = segments(epic_55=layout == "segments")
    clips = dataset(rows, write_rgb(tmp_path, layout), include_stop=include_stop)
    assert clips.problems() == []
    assert len(clips) == len(rows)
    for item, segment in zip(clips, rows, strict=True):
        expected = expected_numbers(segment, "RGB", include_stop=include_stop)
        assert numbers_in(item["clip"]) == expected


@pytest.mark.parametrize("layout", ["folders", "downloads", "tars", "split tars"])
def test_flow_in_every_layout(tmp_path: Path, layout: str) -> None:
    rows = segments()
    clips = dataset(rows, write_flow(tmp_path, layout), modality="flow", include_stop=True)
    assert clips.problems() == []
    for item, segment in zip(clips, rows, strict=True):
        clip = item["clip"]
        assert clip.shape == (15, 2, 64, 96)
        expected = expected_numbers(segment, "Flow", 5)
        assert numbers_in(clip) == expected
        assert numbers_in(clip[:, 1:]) == [MAX_NUMBER - number for number in expected]


@pytest.mark.parametrize("rate", [None, 30, 90])
def test_video_files_of_any_rate(tmp_path: Path, rate: int | None) -> None:
    rows = segments()
    clips = dataset(rows, write_videos(tmp_path, rate=rate))
    assert clips.problems() == []
    for item, segment in zip(clips, rows, strict=True):
        nominal = 50 if segment.video == "P02_101" else 60
        seconds = [(number - 1) / nominal for number in expected_numbers(segment, "RGB")]
        shown = [(number - 1) / (rate or nominal) for number in numbers_in(item["clip"])]
        # The frame that begins nearest, or at a lower rate the last one that has begun.
        assert shown == pytest.approx(seconds, abs=max(0.51 / nominal, 1 / (rate or 100)))


def test_a_rate_of_ones_own(tmp_path: Path) -> None:
    write_video(tmp_path / "P01_11.mp4", 60, 30)
    row = Segment(id="1", video="P01_11", frames=(10, 40))
    assert numbers_in(dataset([row], tmp_path, rate=30)[0]["clip"]) == [15, 25, 35]
    assert numbers_in(dataset([row], tmp_path)[0]["clip"]) == [8, 13, 18]


def test_other_data(tmp_path: Path) -> None:
    write_video(tmp_path / "a" / "clip.mp4", 60, 30)
    write_rgb(tmp_path, videos={"P01_11": 30})
    rows = [
        Segment(id="whole", video="a/clip.mp4", label_class=4),
        Segment(id="seconds", video=str(tmp_path / "a/clip.mp4"), seconds=(0.5, 1.5)),
        Segment(id="frames", video="a/clip.mp4", frames=(10, 40)),
        Segment(id="images", video="P01/P01_11"),
        Segment(id="numbers", video="P01/P01_11", frames=(7, 13)),
    ]
    clips = dataset(rows, tmp_path)
    assert clips.problems() == []
    assert [numbers_in(item["clip"]) for item in clips] == [
        [11, 31, 51],
        [21, 31, 41],
        [15, 25, 35],
        [6, 16, 26],
        [8, 10, 12],
    ]
    assert [item.get("label_class") for item in clips] == [4, None, None, None, None]


def test_an_item(tmp_path: Path) -> None:
    rows = segments()
    rows[1] = replace(rows[1], verb_class=None, noun_class=None)
    clips = dataset(rows, write_rgb(tmp_path))
    item = clips[-1]
    clip = item.pop("clip")
    assert clip.shape == (3, 3, 64, 96)
    assert clip.dtype == torch.uint8
    assert item == {"id": "P02_101_1", "index": 6, "verb_class": 2, "noun_class": 4}
    assert clips[1].keys() == {"clip", "id", "index"}
    with pytest.raises(IndexError):
        clips[len(rows)]


def test_clips_are_those_of_load_clip(tmp_path: Path) -> None:
    segment = Segment(id="1", video="P01_11", frames=(20, 23))  # shorter than a snippet
    write_rgb(tmp_path)
    options = {"num_segments": 3, "new_length": 5, "modality": "RGBDiff"}
    clip = ClipDataset([segment], tmp_path, **options)[0]["clip"]
    folder = tmp_path / "P01/P01_11"
    assert torch.equal(clip, load_clip(folder, **options, start=20, stop=23, by_number=True))
    assert numbers_in(clip[:6]) == [20, 21, 22, 22, 22, 22]


def test_random_clips_follow_the_seed(tmp_path: Path) -> None:
    clips = dataset(segments(), write_rgb(tmp_path), mode="train")
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(numbers_in(clips[1]["clip"]))
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) <= set(range(31, 113))


def test_frames_are_resized_and_transformed(tmp_path: Path) -> None:
    write_rgb(tmp_path)
    clips = dataset(segments(), tmp_path, short_side=32, transform=lambda clip: clip.float() / 255)
    clip = clips[0]["clip"]
    assert clip.shape == (3, 3, 32, 48)
    assert clip.dtype == torch.float32
    assert clip.max() <= 1


def test_only_sampled_frames_are_read_in_one_pass(tmp_path: Path, monkeypatch) -> None:
    write_rgb(tmp_path, "tars")
    asked = []
    original = FrameFolder._frames

    def noted(self, indices):
        asked.append(indices)
        return original(self, indices)

    monkeypatch.setattr(FrameFolder, "_frames", noted)
    assert len(dataset(segments(), tmp_path, mode="twice")[0]["clip"]) == 6
    assert asked == [[0, 5, 11, 17, 22, 28]]


def test_each_video_is_opened_once(tmp_path: Path, monkeypatch) -> None:
    write_rgb(tmp_path)
    opened = []
    original = FrameFolder.__init__

    def noted(self, path):
        opened.append(Path(path).name)
        original(self, path)

    monkeypatch.setattr(FrameFolder, "__init__", noted)
    clips = dataset(segments(), tmp_path)
    assert opened == []
    assert lines(clips) == []
    assert len(list(clips)) == 7
    assert opened == list(VIDEOS)


@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same(tmp_path: Path, start_method: str) -> None:
    write_videos(tmp_path)
    clips = dataset(segments(), tmp_path)
    clips = pickle.loads(pickle.dumps(clips))
    loader = DataLoader(clips, 2, num_workers=2, multiprocessing_context=start_method)
    batches = list(loader)
    assert torch.equal(
        torch.cat([batch["clip"] for batch in batches]), torch.stack([i["clip"] for i in clips])
    )
    assert [name for batch in batches for name in batch["id"]] == [row.id for row in clips.segments]
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(7))
    assert torch.cat([batch["verb_class"] for batch in batches]).tolist() == [0, 1, 3, 3, 2, 0, 2]


# Checks before a long run


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


def test_flow_of_one_frame_is_empty(tmp_path: Path) -> None:
    write_flow(tmp_path)
    row = Segment(id="1", video="P01_11", frames=(7, 8))
    (line,) = lines(dataset([row], tmp_path, modality="Flow"))
    assert line == f"{tmp_path}/P01/P01_11: no frame between start and stop (1)"


def test_wrong_options_are_named(tmp_path: Path) -> None:
    for options, message in (
        ({"modality": "Depth"}, "modality must be one of"),
        ({"num_segments": 0}, "num_segments must be a positive integer"),
        ({"new_length": 0}, "new_length must be a positive integer"),
        ({"mode": "testing"}, "mode must be one of"),
        ({"rate": 0}, "rate must be positive, in frames per second, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            dataset([], tmp_path, **options)
    with pytest.raises(FileNotFoundError, match=r"root: .*nowhere is no folder"):
        dataset([], tmp_path / "nowhere")
