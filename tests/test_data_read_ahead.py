"""Frames that a thread reads ahead."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.counting import CountedFrames, NoiseFrames
from torch import Tensor

from data.read_ahead import ReadAhead
from data.views import FrameSelection


class BrokenFrames(NoiseFrames):
    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        yield from super()._frames(indices[:3])
        raise ValueError("frame 3 is broken")


def readers() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("read ahead")]


def test_frames_are_the_sources() -> None:
    source = NoiseFrames(20)
    ahead = ReadAhead(source, 3)
    assert len(ahead) == 20
    assert torch.equal(ahead.read([4, 2, 19]), source.read([4, 2, 19]))
    chosen = FrameSelection(ahead, np.arange(0, 20, 3))
    assert torch.equal(torch.cat(list(chosen.blocks(2))), source.read(range(0, 20, 3)))
    assert not readers()


def test_so_many_are_read_ahead_and_no_more() -> None:
    counted = CountedFrames(NoiseFrames(20))
    frames = ReadAhead(counted, 3)._frames(list(range(20)))
    next(frames)
    deadline = time.monotonic() + 30
    while len(counted.decoded) < 4 and time.monotonic() < deadline:  # what came, and three more
        time.sleep(0.001)
    time.sleep(0.02)
    assert counted.decoded == [0, 1, 2, 3]
    frames.close()  # type: ignore[attr-defined]  # a generator
    assert not readers()


def test_errors_come_where_they_belong() -> None:
    frames = ReadAhead(BrokenFrames(20), 8)._frames(list(range(20)))
    assert [next(frames)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="frame 3 is broken"):
        next(frames)
    assert not readers()


def test_a_count_that_is_none() -> None:
    with pytest.raises(ValueError, match="count must be a positive integer, got 0"):
        ReadAhead(NoiseFrames(1), 0)
