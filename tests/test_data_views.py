"""Views of a source of frames."""

import numpy as np
import pytest
import torch
from helpers.counting import CountedFrames, NoiseFrames

from data.views import FrameSelection


def test_a_selection_reads_its_frames_alone() -> None:
    source = CountedFrames(NoiseFrames(12))
    selection = FrameSelection(source, np.array([1, 4, 5, 11]))
    assert len(selection) == 4
    blocks = torch.cat(list(selection.blocks(3)))
    assert source.decoded == [1, 4, 5, 11]
    assert blocks.equal(source.read([1, 4, 5, 11]))
    assert selection.read([3, 0, 3]).equal(source.read([11, 1, 11]))


@pytest.mark.parametrize("indices", [[], [3, 3], [4, 2], [-1, 2], [0, 12]])
def test_indices_of_a_selection_are_ascending_and_inside(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="indices must be"):
        FrameSelection(NoiseFrames(12), np.array(indices, dtype=np.int64))
