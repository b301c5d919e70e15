"""Views of a source of frames: some of it, by index or by file number, or all of it resized.

A view is a source itself, and reads only the frames that are asked of it.
"""

from collections.abc import Iterator
from operator import index as as_int

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.frames import FrameSource, is_integer
from data.functional import resize
from data.options import positive_integer

__all__ = [
    "FrameRange",
    "FrameSelection",
    "NumberRange",
    "ResizedFrames",
    "View",
    "WholeView",
    "select",
]


class View(FrameSource):
    """Base of the views, which have the name of their source and warn in its name."""

    def __init__(self, source: FrameSource) -> None:
        self.name, self.channels, self.fps = source.name, source.channels, source.fps
        self._source = source

    def _warn_once(self, message: str, *values: object) -> None:
        self._source._warn_once(message, *values)

    def _show(self, indices: list[int], places: NDArray[np.int64]) -> Iterator[tuple[int, Tensor]]:
        """Yield each index with the source's frame at its ascending place; each is read once."""
        for place, frame in self._source._frames(np.unique(places).tolist()):
            first, last = np.searchsorted(places, (place, place + 1))
            for index in indices[first:last]:
                yield index, frame


class WholeView(View):
    """Base of the views that have all frames of their source, with their numbers and times."""

    def __len__(self) -> int:
        return len(self._source)

    @property
    def numbers(self) -> NDArray[np.int64] | None:
        """Numbers of the source's frames."""
        return self._source.numbers

    def index_at(self, seconds: float) -> int:
        """Return the index of the source's frame at a time."""
        return self._source.index_at(seconds)


class FrameRange(View):
    """Frames start ... stop - 1 of another source, such as one labelled segment of a long video.

    Args:
        source: where the frames come from.
        start: index of the first frame; 0 if None.
        stop: index behind the last frame; the end of the source if None.

    Raises:
        ValueError: if the range is empty or reaches outside the source, or an end is no integer.
    """

    def __init__(
        self, source: FrameSource, start: int | None = None, stop: int | None = None
    ) -> None:
        super().__init__(source)
        self._range = _check_range(
            start, stop, range(len(source)), f"the number of frames in {self.name}"
        )

    def __len__(self) -> int:
        return len(self._range)

    @property
    def numbers(self) -> NDArray[np.int64] | None:
        """Numbers of the frames in this part."""
        numbers = self._source.numbers
        return None if numbers is None else numbers[self._range.start : self._range.stop]

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        start = self._range.start
        for index, frame in self._source._frames([start + index for index in indices]):
            yield index - start, frame


class FrameSelection(View):
    """Some frames of another source, such as every fourth one.

    Args:
        source: where the frames come from.
        indices: of these frames in the source, ascending, each once, at least one.

    Raises:
        ValueError: if they are anything else.
    """

    def __init__(self, source: FrameSource, indices: NDArray[np.int64]) -> None:
        super().__init__(source)
        if not indices.size or (np.diff(indices) < 1).any():
            raise ValueError("indices must be ascending, each once, and at least one")
        if indices[0] < 0 or indices[-1] >= len(source):
            raise ValueError(
                f"{self.name}: indices must be in 0 ... {len(source) - 1}, got {indices[0]} ... "
                f"{indices[-1]}"
            )
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        yield from self._show(indices, self._indices[indices])


class NumberRange(View):
    """Frames numbered start ... stop - 1 of a source of numbered images, as if none were missing.

    Index i is number start + i, whatever is missing; a missing number shows the frame before it.

    Args:
        source: where the frames come from.
        start: number of the first frame; the lowest there is if None.
        stop: number behind the last frame; the one behind the highest there is if None.

    Raises:
        ValueError: if the source has no numbers, the range is empty or reaches outside them, or an
            end is no integer.
    """

    def __init__(
        self, source: FrameSource, start: int | None = None, stop: int | None = None
    ) -> None:
        super().__init__(source)
        self._numbers = source._checked_numbers()
        numbered = range(int(self._numbers[0]), int(self._numbers[-1]) + 1)
        self._range = _check_range(
            start, stop, numbered, f"the number behind the last in {self.name}"
        )

    def __len__(self) -> int:
        return len(self._range)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """All numbers from start to stop - 1, also those that are missing."""
        return np.arange(self._range.start, self._range.stop)

    def _warn_of_gaps(self, first: int, last: int) -> None:
        """Do nothing: `_frames` warns of the missing numbers that are read, and only of those."""

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        wanted = np.array(indices) + self._range.start
        shown = np.searchsorted(self._numbers, wanted, side="right") - 1
        missing = shown[self._numbers[shown] != wanted]
        if missing.size:
            self._source._warn_of_gaps(int(missing[0]), int(missing[0]) + 1)
        yield from self._show(indices, shown)


class ResizedFrames(WholeView):
    """Frames of another source, each resized as it is read: bilinear, antialiased.

    Sizes are those of `transforms.GroupScale`, which leaves these frames as they are.

    Args:
        source: where the frames come from.
        short_side: length of the shorter side in pixels, the other being
            int(short_side * longer / shorter).

    Raises:
        ValueError: if `short_side` is no positive integer.
    """

    def __init__(self, source: FrameSource, short_side: int) -> None:
        super().__init__(source)
        self._short_side = positive_integer("short_side", short_side)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index, frame in self._source._frames_of_one_size(indices):
            yield index, resize(frame, [self._short_side])


def select(
    source: FrameSource, start: int | None, stop: int | None, by_number: bool
) -> FrameSource:
    """Return the part of a source between two indices or file numbers, `stop` excluded."""
    if by_number:
        return NumberRange(source, start, stop)
    if start is None and stop is None:
        return source
    part = FrameRange(source, start, stop)
    first, numbers = part._range.start, source.numbers
    if numbers is not None and (numbers[0] not in (0, 1) or numbers[first] - numbers[0] != first):
        source._warn_once(
            "%s: index %d is number %d; by_number=True takes start and stop for numbers",
            first,
            numbers[first],
        )
    return part


def _check_range(start: int | None, stop: int | None, limits: range, end: str) -> range:
    """Return the range from start to stop, or to the `limits` where they are None.

    Raises:
        ValueError: if it is empty or exceeds the limits; `end` says what `limits.stop` is.
    """
    for name, value in (("start", start), ("stop", stop)):
        if value is not None and not is_integer(value):
            raise ValueError(f"{name} must be an integer or None, got {value!r}")
    start = limits.start if start is None else as_int(start)
    stop = limits.stop if stop is None else as_int(stop)
    if not limits.start <= start < stop <= limits.stop:
        raise ValueError(
            f"start and stop must satisfy {limits.start} <= start < stop <= {limits.stop}, {end}, "
            f"got start={start}, stop={stop}"
        )
    return range(start, stop)
