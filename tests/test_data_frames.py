"""What all sources share: frames by index, by number, in blocks, and resized."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.numbered_images import save, values
from PIL import Image

from data.sampling import segment_indices
from data.video import FrameArray, FrameRange, FrameSource, load_clip, open_frames
from data.views import NumberRange, ResizedFrames
from presets import evaluation_transform
from tsn import TSN


@pytest.mark.parametrize(
    "indices",
    [[2, 0, 2], (2, 0, 2), np.array([2, 0, 2]), torch.tensor([2, 0, 2]), np.uint8([2, 0, 2])],
)
def test_indices_of_any_integer_kind(indices, six_frames):
    assert values(FrameArray(six_frames).read(indices)) == [[2] * 3, [0] * 3, [2] * 3]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([-1], r"in 0 \.\.\. 5, got -1"),
        ([0, 6], r"in 0 \.\.\. 5, got 6"),
        ([], "at least one"),
        ([0.0], "integers.*float64"),
        ([True], "integers.*bool"),
        (torch.zeros(2, 2, dtype=torch.int64), r"one-dimensional.*\(2, 2\)"),
    ],
)
def test_indices_outside_the_clip_are_refused(indices, message, six_frames):
    with pytest.raises(ValueError, match=message):
        FrameArray(six_frames).read(indices)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (4, 2), (0, 7), (6, None)])
def test_ranges_outside_the_clip_are_refused(start, stop, six_frames):
    with pytest.raises(ValueError, match=r"start and stop must satisfy.* 6, "):
        FrameRange(FrameArray(six_frames), start, stop)


@pytest.mark.parametrize("value", [1.5, True, "2"])
@pytest.mark.parametrize("name", ["start", "stop"])
def test_ends_of_ranges_are_integers(name, value, six_frames):
    with pytest.raises(ValueError, match=f"{name} must be an integer or None, got {value!r}"):
        FrameRange(FrameArray(six_frames), **{name: value})
    part = FrameRange(FrameArray(six_frames), np.int64(2), np.int64(4))  # as pandas has them
    assert len(part) == 2


class FallingBack(FrameSource):
    """A source that gives frames again once, as a video does that is decoded from its start."""

    name, channels = "falling back", 3

    def __init__(self, again_at: int) -> None:
        self.again_at = again_at
        self.given = 0

    def __len__(self) -> int:
        return 7

    def _frames(self, indices):
        for index in [*indices[: self.again_at], *indices]:
            self.given += 1
            yield index, torch.full((3, 4, 6), index, dtype=torch.uint8)


@pytest.mark.parametrize("again_at", [0, 1, 4, 7])
@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (50, [7])])
def test_blocks_give_every_frame_once_and_in_order(again_at, size, lengths):
    source = FallingBack(again_at)
    blocks = list(source.blocks(size))
    assert [len(block) for block in blocks] == lengths
    assert values(torch.cat(blocks)) == [[index] * 3 for index in range(7)]
    assert source.given == 7 + again_at  # one pass, whatever the size


def test_blocks_do_not_read_ahead():
    source = FallingBack(0)
    blocks = source.blocks(2)
    assert source.given == 0
    next(blocks)
    assert source.given == 2


def test_blocks_are_as_read_gives_them(six_frames):
    together = FrameArray(six_frames.permute(0, 2, 3, 1).contiguous().numpy())
    for source in (FrameArray(six_frames.contiguous()), together, FrameRange(together, 1, 5)):
        blocks = list(source.blocks(4))
        read = source.read(range(len(source)))
        assert torch.equal(torch.cat(blocks), read)
        assert blocks[0].stride() == read.stride()


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_the_size_of_blocks_is_checked_before_they_are_asked_for(size, six_frames):
    with pytest.raises(ValueError, match=f"size must be a positive integer, got {size}"):
        FrameArray(six_frames).blocks(size)


def test_blocks_refuse_frames_of_different_sizes():
    images = [Image.new("RGB", (8, 6)), Image.new("RGB", (8, 6)), Image.new("RGB", (8, 7))]
    blocks = open_frames(images).blocks(1)
    next(blocks), next(blocks)
    with pytest.raises(ValueError, match=r"frame 2 is 8 x 7 where another one is 8 x 6"):
        next(blocks)


# --- by number -----------------------------------------------------------------------------------


@pytest.fixture
def gaps(tmp_path) -> Path:
    """Frames 101, 102, 103, 107, 108, 110; each shows its number."""
    for number in (101, 102, 103, 107, 108, 110):
        save(tmp_path, f"frame_{number:010d}.jpg", number)
    return tmp_path


def shown(frames: torch.Tensor) -> list[int]:
    return [value[0] for value in values(frames)]


def test_numbers_and_their_indices(gaps, six_frames):
    source = open_frames(gaps)
    assert source.numbers.dtype == np.int64
    assert source.numbers.tolist() == [101, 102, 103, 107, 108, 110]
    part = FrameRange(source, 2, 5)
    assert part.numbers.tolist() == [103, 107, 108]
    resized = open_frames(gaps, short_side=5)
    assert resized.numbers.tolist() == source.numbers.tolist()
    assert (source.index_of(107), part.index_of(107), resized.index_of(np.uint8(107))) == (3, 1, 3)
    assert FrameArray(six_frames).numbers is None
    assert FrameRange(FrameArray(six_frames), 2).numbers is None


@pytest.mark.parametrize("number", [100, 104, 111, 0, -1, 10**30])
def test_numbers_that_are_not_there_are_named(number, gaps):
    with pytest.raises(ValueError, match=rf"no frame has number {number}; .* 6 .* 101 to 110"):
        open_frames(gaps).index_of(number)


@pytest.mark.parametrize("number", [1.0, "101", None, True])
def test_numbers_are_integers(number, gaps):
    with pytest.raises(ValueError, match=f"number must be an integer, got {number!r}"):
        open_frames(gaps).index_of(number)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (102, 104, [102, 103]),
        (103, 109, [103, 103, 103, 103, 107, 108]),
        (105, 106, [103]),
        (None, 103, [101, 102]),
        (108, None, [108, 108, 110]),
        (110, 111, [110]),
    ],
)
def test_clips_by_number(start, stop, expected, gaps):
    options = {"num_segments": len(expected), "start": start, "stop": stop, "by_number": True}
    assert shown(load_clip(gaps, **options)) == expected


def test_sampling_by_number_counts_what_is_missing(gaps):
    indices = segment_indices(10, 4, 1).flatten()  # 101 ... 110, as if all were there
    expected = [[101, 102, 103, 103, 103, 103, 107, 108, 108, 110][index] for index in indices]
    assert shown(load_clip(gaps, num_segments=4, by_number=True)) == expected


def test_flow_by_number(tmp_path):
    for number in (3, 5):
        save(tmp_path, f"u/frame_{number}.jpg", 10 + number, "L")
        save(tmp_path, f"v/frame_{number}.jpg", 20 + number, "L")
    frames = load_clip(
        tmp_path, num_segments=1, new_length=3, modality="Flow", start=3, stop=6, by_number=True
    )
    assert values(frames) == [[13, 23], [13, 23], [15, 25]]


@pytest.mark.parametrize(
    ("start", "stop"), [(100, 105), (105, 112), (105, 105), (0, 3), (107, 102)]
)
def test_numbers_outside_the_clip_are_named(start, stop, gaps):
    message = rf"101 <= start < stop <= 111, .*, got start={start}, stop={stop}"
    with pytest.raises(ValueError, match=message):
        load_clip(gaps, num_segments=1, start=start, stop=stop, by_number=True)
    with pytest.raises(ValueError, match=r"start must be an integer or None, got 101\.5"):
        load_clip(gaps, num_segments=1, start=101.5, by_number=True)


def test_frames_without_numbers_are_not_read_by_number(six_frames):
    with pytest.raises(ValueError, match=r"array of frames: frames have no numbers.*index_at"):
        load_clip(six_frames, num_segments=1, start=1, stop=3, by_number=True)
    with pytest.raises(ValueError, match="frames have no numbers"):
        FrameArray(six_frames).index_of(1)


def test_a_range_of_numbers_is_a_source(gaps):
    part = NumberRange(open_frames(gaps), 102, 109)
    assert (len(part), part.channels, part.name) == (7, 3, str(gaps))
    assert part.numbers.tolist() == list(range(102, 109))
    assert part.index_of(105) == 3
    expected = [102, 103, 103, 103, 103, 107, 108]
    assert shown(torch.cat(list(part.blocks(3)))) == expected
    assert shown(part.read([6, 0, 3, 3])) == [108, 102, 103, 103]
    assert shown(FrameRange(part, 3, 6).read([0, 2])) == [103, 107]


def test_huge_numbers_cost_nothing(tmp_path):
    for number in (10**15, 3 * 10**15):  # such as times in microseconds
        save(tmp_path, f"{number}.png", number % 7)
    frames = load_clip(tmp_path, num_segments=3, by_number=True)
    assert shown(frames) == [10**15 % 7] * 3


def test_a_gap_is_reported_once_when_it_is_read_over(gaps, caplog):
    source = open_frames(gaps)
    source.read([0, 1, 2])
    FrameRange(source, 3, 5).read([0, 1])
    assert not caplog.records
    source.read([1, 3])
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("data.frames", logging.WARNING)
    assert f"{gaps}: numbers 104 ... 106 are missing; indices pass over" in record.getMessage()
    source.read([0, 5])
    FrameRange(source, 1, 5).read([0, 3])
    list(source.blocks(2))
    load_clip(source, num_segments=9, by_number=True)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("read", [lambda s: s.read([0, 5]), lambda s: list(s.blocks(4))])
def test_several_gaps_are_counted(read, gaps, caplog):
    read(open_frames(gaps, short_side=10))
    assert "104 ... 106 are missing (the first of 2 gaps);" in caplog.text


def test_by_number_only_a_missing_number_that_is_wanted_is_reported(gaps, caplog):
    part = NumberRange(open_frames(gaps))
    part.read([0, 2, 6, 7])  # 101, 103, 107, 108: over the gap, and none in it
    assert not caplog.records
    part.read([8])
    assert f"{gaps}: number 109 is missing;" in caplog.text
    part.read([4])
    assert len(caplog.records) == 1


def test_indices_that_are_no_numbers_are_reported_once(gaps, tmp_path_factory, caplog):
    load_clip(gaps, num_segments=2)
    caplog.clear()
    for _ in range(2):
        load_clip(gaps, num_segments=1, start=1, stop=3)
    (record,) = caplog.records
    assert f"{gaps}: index 1 is number 102; by_number=True takes" in record.getMessage()

    for first in (0, 1):
        folder = tmp_path_factory.mktemp("sound")
        for number in (first, first + 1, first + 3):
            save(folder, f"img_{number}.png", number)
        caplog.clear()
        load_clip(folder, num_segments=1, start=1, stop=2)
        assert not caplog.records
        load_clip(folder, num_segments=1, start=2, stop=3)  # behind a gap
        assert f"index 2 is number {first + 3}" in caplog.text


# --- resized -------------------------------------------------------------------------------------


def clips_of_all_kinds(folder: Path) -> list[tuple[object, str]]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    for number in range(1, 4):
        rgb = Image.fromarray(noise(61, 97, 3).numpy())
        rgb.save(folder / f"img_{number}.png")
        for half in "xy":
            Image.fromarray(noise(61, 97).numpy()).save(folder / f"{half}_{number}.png")
    return [
        (folder, "RGB"),
        (folder, "Flow"),
        (noise(3, 61, 97, 3).numpy(), "RGB"),  # channels that lie together, as in videos
        (noise(3, 3, 97, 61), "RGB"),
        (noise(3, 2, 31, 33), "Flow"),
        (noise(3, 50, 50, 2), "Flow"),
        (noise(3, 3, 40, 90), "RGBDiff"),
    ]


@pytest.mark.parametrize("kind", range(7))
@pytest.mark.parametrize("crop_count", [1, 3, 10])
def test_resized_frames_are_the_same_input(kind, crop_count, tmp_path):
    clip, modality = clips_of_all_kinds(tmp_path)[kind]
    model = TSN(5, 3, modality, base_model="resnet18", new_length=None, pretrained=None)
    model.preprocessing = dataclasses.replace(model.preprocessing, input_size=32, scale_size=40)
    transform = evaluation_transform(model, crop_count)
    whole, resized = open_frames(clip, modality), open_frames(clip, modality, short_side=40)
    frames = resized.read([2, 0, 1])
    assert min(frames.shape[2:]) == 40
    assert torch.equal(transform(frames), transform(whole.read([2, 0, 1])))
    assert torch.equal(torch.cat(list(resized.blocks(2))), resized.read([0, 1, 2]))


@pytest.mark.parametrize(
    ("size", "expected"), [((97, 61), (63, 40)), ((61, 97), (40, 63)), ((30, 30), (40, 40))]
)
def test_the_longer_side_is_cut_to_whole_pixels(size, expected):
    source = open_frames([Image.new("RGB", size)], short_side=40)
    assert source.read([0]).shape == (1, 3, *expected[::-1])


def test_what_a_resized_source_keeps(gaps, caplog):
    whole = open_frames(gaps)
    source = open_frames(whole, short_side=5)
    assert (len(source), source.name, source.channels) == (6, str(gaps), 3)
    assert shown(load_clip(source, num_segments=2, start=103, stop=105, by_number=True)) == [
        103,
        103,
    ]
    whole.fps = 25.0
    assert FrameRange(open_frames(whole, short_side=5), 1).fps == 25
    assert "numbers 104 ... 106 are missing" in caplog.text  # in the name of the folder
    caplog.clear()
    whole.read([0, 5])
    assert not caplog.records


def test_frames_are_resized_one_by_one():
    source = FallingBack(0)
    next(ResizedFrames(source, 2).blocks(1))
    assert source.given == 1


def test_sizes_that_resizing_would_hide_are_refused():
    images = [Image.new("RGB", (8, 6)), Image.new("RGB", (16, 12))]
    with pytest.raises(ValueError, match=r"frame 1 is 16 x 12 where another one is 8 x 6"):
        open_frames(images, short_side=3).read([0, 1])


@pytest.mark.parametrize("short_side", [0, -1, 2.5, True, "40"])
def test_short_side_is_a_positive_integer(short_side, six_frames):
    with pytest.raises(
        ValueError, match=f"short_side must be a positive integer, got {short_side!r}"
    ):
        open_frames(six_frames, short_side=short_side)
