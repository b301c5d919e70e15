import numpy as np
import pytest
import torch

from data.thumbnails import Thumbnails


def frame(level: int, h: int = 60, w: int = 80) -> torch.Tensor:
    return torch.full((3, h, w), level, dtype=torch.uint8)


@pytest.mark.parametrize("count", [12, 48, 49, 1000, 20_000])
def test_few_are_kept_evenly_spread_out_of_many(count: int) -> None:
    thumbnails = Thumbnails(30)
    for index in range(count):
        thumbnails.add(index / 10, frame(0, 3, 4))
        assert len(thumbnails.kept) <= 48
    times = [seconds for seconds, _ in thumbnails.kept]
    assert len(times) >= min(count, 24)
    assert times[0] == 0
    distances = np.diff([*times, count / 10])
    assert distances[:-1] == pytest.approx(distances[0])
    assert distances[-1] < distances[0] + 0.01


def test_pictures_are_shrunk_to_one_height() -> None:
    thumbnails = Thumbnails(30)
    for seconds, (h, w) in enumerate([(60, 80), (60, 81), (200, 2), (2, 200), (30, 40)]):
        thumbnails.add(seconds, frame(10 * seconds, h, w))
    chosen = thumbnails.kept
    assert [seconds for seconds, _ in chosen] == [0, 1, 2, 3, 4]
    assert [image.shape[:2] for _, image in chosen] == [
        (30, 40), (30, 40), (30, 1), (30, 120), (30, 40)
    ]  # fmt: skip
    assert [image.mean() for _, image in chosen] == [0, 10, 20, 30, 40]
    assert all(image.dtype == "uint8" for _, image in chosen)
