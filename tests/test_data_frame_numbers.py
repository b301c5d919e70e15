"""Which frames a row of an annotation file means, and that no other one stands in for them."""

import logging
import math
from pathlib import Path

import pytest
from helpers.epic_dataset import numbers_in, write_flow, write_rgb

from data.frame_numbers import ExactNumbers, frame_numbers
from data.segments import Segment
from data.video import FlowFolder, FrameFolder, VideoFile


def row(video: str, start: int, stop: int) -> Segment:
    return Segment(id="1", video=video, frames=(start, stop))


def test_the_stop_frame_is_left_out_unless_asked_for() -> None:
    assert frame_numbers(row("P01_11", 1, 113)) == range(1, 113)
    assert frame_numbers(row("P01_11", 1, 113), include_stop=True) == range(1, 114)
    assert frame_numbers(row("P01_11", 1, 113), "rgbdiff", include_stop=True) == range(1, 114)


@pytest.mark.parametrize("include_stop", [False, True])
def test_flow_has_every_second_frame_and_in_the_extension_each(include_stop: bool) -> None:
    for start in range(1, 30):
        for stop in range(start, 40):
            flow = frame_numbers(row("P01_11", start, stop), "Flow", include_stop=include_stop)
            # As the library of EPIC-KITCHENS-55 has it.
            assert flow == range(math.ceil(start / 2), math.ceil(stop / 2))
            assert frame_numbers(row("P01_101", start, stop), "flow") == range(start, stop)
    assert frame_numbers(row("P01_101", 7, 13), "Flow", flow_stride=3) == range(3, 5)
    assert frame_numbers(row("other/clip", 7, 13), "Flow") == range(4, 7)


def test_a_segment_may_have_no_flow() -> None:
    assert not frame_numbers(row("P01_11", 7, 8), "Flow")
    assert not frame_numbers(row("P01_11", 7, 7))


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="segment 5: has no frames, but seconds"):
        frame_numbers(Segment(id="5", video="P01_11", seconds=(0.0, 1.0)))
    with pytest.raises(ValueError, match="flow_stride must be a positive integer, got 0"):
        frame_numbers(row("P01_11", 1, 2), "Flow", flow_stride=0)
    with pytest.raises(ValueError, match="modality must be one of"):
        frame_numbers(row("P01_11", 1, 2), "Depth")


@pytest.fixture
def gaps(tmp_path: Path) -> FrameFolder:
    """Frames 1 ... 40 without 10, 11 and 30."""
    write_rgb(tmp_path, videos={"P01_11": 40}, missing=(10, 11, 30))
    return FrameFolder(tmp_path / "P01/P01_11")


def test_numbers_beside_a_gap_are_read_without_a_word(gaps: FrameFolder, caplog) -> None:
    frames = ExactNumbers(gaps, range(5, 36))
    with caplog.at_level(logging.WARNING):
        assert numbers_in(frames.read([0, 4, 7, 30, 4])) == [5, 9, 12, 35, 9]
    assert len(frames) == 31
    assert frames.numbers.tolist() == list(range(5, 36))
    assert not caplog.records


def test_a_missing_number_is_an_error(gaps: FrameFolder) -> None:
    frames = ExactNumbers(gaps, range(5, 36))
    message = "no frame has number 10, 30; there are 37 with numbers from 1 to 40"
    with pytest.raises(ValueError, match=message):
        frames.read([0, 5, 25])
    beyond = ExactNumbers(gaps, range(38, 60))
    assert numbers_in(beyond.read([0, 2])) == [38, 40]
    with pytest.raises(ValueError, match="number 41, 42, 43, 44, 45 and 14 more; there are 37"):
        beyond.read(range(len(beyond)))
    with pytest.raises(ValueError, match="no frame has number 0"):
        ExactNumbers(gaps, range(0, 4)).read([0])


def test_flow_is_found_by_number(tmp_path: Path) -> None:
    write_flow(tmp_path, videos={"P01_11": 40}, missing=(3,))
    frames = ExactNumbers(FlowFolder(tmp_path / "P01/P01_11"), range(2, 9))
    assert numbers_in(frames.read([0, 2, 6])) == [2, 4, 8]
    with pytest.raises(ValueError, match="no frame has number 3;"):
        frames.read([1])


def test_empty_ranges_and_sources_without_numbers_are_refused(gaps: FrameFolder) -> None:
    with pytest.raises(ValueError, match="no frame between start and stop"):
        ExactNumbers(gaps, range(5, 5))
    video = VideoFile.__new__(VideoFile)
    video.name = "clip.mp4"
    with pytest.raises(ValueError, match="frames have no numbers"):
        ExactNumbers(video, range(1, 5))
