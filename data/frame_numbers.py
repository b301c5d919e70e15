"""Which frames of a video an annotated segment consists of, by the numbers of their files.

EPIC-KITCHENS numbers the frames of a video from 1, 60 per second, and 50 in the videos PXX_1YY that
EPIC-KITCHENS-100 added. Published flow has an image for every second frame, in PXX_1YY for each.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.frames import FrameSource
from data.options import MODALITIES, first_few, one_of, positive_integer
from data.segments import Segment
from data.timestamps import nominal_rate
from data.views import View

__all__ = ["ExactNumbers", "frame_numbers"]


def frame_numbers(
    segment: Segment,
    modality: str = "RGB",
    *,
    include_stop: bool = False,
    flow_stride: int | None = None,
) -> range:
    """Return the file numbers of the frames of a segment, as the published weights count them.

    With (start, stop) = `segment.frames`: RGB start ... stop - 1, as the models of EPIC-KITCHENS-55
    were trained, or start ... stop, as those of -100 (C1) were; flow (start - 1) // stride + 1 up
    to, not including, (stop - 1) // stride + 1, for both.

    Args:
        segment: one with `frames`.
        modality: "RGB", "Flow" or "RGBDiff" (which reads RGB frames), in any case.
        include_stop: whether the stop frame belongs to the segment; of RGB alone.
        flow_stride: RGB frames for each flow image; 1 for videos PXX_1YY and else 2 if None, as
            published.

    Returns:
        The numbers, empty for a segment that is shorter than a flow image's stride.

    Raises:
        ValueError: if the segment has no `frames`, or an option is wrong.
    """
    if segment.frames is None:
        raise ValueError(f"segment {segment.id}: has no frames, but seconds {segment.seconds}")
    start, stop = segment.frames
    if one_of("modality", modality, MODALITIES) != "Flow":
        return range(start, stop + include_stop)
    if flow_stride is None:
        flow_stride = 1 if nominal_rate(segment.video) == 50 else 2
    stride = positive_integer("flow_stride", flow_stride)
    return range((start - 1) // stride + 1, (stop - 1) // stride + 1)


class ExactNumbers(View):
    """Frames numbered start ... stop - 1 of a source of numbered frames, whatever is missing.

    Index i is number start + i. Reading a missing number, inside or at the ends, is an error.

    Args:
        source: where the frames come from.
        numbers: start ... stop - 1.

    Raises:
        ValueError: if the source has no numbers, or the range is empty.
    """

    def __init__(self, source: FrameSource, numbers: range) -> None:
        super().__init__(source)
        self._known = source._checked_numbers()
        if not numbers:
            raise ValueError(f"{self.name}: no frame between start and stop")
        self._range = numbers

    def __len__(self) -> int:
        return len(self._range)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """All numbers from start to stop - 1, also those that are missing."""
        return np.arange(self._range.start, self._range.stop)

    def missing(self, indices: NDArray[np.int64]) -> list[int]:
        """Return the numbers of these indices that no frame has, sorted."""
        wanted = np.unique(indices) + self._range.start
        places = np.searchsorted(self._known, wanted).clip(max=len(self._known) - 1)
        missing: list[int] = wanted[self._known[places] != wanted].tolist()
        return missing

    def describe_missing(self, missing: list[int]) -> str:
        """Return an error's message on numbers that no frame has."""
        return (
            f"{self.name}: no frame has number {first_few(missing)}; there are {len(self._known)} "
            f"with numbers from {self._known[0]} to {self._known[-1]}"
        )

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        wanted = np.array(indices) + self._range.start
        if missing := self.missing(np.array(indices)):
            raise ValueError(self.describe_missing(missing))
        yield from self._show(indices, np.searchsorted(self._known, wanted))
