"""Seconds and frame rates of live sources."""

import random
from itertools import pairwise

import pytest

from data.live_times import LiveTimes


class StandInClock:
    """Time that goes by only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandInClock:
    clock = StandInClock()
    monkeypatch.setattr("data.live_times.time", clock)
    return clock


def seconds_of(clock: StandInClock, timestamps: list[float | None], elapsed: float) -> list[float]:
    times = LiveTimes(None)
    seconds = []
    for timestamp in timestamps:
        seconds.append(round(times.seconds(timestamp), 6))
        clock.now += elapsed
    return seconds


@pytest.mark.parametrize(
    ("timestamps", "seconds"),
    [
        ([5.0, 5.1, 5.3, 9.0], [0.0, 0.1, 0.3, 4.0]),
        ([None, None, None], [0.0, 0.5, 1.0]),
        ([None, 7.0, 7.2], [0.0, 0.5, 0.7]),
        ([3.0, 3.1, 0.0, 0.1], [0.0, 0.1, 0.6, 0.7]),  # it jumps back
        ([3.0, 3.0, 3.0, 3.2], [0.0, 0.5, 1.0, 1.2]),  # it stands still
        ([3.0, None, 3.2], [0.0, 0.5, 1.0]),
        ([3.0, 63.4, 63.5], [0.0, 60.4, 60.5]),  # a gap of the video
        ([3.0, 70000.0, 70000.1, 3.3, 3.4], [0.0, 0.5, 0.6, 1.1, 1.2]),  # it jumps ahead
    ],
)
def test_the_clock_counts_where_timestamps_do_not_ascend(
    clock: StandInClock, timestamps: list[float | None], seconds: list[float]
) -> None:
    assert seconds_of(clock, timestamps, elapsed=0.5) == seconds


@pytest.mark.parametrize(("fps", "rate"), [(25, 10), (30, 30), (60, 25), (30, 7.5), (10, 30)])
def test_no_more_frames_than_the_rate_whatever_the_jitter(fps: float, rate: float) -> None:
    generator = random.Random(0)
    times = LiveTimes(rate)
    seconds = [index / fps + generator.uniform(0, 0.2 / max(fps, rate)) for index in range(600)]
    due = [time for time in seconds if times.is_due(time)]
    assert len(due) == pytest.approx(600 * min(1, rate / fps), abs=1)
    assert all(late - early > 0.5 / rate for early, late in pairwise(due))


def test_all_frames_are_due_without_a_rate() -> None:
    times = LiveTimes(None)
    assert all(times.is_due(time) for time in (0.0, 0.001, 0.002))
