"""Timestamps become the frame numbers of the official files, rounding and all."""

import pytest

from data.timestamps import nominal_rate, parse_timestamp, seconds_to_frame

RECORDED = [
    # frame in the official CSV, one less than exact decimal arithmetic gives
    ("00:04:24.65", 60, 15878),
    ("00:17:47.60", 60, 64055),
    ("00:08:50.80", 60, 31847),
    ("00:17:19.85", 60, 62390),
    ("00:04:23.40", 50, 13169),
    ("00:05:07.40", 50, 15369),
    ("00:00:16.40", 60, 983),
]


@pytest.mark.essential
@pytest.mark.parametrize(("timestamp", "rate", "frame"), RECORDED)
def test_frames_of_official_timestamps(timestamp: str, rate: int, frame: int) -> None:
    assert seconds_to_frame(parse_timestamp(timestamp), rate) == frame


def test_the_first_frame_is_1() -> None:
    assert [seconds_to_frame(second, 60) for second in (0, 0.01, 0.04)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("01:02:03.5", 3723.5),
        ("1:2:3", 3723.0),
        ("00:00:00.00", 0.0),
        ("100:00:59.999", 360059.999),
        ("12", 12.0),
        (".5", 0.5),
        ("1e-05", 1e-05),
    ],
)
def test_seconds(text: str, seconds: float) -> None:
    assert parse_timestamp(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "-1", "-0:00:01", "02:03", "00:60:00", "00:00:60", "1,5", "1_0"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is neither a number of seconds nor HH:MM:SS"):
        parse_timestamp(text)


def test_nominal_rates() -> None:
    videos = ["P01_11", "P37_101", "P1_11", "P01_1", "P01_1011", "clips/P01_11.MP4", "P01_11_0"]
    assert [nominal_rate(video) for video in videos] == [60, 50, None, None, None, None, None]
