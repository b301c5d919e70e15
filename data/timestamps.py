"""Timestamps of annotations, and the frames of EPIC-KITCHENS at these times."""

import math
import re

__all__ = ["nominal_rate", "parse_timestamp", "seconds_to_frame"]

_TIMESTAMP = re.compile(r"([0-9]+):([0-5]?[0-9]):([0-5]?[0-9](?:\.[0-9]*)?)")
_VIDEO = re.compile(r"P[0-9]{2}_([0-9]{2,3})")


def parse_timestamp(text: str) -> float:
    """Return the seconds of a timestamp: HH:MM:SS.ss, or a number of seconds.

    Raises:
        ValueError: the text is neither, or negative.
    """
    if match := _TIMESTAMP.fullmatch(text):
        return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
    try:
        seconds = math.nan if "_" in text else float(text)  # float takes 1_0 for 10
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{text!r} is neither a number of seconds nor HH:MM:SS.ss")
    return seconds


def seconds_to_frame(seconds: float, rate: float) -> int:
    """Return the file number of the frame at a time, as the official annotations have it.

    It is max(1, int(rate * seconds)) in double precision, whose rounding is part of the format:
    00:00:16.40 at 60 frames per second is frame 983, not 984. With the seconds of
    `parse_timestamp`, it gives every start_frame and stop_frame of the official files.
    """
    return max(1, int(rate * seconds))


def nominal_rate(video: str) -> int | None:
    """Return the frames per second that the frames of an EPIC-KITCHENS video are numbered by.

    It is 60 for videos of EPIC-KITCHENS-55 (P01_11) and 50 for those that EPIC-KITCHENS-100 added
    (P01_101), whatever the rate of the video file; None for other videos.
    """
    match = _VIDEO.fullmatch(video)
    return {2: 60, 3: 50}[len(match[1])] if match else None
