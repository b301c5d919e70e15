"""Clips of annotated segments: which frames, and in which form."""

import pickle
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
    write_csvs,
    write_flow,
    write_rgb,
    write_video,
    write_videos,
)
from helpers.videos import X264, encode, erase_packets
from torch.utils.data import DataLoader

from data.dataset import ClipDataset
from data.frame_numbers import frame_numbers
from data.sampling import segment_indices
from data.segments import Segment
from data.video import FrameFolder, load_clip
from epic.annotations import read_annotations


def dataset(rows: list[Segment], root: Path, **options) -> ClipDataset:
    return ClipDataset(rows, root, **({"modality": "RGB", "num_segments": 3} | options))


def expected_numbers(segment: Segment, modality: str, length: int = 1, **options) -> list[int]:
    """Return the numbers of the frames at the middles of three parts."""
    numbers = frame_numbers(segment, modality, **options)
    indices = segment_indices(len(numbers), 3, length).flatten()
    return (indices + numbers.start).tolist()


@pytest.mark.essential
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rgb_in_every_layout(tmp_path: Path, layout: str) -> None:
    alone = layout == "segments"  # those folders have no stop frames
    rows = segments(epic_55=alone)
    write_rgb(tmp_path, layout)
    for include_stop in (False,) if alone else (False, True):
        clips = dataset(rows, tmp_path, include_stop=include_stop)
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


def test_flow_of_another_stride(tmp_path: Path) -> None:
    write_flow(tmp_path)
    row = Segment(id="1", video="P01_11", frames=(7, 37))
    clips = dataset([row], tmp_path, modality="Flow", new_length=1, flow_stride=3)
    assert numbers_in(clips[0]["clip"]) == [4, 8, 11]


@pytest.mark.essential
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


def test_seconds_among_images(tmp_path: Path) -> None:
    write_rgb(tmp_path, videos={"P01_11": 90})
    write_flow(tmp_path / "flow", videos={"P01_11": 90})
    row = Segment(id="1", video="P01/P01_11", seconds=(1.0, 2.0))
    assert numbers_in(dataset([row], tmp_path, rate=30)[0]["clip"]) == [35, 45, 55]
    flow = dataset([row], tmp_path / "flow", modality="Flow", new_length=1, rate=30)
    assert numbers_in(flow[0]["clip"]) == [17, 22, 27]
    with pytest.raises(ValueError, match="segments with seconds need rate"):
        dataset([row], tmp_path)[0]


def test_a_frame_that_cannot_be_decoded_costs_its_segment(tmp_path: Path) -> None:
    sound = encode(tmp_path / "sound.mp4", "libx264", options=X264 | {"bf": "0", "g": "10"})
    erase_packets(sound, tmp_path / "clip.mp4", 39)
    rows = [Segment(id=str(stop), video="clip.mp4", frames=(stop - 9, stop)) for stop in (30, 45)]
    clips = dataset(rows, tmp_path, num_segments=9)
    assert len(clips[0]["clip"]) == 9
    with pytest.raises(ValueError, match=r"segment 45: .*frame 39 \(from 0\) cannot be decoded"):
        clips[1]


def test_rows_of_the_official_files(tmp_path: Path) -> None:
    csvs = write_csvs(tmp_path / "annotations")
    assert read_annotations(csvs["100 validation"]) == segments()
    assert read_annotations(csvs["55 train"]) == segments(epic_55=True)
    write_rgb(tmp_path)
    clips = dataset(read_annotations(csvs["100 test"]), tmp_path)
    assert [item.keys() for item in clips] == [{"clip", "id", "index"}] * 7


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
    assert clips.problems() == []
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


def test_wrong_options_are_named(tmp_path: Path) -> None:
    for options, message in (
        ({"modality": "Depth"}, "modality must be one of"),
        ({"num_segments": 0}, "num_segments must be a positive integer"),
        ({"new_length": 0}, "new_length must be a positive integer"),
        ({"mode": "testing"}, "mode must be one of"),
        ({"rate": 0}, "rate must be positive, in frames per second, got 0"),
        ({"rate": float("inf")}, "rate must be positive, in frames per second, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            dataset([], tmp_path, **options)
    with pytest.raises(FileNotFoundError, match=r"root: .*nowhere is no folder"):
        dataset([], tmp_path / "nowhere")
