"""Averages over time against sums over small steps."""

import numpy as np
import pytest

from data.time_averages import TimeAverages


def at(averages: TimeAverages, seconds: float) -> list[float]:
    """The first vector's mean at a time."""
    edges, _, (means,), _ = averages.columns()
    return means[np.searchsorted(edges, seconds, side="right") - 1].tolist()


@pytest.mark.parametrize("length", [0.3, 7, 100, 5000])
def test_parts_that_follow_one_another_stay_apart(length: float) -> None:
    averages = TimeAverages([2])
    for part in range(10):
        averages.add(part * length, (part + 1) * length, [np.array([part, 1.0])])
    edges, covered, (means,), _ = averages.columns()
    assert 512 <= len(covered) <= 1024
    assert edges[[0, -1]].tolist() == [0, 10 * length]
    assert covered.sum() == pytest.approx(10 * length)
    assert np.average(means, axis=0, weights=covered) == pytest.approx([4.5, 1])
    for part in range(10):
        assert at(averages, (part + 0.5) * length) == pytest.approx([part, 1])


def test_neighbours_are_averaged_by_duration() -> None:
    averages = TimeAverages([1])
    random = np.random.default_rng(0)
    bounds = np.sort(random.uniform(0, 20_000, 5001))  # in any order, far more than columns
    values = random.random(5000)
    for i in random.permutation(5000):
        averages.add(bounds[i], bounds[i + 1], [values[i : i + 1]])
    edges, covered, (means,), _ = averages.columns()
    integral = np.interp(edges, bounds, np.cumsum([0, *(values * np.diff(bounds))]))
    assert means[:, 0] * covered == pytest.approx(np.diff(integral))


def test_overlapping_parts_are_averaged_and_gaps_are_known() -> None:
    averages = TimeAverages([1, 3])
    averages.add(10, 14, [np.array([0.2]), np.zeros(3)])
    averages.add(12, 16, [np.array([0.6]), np.ones(3)])
    averages.add(20, 21, [np.array([1.0]), np.ones(3)])
    edges, covered, (means, others), winners = averages.columns()
    assert (averages.start, averages.stop) == (10, 21) == (edges[0], edges[-1])
    middles = (edges[1:] + edges[:-1]) / 2
    for start, stop, expected in ((10, 12, 0.2), (12, 14, 0.4), (14, 16, 0.6), (20, 21, 1)):
        inside = (middles > start + 0.02) & (middles < stop - 0.02)
        assert means[inside] == pytest.approx(expected)
    gap = (middles > 16.02) & (middles < 19.98)
    assert not covered[gap].any()
    assert not others[gap].any()
    assert (winners[gap] == -1).all()


def test_the_part_that_covers_most_of_a_column_wins() -> None:
    averages = TimeAverages([3, 2])
    averages.add(0, 100.1, [np.array([0.5, 0.4, 0.1]), np.array([0.1, 0.9])])
    averages.add(100.1, 200, [np.array([0, 0.45, 0.55]), np.array([0.2, 0.1])])
    edges, _, (means, _), winners = averages.columns()
    border = np.searchsorted(edges, 100.1) - 1
    assert 0.3 < (100.1 - edges[border]) / (edges[border + 1] - edges[border]) < 0.5
    assert means[border].argmax() == 1  # which no part has
    assert winners[:border].tolist() == [[0, 1]] * border
    assert winners[border:].tolist() == [[2, 0]] * (len(winners) - border)


@pytest.mark.parametrize("step", [0.001, 0.13, 1, 7])  # seconds
def test_winners_of_columns_are_those_of_most_of_their_time(step: float) -> None:
    random = np.random.default_rng(0)
    numbers = np.repeat(random.integers(0, 9, 800), random.integers(1, 20, 800))
    averages = TimeAverages([3, 3])
    for i, number in enumerate(numbers):
        vectors = [np.eye(3)[index] for index in divmod(number, 3)]
        averages.add(i * step, (i + 1) * step, vectors)
    edges, covered, _, winners = averages.columns()
    bounds, clear = np.arange(len(numbers) + 1) * step, 0
    for start, stop, seconds, (first, second) in zip(
        edges[:-1], edges[1:], covered, winners, strict=True
    ):
        shares = np.diff(bounds.clip(start, stop)) / seconds
        sums = np.bincount(numbers, shares, minlength=9)
        assert sums[3 * first + second] > 0
        if sums.max() > 0.51:
            assert sums.argmax() == 3 * first + second
            clear += 1
    assert clear > 300


def test_memory_does_not_grow() -> None:
    averages = TimeAverages([5])
    sizes = set()
    for power in range(31):
        averages.add(2.0**power, 2.0**power + 0.001, [np.ones(5)])
        sizes.add(averages._sums[0].nbytes)
    assert len(sizes) == 1
    assert averages.columns()[1].sum() == pytest.approx(0.031, rel=1e-4)  # of times near 1e9


@pytest.mark.parametrize(
    "times", [(1, 1), (2, 1), (-1, 1), (0, float("inf")), (float("nan"), 1), (0, float("nan"))]
)
def test_times_out_of_order(times: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="a part must have 0 <= start < stop, got"):
        TimeAverages([1]).add(*times, [np.ones(1)])
