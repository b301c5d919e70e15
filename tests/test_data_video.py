"""`load_clip`: the sampled frames of any clip; and what all sources of frames share."""

import numpy as np
import pytest
import torch
from helpers.numbered_images import values
from helpers.video_kinds import videos_fixture  # noqa: F401 -- a fixture
from helpers.videos import COUNT, decoded, number_in
from PIL import Image

from data.sampling import segment_indices
from data.video import FrameArray, FrameRange, FrameSource, VideoFile, load_clip, open_frames


def test_a_range_is_a_source(six_frames, videos):
    part = FrameRange(FrameArray(six_frames), 2, 5)
    assert (len(part), part.channels) == (3, 3)
    assert values(part.read([0, 2])) == [[2] * 3, [4] * 3]
    assert values(FrameRange(part, 1).read([1, 0])) == [[4] * 3, [3] * 3]
    with pytest.raises(ValueError, match=r"in 0 \.\.\. 2, got 3"):
        part.read([3])
    video = FrameRange(VideoFile(videos("h264 in MP4")[0]), 30, 40)
    assert video.fps == 25
    assert number_in(video.read([5])[0]) == 35


def test_a_flow_model_cannot_read_a_video_file(videos):
    path, _ = videos("h264 in MP4")
    with pytest.raises(ValueError, match=r"computed beforehand; accepted are .*u/ and v/"):
        open_frames(str(path), "Flow")


@pytest.mark.essential
@pytest.mark.parametrize(
    ("modality", "new_length", "mode", "shape"),
    [
        ("RGB", 1, "test", (8, 3, 6, 7)),
        ("rgb", 1, "twice", (16, 3, 6, 7)),
        ("RGBDiff", 5, "test", (48, 3, 6, 7)),
        ("Flow", 5, "test", (40, 2, 6, 7)),
        ("Flow", 5, "dense-test", (400, 2, 6, 7)),
    ],
)
@pytest.mark.parametrize("count", [1, 4, 100])
def test_shape_of_loaded_clips(modality, new_length, mode, shape, count):
    clip = torch.zeros(count, shape[1], 6, 7, dtype=torch.uint8)
    frames = load_clip(clip, num_segments=8, new_length=new_length, modality=modality, mode=mode)
    assert frames.dtype == torch.uint8
    assert frames.shape == shape


@pytest.mark.essential
def test_loaded_frames_are_the_sampled_ones(videos):
    path, expected = videos("h264 in MP4")
    indices = segment_indices(COUNT, 8, 1).flatten()
    assert torch.equal(load_clip(path, num_segments=8), expected[indices])
    # A snippet of differences has one frame more, and the formula knows it.
    indices = segment_indices(20, 3, 6).flatten() + 10
    frames = load_clip(path, num_segments=3, new_length=5, modality="RGBDiff", start=10, stop=30)
    assert torch.equal(frames, expected[indices])


def test_channels_that_lie_together_stay_together(videos, tmp_path):
    path, _ = videos("h264 in MP4")
    Image.new("RGB", (9, 8)).save(tmp_path / "img_00001.png")
    together = np.zeros((3, 8, 9, 3), dtype=np.uint8)
    for clip in (path, tmp_path, together):
        frames = load_clip(clip, num_segments=3)
        assert frames.is_contiguous(memory_format=torch.channels_last)
    planes = np.ascontiguousarray(together.transpose(0, 3, 1, 2))
    assert load_clip(planes, num_segments=3).is_contiguous()


def test_training_draws_follow_the_generator(six_frames):
    clip = six_frames.repeat(8, 1, 1, 1)
    draws = [
        load_clip(clip, num_segments=4, mode="train", generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_only_sampled_frames_are_asked_for():
    class Counting(FrameSource):
        name, channels, asked = "counting", 3, 0

        def __len__(self):
            return 10**9

        def _frames(self, indices):
            for index in indices:
                self.asked += 1
                yield index, torch.full((3, 4, 4), index % 251, dtype=torch.uint8)

    source = Counting()
    frames = load_clip(source, num_segments=8, new_length=1, start=5)
    assert source.asked == 8
    expected = segment_indices(10**9 - 5, 8, 1).flatten() + 5
    assert values(frames) == [[index % 251] * 3 for index in expected.tolist()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_segments": 0}, "num_segments"),
        ({"new_length": 0}, "new_length"),
        ({"new_length": 0, "modality": "RGBDiff"}, "new_length"),
        ({"mode": "middle"}, "mode"),
        ({"stop": 7}, "start and stop"),
    ],
)
def test_wrong_options_are_named(options, message, six_frames):
    with pytest.raises(ValueError, match=message):
        load_clip(six_frames, **({"num_segments": 3} | options))


@pytest.mark.parametrize(
    ("name", "count", "fps"), [("arm_wrestling.mp4", 280, 28), ("short.avi", 164, 25)]
)
def test_real_videos(name, count, fps, epic_test_data):
    path = epic_test_data / "clips" / name
    source, expected = VideoFile(path), decoded(path)
    assert (len(source), source.fps) == (count, fps)
    for index in range(0, count, 31):
        assert torch.equal(source.read([index])[0], expected[index])
    assert source.index_at(2.0) == 2 * fps
    indices = segment_indices(count, 8, 1).flatten()
    assert torch.equal(load_clip(path, num_segments=8), expected[indices])


def test_real_folder(epic_test_data):
    folder = epic_test_data / "clips" / "frames"
    rgb, flow = open_frames(folder), open_frames(folder, "Flow")
    assert (len(rgb), len(flow)) == (10, 5)
    assert rgb.read([9, 0]).shape == (2, 3, 240, 320)
    expected = [np.asarray(Image.open(folder / f"{half}_00002.jpg")) for half in "xy"]
    assert np.array_equal(flow.read([1])[0], np.stack(expected))
    frames = load_clip(folder, num_segments=8, new_length=5, modality="Flow")
    assert frames.shape == (40, 2, 240, 320)
    assert abs(frames.float().mean() - 128) < 10


@pytest.mark.parametrize(("modality", "frames"), [("RGB", 1), ("Flow", 5), ("RGBDiff", 6)])
def test_snippets_are_as_long_as_the_models_unless_told(modality: str, frames: int) -> None:
    channels = 2 if modality == "Flow" else 3
    clip = torch.zeros(20, channels, 8, 8, dtype=torch.uint8)
    assert len(load_clip(clip, num_segments=2, modality=modality)) == 2 * frames
