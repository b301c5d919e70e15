"""Frame indices against the formulas, worked out by hand and in plain NumPy."""

import numpy as np
import pytest
import torch

from data.sampling import SAMPLING_MODES, segment_indices

pytestmark = pytest.mark.essential


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def first_frames(*args, **options) -> list[int]:
    return segment_indices(*args, **options)[:, 0].tolist()


def test_test_mode_by_hand():
    # tick = (30 - 5 + 1) / 8 = 3.25: 1.625, 4.875, 8.125, ...
    indices = segment_indices(30, 8, 5)
    assert indices[:, 0].tolist() == [1, 4, 8, 11, 14, 17, 21, 24]
    assert indices[-1].tolist() == [24, 25, 26, 27, 28]
    assert first_frames(8, 8, 1) == list(range(8))
    assert first_frames(3, 8, 1) == [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("mode", SAMPLING_MODES)
def test_indices_are_on_the_cpu_whatever_the_default_device(mode: str) -> None:
    expected = segment_indices(100, 4, 2, mode=mode, generator=generator())
    with torch.device("meta"):
        assert segment_indices(100, 4, 2, mode=mode, generator=generator()).equal(expected)
    with torch.device("meta"):  # more segments than places
        assert segment_indices(9, 8, 2, mode=mode).device.type == "cpu"


def test_short_clips_repeat_the_last_frame():
    assert segment_indices(1, 3, 5).tolist() == [[0, 0, 0, 0, 0]] * 3
    assert segment_indices(2, 2, 5).tolist() == [[0, 1, 1, 1, 1]] * 2
    assert segment_indices(3, 2, 5, mode="train").tolist() == [[0, 1, 2, 2, 2]] * 2
    # n < L and n > T, where the original's training draw raises
    assert segment_indices(4, 2, 6, mode="train").tolist() == [[0, 1, 2, 3, 3, 3]] * 2


def test_validation_is_zero_up_to_its_threshold():
    assert first_frames(12, 8, 5, mode="validation") == [0] * 8
    assert first_frames(13, 8, 5, mode="validation") == first_frames(13, 8, 5)
    assert first_frames(13, 8, 5) != [0] * 8


def test_training_draws_cover_each_segment_and_nothing_else():
    source = generator()
    draws = np.array([first_frames(30, 4, 5, mode="train", generator=source) for _ in range(400)])
    for i in range(4):  # 26 // 4 = 6 offsets per segment
        assert set(draws[:, i]) == set(range(6 * i, 6 * i + 6))


def test_training_of_clips_shorter_than_the_segments_is_sorted():
    source = generator()
    draws = np.array(
        [first_frames(10, 8, 5, mode="train", generator=source) for _ in range(400)]
    )  # (10 - 5 + 1) // 8 = 0 and 10 > 8
    assert (np.diff(draws, axis=1) >= 0).all()
    assert set(draws.ravel()) == set(range(6))
    assert first_frames(8, 8, 2, mode="train") == [0] * 8  # n <= T


def test_dense_windows():
    source = generator()
    starts = set()
    for _ in range(300):
        offsets = first_frames(70, 8, 1, mode="dense", generator=source)
        assert np.diff(offsets).tolist() == [8] * 7
        starts.add(offsets[0])
    assert starts == set(range(6))  # randint(70 - 64)
    assert first_frames(64, 8, 1, mode="dense") == list(range(0, 64, 8))
    assert first_frames(20, 8, 1, mode="dense") == [0, 8, 16, 4, 12, 0, 8, 16]  # wraps around


@pytest.mark.parametrize("n", [1, 20, 64, 65, 100, 1234])
def test_dense_test_windows_are_evenly_spaced(n):
    positions = max(1, 1 + n - 64)
    expected = [
        (start + i * 8) % n
        for start in np.linspace(0, positions - 1, num=10, dtype=int)
        for i in range(8)
    ]
    assert first_frames(n, 8, 1, mode="dense-test") == expected


@pytest.mark.parametrize("name", ["frame_count", "num_segments", "snippet_length"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_numbers_must_be_positive_integers(name, value):
    numbers = {"frame_count": 10, "num_segments": 3, "snippet_length": 1, name: value}
    with pytest.raises(ValueError, match=name):
        segment_indices(**numbers)


def test_unknown_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"mode.*test, validation, train.*'middle'"):
        segment_indices(10, 3, 1, mode="middle")


def test_numpy_integers_are_numbers():
    assert first_frames(np.int64(30), np.int32(8), np.uint8(5)) == first_frames(30, 8, 5)
