"""Which frame a video shows at a time in seconds."""

from fractions import Fraction

import pytest
from helpers.video_kinds import videos_fixture  # noqa: F401 -- a fixture
from helpers.videos import COUNT, X264, encode

from data.video import VideoFile


def test_first_timestamp_does_not_shift_times(videos):
    for kind in ("h264 in MP4", "h264 in Matroska", "first timestamp above zero", "h264 in AVI"):
        source = VideoFile(videos(kind)[0])
        assert source.fps == pytest.approx(25)
        assert [source.index_at(number / 25) for number in range(COUNT)] == list(range(COUNT))
        assert [source.index_at((number + 0.9) / 25) for number in range(3)] == [0, 1, 2]
        assert source.index_at(1e9) == COUNT - 1


def test_times_follow_timestamps_where_the_rate_varies(tmp_path):
    times = [0, 10, 500, 520, 2000, 2017, 3000]  # milliseconds
    path = encode(
        tmp_path / "vfr.mkv",
        "libx264",
        options=X264,
        count=7,
        time_base=Fraction(1, 1000),
        times=times,
    )
    source = VideoFile(path)
    assert [source.index_at(time / 1000) for time in times] == list(range(7))
    assert source.index_at(1.9) == 3
    assert source.index_at(0.499) == 1


@pytest.mark.parametrize("rate", [(30000, 1001), (60000, 1001), (48, 1)])
def test_labels_in_sixtieths_of_a_second_find_their_frames(rate, tmp_path):
    path = encode(tmp_path / "x.mp4", "libx264", options=X264, count=30, rate=Fraction(*rate))
    source = VideoFile(path)
    for label in range(1, 25):
        seconds = Fraction(label, 60)
        shown = min(int(seconds * Fraction(*rate)), 29)
        assert source.index_at(label / 60) == shown


def test_times_must_not_be_negative(videos):
    source = VideoFile(videos("h264 in MP4")[0])
    for seconds in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            source.index_at(seconds)
