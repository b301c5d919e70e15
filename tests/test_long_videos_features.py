"""Features along videos: those of each snippet alone, with each frame read once and seen once."""

import copy
from typing import Any

import pytest
import torch
from helpers.counting import CountedFrames, NoiseFrames, counted_images, tiny
from helpers.peak_memory import peak_memory
from helpers.small_models import assert_close
from torch import Tensor, nn

from data.frames import FrameSource
from long_videos import frame_features
from tsn import TSN

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "TSN": ("RGB", {}),
    "TRN": ("RGB", {}),
    "MTRN": ("RGB", {}),
    "TSN flow": ("Flow", {"new_length": 5}),
    "MTRN flow": ("Flow", {"new_length": 3}),
    "TSN difference": ("RGBDiff", {"new_length": 2}),
}


def make(kind: str) -> TSN:
    modality, options = KINDS[kind]
    return tiny(kind.split()[0], modality, **options)


def frames_for(model: TSN, count: int) -> CountedFrames:
    return CountedFrames(NoiseFrames(count, 2 if model.modality == "Flow" else 3))


def collect(*arguments: Any, **options: Any) -> tuple[list[int], Tensor]:
    parts = list(frame_features(*arguments, **options))
    return torch.cat([part for part, _ in parts]).tolist(), torch.cat([part for _, part in parts])


@torch.inference_mode()
def features_of(model: TSN, source: FrameSource, starts: list[int], crops: int = 1) -> Tensor:
    """Features of snippets that start at some frames, as one clip, averaged over crops."""
    last = len(source) - 1
    length = model.frames_per_snippet
    frames = [min(start + step, last) for start in starts for step in range(length)]
    inputs = model.evaluation_transform(crops)(source.read(frames))
    # (crops * T*L*C, H, W) -> (crops, T*L*C, H, W)
    features = model.features(inputs.unflatten(0, (crops, -1)))
    return features.unflatten(0, (crops, -1)).mean(0)


@pytest.mark.parametrize(
    ("kind", "stride"),
    [(kind, 1 + 2 * (place % 2)) for place, kind in enumerate(KINDS)]
    + [("TSN", 3), ("TSN flow", 1), ("TSN flow", 8), ("TSN difference", 2)],
)
def test_each_row_is_its_snippet_alone_and_each_frame_is_read_once(kind: str, stride: int) -> None:
    model, count = make(kind), 19
    source = frames_for(model, count)
    with counted_images(model) as seen:
        starts, features = collect(model, source, stride=stride, batch_size=5)
    length = model.frames_per_snippet
    assert starts == list(range(0, count - length + 1, stride))
    assert sum(seen) == len(starts)
    wanted = {start + step for start in starts for step in range(length)}
    assert source.decoded == sorted(wanted)
    assert_close(features, torch.cat([features_of(model, source, [start]) for start in starts]))


@pytest.mark.parametrize("crops", [3, 10])
def test_crops_are_averaged(crops: int) -> None:
    model = tiny("TSN", "Flow", new_length=2)
    source = frames_for(model, 6)
    starts, features = collect(model, source, crop_count=crops, batch_size=4)
    expected = torch.cat([features_of(model, source, [start], crops) for start in starts])
    assert_close(features, expected)
    assert sorted(source.decoded[:6]) == list(range(6))


def windows_by_hand(rows: int, length: int, hop: int, step: int) -> list[tuple[int, int]]:
    """Return window and place in it of each feature, by trying all windows."""
    firsts = [first for first in range(0, rows, hop) if first + length <= rows]
    last = max(-(-(rows - length) // step) * step, 0)
    firsts = sorted({*firsts, last})
    found = []
    for row in range(0, rows, step):
        inside = [first for first in firsts if first <= row <= first + length - step]
        first = min(inside, key=lambda first: abs(2 * (row - first) - length + step))
        found.append((first, (row - first) // step))
    return found


@pytest.mark.parametrize(
    ("options", "rows", "hop"),
    [
        *(({}, rows, None) for rows in (1, 4, 5, 8, 11)),
        *(({}, rows, 2) for rows in (3, 9)),
        *(({}, rows, 1) for rows in (4, 7)),
        *(({}, rows, 3) for rows in (9, 10)),
        *(({"temporal_pool": True}, rows, hop) for rows in (3, 8, 9) for hop in (None, 2)),
        ({"non_local": True}, 6, None),
    ],
    ids=str,
)
def test_rows_of_tsm_are_from_the_window_around_them(
    options: dict[str, bool], rows: int, hop: int | None
) -> None:
    model, stride = tiny("TSM", **options), 2
    source = frames_for(model, stride * rows)
    with counted_images(model) as seen:
        starts, features = collect(model, source, stride=stride, hop=hop, batch_size=8)
    step = 2 if options.get("temporal_pool") else 1
    assert starts == list(range(0, stride * rows, stride * step))
    found = windows_by_hand(rows, 4, hop or 4, step)
    windows = {
        first: features_of(
            model, source, [stride * min(first + place, rows - 1) for place in range(4)]
        )
        for first, _ in found
    }
    assert_close(features, torch.stack([windows[first][place] for first, place in found]))
    assert sum(seen) == 4 * len(windows)
    assert source.decoded[:rows] == list(range(0, stride * rows, stride))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("kind", ["TSN", "TSN flow", "TSN difference"])
def test_a_video_shorter_than_a_snippet_repeats_its_last_frame(kind: str, count: int) -> None:
    model = make(kind)
    source = frames_for(model, count)
    starts, features = collect(model, source)
    assert len(starts) == max(count - model.frames_per_snippet + 1, 1)
    assert_close(features, torch.cat([features_of(model, source, [start]) for start in starts]))


def test_overlapping_snippets_of_a_batch_do_not_depend_on_it() -> None:
    model = make("TSN flow")
    _, one = collect(model, frames_for(model, 20), batch_size=1)
    _, many = collect(model, frames_for(model, 20), batch_size=16)
    assert_close(many, one)


def test_a_model_in_training_is_evaluated_and_stays_as_it_is() -> None:
    model = copy.deepcopy(tiny("TSN")).train()
    before = copy.deepcopy(model.state_dict())
    _, features = collect(model, NoiseFrames(6))
    assert model.training
    assert_close(features, collect(tiny("TSN"), NoiseFrames(6))[1])
    assert all(values.equal(before[name]) for name, values in model.state_dict().items())


def test_a_video_is_whatever_can_be_opened() -> None:
    frames = NoiseFrames(6).read(list(range(6)))
    _, features = collect(tiny("TSN"), frames)
    assert_close(features, collect(tiny("TSN"), NoiseFrames(6))[1])
    with pytest.raises(ValueError, match="noise"):
        frame_features(tiny("TSN"), NoiseFrames(9, channels=2))


def test_what_is_no_model_is_refused_at_once() -> None:
    for model in (nn.DataParallel(tiny("TSN")), "TSN"):
        with pytest.raises(ValueError, match=f"got {type(model).__name__} .*the module inside"):
            frame_features(model, NoiseFrames(9))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("TSN", {"hop": 2}, "hop is an option for TSM alone, got 2 for a TSN"),
        ("TSM", {"hop": 5}, "hop must be at most 4, got 5"),
        ("TSM", {"hop": 0}, "hop must be a positive integer, got 0"),
        ("TSN", {"stride": 0}, "stride must be a positive integer, got 0"),
        ("TSN", {"crop_count": 2}, "crop_count must be 1, 3 or 10, got 2"),
        ("TSN", {"batch_size": 0}, "batch_size must be a positive integer, got 0"),
    ],
)
def test_wrong_options_are_refused_at_once(variant: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frame_features(tiny(variant), NoiseFrames(9), **options)


def test_hop_of_a_pooled_model_is_even() -> None:
    with pytest.raises(ValueError, match="hop must be at most 4 and a multiple of 2, got 3"):
        frame_features(tiny("TSM", temporal_pool=True), NoiseFrames(9), hop=3)


def test_memory_does_not_grow_with_the_video() -> None:
    model = tiny("TSN")

    def run(count: int) -> int | None:
        source = NoiseFrames(count, size=(144, 160))
        return peak_memory(lambda: [None for _ in frame_features(model, source)])

    run(20)
    short, long = run(20), run(400)
    if short is None or long is None:
        pytest.skip("this system does not tell the peak of memory")
    assert long < short + 16 * 2**20  # all frames are 28 MB
