"""Frame numbers in video files of any rate, compared with extracting frames; and seconds."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.epic_dataset import number_in, numbers_in, write_video

from data.frame_times import ResampledFrames, frames_between
from data.video import VideoFile

av = pytest.importorskip("av", reason="PyAV (package `av`) is not installed")

RATES = {
    "29.97": Fraction(30000, 1001),
    "47.952": Fraction(48000, 1001),
    "50": Fraction(50),
    "59.94": Fraction(60000, 1001),
    "60": Fraction(60),
    "90": Fraction(90),
    "120": Fraction(120),  # where every second frame begins exactly between two of 60
}


def extracted(path: Path, rate: int) -> list[int]:
    """Return what the frames show that FFmpeg's filter fps extracts."""
    shown = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        source, sink = graph.add_buffer(template=stream), graph.add("buffersink")
        resample = graph.add("fps", str(rate))
        source.link_to(resample)
        resample.link_to(sink)
        graph.configure()
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            while True:
                try:
                    picture = graph.pull().to_ndarray(format="rgb24")
                except (av.BlockingIOError, av.EOFError):
                    break
                shown.append(number_in(picture.transpose(2, 0, 1)))
    return shown


@pytest.mark.parametrize("rate", [60, 50])
@pytest.mark.parametrize("own_rate", RATES)
def test_numbers_show_what_extracting_frames_gives(
    tmp_path: Path, own_rate: str, rate: int
) -> None:
    # At 59.94, the first frame comes twice after 8 seconds: the video is longer.
    count = 550 if (own_rate, rate) == ("59.94", 60) else 150
    path = write_video(tmp_path / "P01_11.MP4", count, RATES[own_rate])
    expected = extracted(path, rate)
    frames = ResampledFrames(VideoFile(path), rate)
    assert numbers_in(frames.read(range(len(frames)))) == expected
    assert frames.numbers.tolist() == list(range(1, len(expected) + 1))
    assert frames.fps == rate
    indices = [7, 3, 3, 60]
    assert numbers_in(frames.read(indices)) == [expected[index] for index in indices]


def test_each_frame_is_decoded_once(tmp_path: Path, monkeypatch) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", 20, 30))
    asked = []
    original = VideoFile._frames

    def noted(self, indices):
        asked.append(indices)
        return original(self, indices)

    monkeypatch.setattr(VideoFile, "_frames", noted)
    frames = ResampledFrames(video, 60)
    assert numbers_in(frames.read([9, 2, 3, 4])) == [5, 2, 2, 3]
    assert asked == [[1, 2, 4]]


def test_own_frames_where_no_rate_is_given(tmp_path: Path) -> None:
    frames = ResampledFrames(VideoFile(write_video(tmp_path / "a.mp4", 20, 30)), None)
    assert numbers_in(frames.read(range(20))) == list(range(1, 21))
    assert frames.index_of(7) == 6


def test_times_of_a_video(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", 20, RATES["47.952"]))
    np.testing.assert_allclose(video.times, np.arange(20) / float(RATES["47.952"]), atol=1e-4)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.0, 2.0), range(1, 61)),
        ((0.5, 1.0), range(16, 31)),
        ((0.51, 1.02), range(16, 31)),  # from the frame shown at the start
        ((0.51, 0.52), range(16, 17)),  # at least one
        ((1.9, 2.9), range(58, 61)),  # sound may last longer than the pictures
    ],
)
def test_frames_between_two_times(tmp_path: Path, seconds, expected: range) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", 60, 30))
    frames = frames_between(video, *seconds)
    assert numbers_in(frames.read(range(len(frames)))) == list(expected)


def test_seconds_outside_the_video_are_refused(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", 60, 30))
    for seconds in ((2.0, 2.5), (1.0, 3.1)):
        with pytest.raises(ValueError, match=r"a\.mp4: ends after 2\.00 seconds, before a segment"):
            frames_between(video, *seconds)
