"""The base of all frame sources: a length, and frames read by index."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.options import positive_integer

__all__ = ["FLOW_LAYOUTS", "RGB_LAYOUTS", "FrameSource", "is_integer", "size_of"]

logger = logging.getLogger(__name__)

RGB_LAYOUTS = (
    "a video file, a folder of numbered images (frame_0000000001.jpg, img_00001.jpg, ...; "
    "jpg, jpeg or png) or a tar of them, a binary file object or bytes of a video or tar, a uint8 "
    "array or tensor (frames, H, W, 3) or (frames, 3, H, W), or a list of PIL images"
)
FLOW_LAYOUTS = (
    "a folder with sub-folders u/ and v/ of numbered images, a folder of images x_00001.jpg and "
    "y_00001.jpg (or flow_x_ and flow_y_, or u_ and v_, behind a common beginning such as ID-), "
    "a tar of either, its bytes or a binary file object, folders ROOT/u/CLIP and ROOT/v/CLIP, "
    "a uint8 array or tensor (frames, H, W, 2) or (frames, 2, H, W), or a list of mode L PIL "
    "images u, v, u, v, ..."
)


class FrameSource(ABC):
    """Frames that can be counted and read by index.

    Attributes:
        name: for messages, such as the path.
        channels: 3 for RGB, 2 for flow (u, then v).
        fps: frames per second where known, else None.
        numbers: the number of each frame in its file's name, sorted, int64 (frames,); None where
            frames have no numbers, as in videos and arrays.
    """

    name: str
    channels: int
    fps: float | None = None
    _logged: frozenset[str] = frozenset()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of frames (flow: of pairs of u and v), at least 1."""

    @abstractmethod
    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield index and uint8 frame (C, H, W) for ascending, distinct, valid indices.

        A frame may come more than once; the last one counts.
        """

    @property
    def numbers(self) -> NDArray[np.int64] | None:
        """Sorted numbers of the frames' files, int64 (frames,), or None."""
        return None

    def index_of(self, number: int) -> int:
        """Return the index of the frame whose file has a number.

        Args:
            number: as in the file's name, such as a frame number of EPIC-KITCHENS annotations.

        Raises:
            ValueError: if no file has it, or frames have no numbers, as in videos; there,
                `VideoFile.index_at` finds the index of a time.
        """
        if not is_integer(number):
            raise ValueError(f"number must be an integer, got {number!r}")
        numbers = self._checked_numbers()
        index = int(np.searchsorted(numbers, number))
        if index == len(numbers) or numbers[index] != number:
            raise ValueError(
                f"{self.name}: no frame has number {number}; there are {len(numbers)} with numbers "
                f"from {numbers[0]} to {numbers[-1]}"
            )
        return index

    def index_at(self, seconds: float) -> int:
        """Return the index of the frame that is shown at a time.

        Args:
            seconds: time since the first frame.

        Raises:
            ValueError: if frames have no times; only those of videos do.
        """
        raise ValueError(f"{self.name}: frames have no times; only those of videos do")

    def read(self, indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor) -> Tensor:
        """Read frames. Each is decoded once, and only the result is kept in memory.

        Args:
            indices: one-dimensional, in any order, duplicates allowed, each in 0 ... len - 1.

        Returns:
            uint8 tensor (len(indices), C, H, W), RGB or (u, v), in the order of `indices`. Its
            memory format is the source's, torch.channels_last for videos and images: copying and
            resizing are fastest then.

        Raises:
            ValueError: for indices outside the clip, frames of different sizes, or frames that
                cannot be decoded.
        """
        wanted = _to_list(indices, len(self), self.name)
        positions: dict[int, list[int]] = {}
        for position, index in enumerate(wanted):
            positions.setdefault(index, []).append(position)
        ascending = sorted(positions)
        self._warn_of_gaps(ascending[0], ascending[-1])
        frames: Tensor | None = None
        for index, frame in self._frames_of_one_size(ascending):
            if frames is None:
                frames = _empty_batch(len(wanted), frame)
            for position in positions[index]:
                frames[position] = frame
        assert frames is not None  # there is at least one index, and every index has a frame
        return frames

    def blocks(self, size: int) -> Iterator[Tensor]:
        """Read all frames once, in order, with one block of them in memory at a time.

        Args:
            size: number of frames in a block; the last one may have fewer.

        Returns:
            An iterator over uint8 tensors (at most `size`, C, H, W), as `read` returns them.

        Raises:
            ValueError: for a `size` below 1; while iterating, as `read` does.
        """
        return self._blocks(positive_integer("size", size))

    def _blocks(self, size: int) -> Iterator[Tensor]:
        count, done = len(self), 0
        self._warn_of_gaps(0, count - 1)
        for index, frame in self._frames_of_one_size(list(range(count))):
            if index < done:
                continue  # it came again
            position = done % size
            if position == 0:
                block = _empty_batch(min(size, count - done), frame)
            block[position] = frame
            done += 1
            if position + 1 == len(block):
                yield block

    def _frames_of_one_size(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield what `_frames` does; raise ValueError where sizes differ."""
        first: Tensor | None = None
        for index, frame in self._frames(indices):
            first = frame if first is None else first
            if frame.shape != first.shape:
                raise ValueError(
                    f"{self.name}: frames must have one size, but frame {index} is "
                    f"{size_of(frame)} where another one is {size_of(first)} (width x height)"
                )
            yield index, frame

    def _checked_numbers(self) -> NDArray[np.int64]:
        """Return the numbers; raise ValueError if there are none."""
        if self.numbers is None:
            raise ValueError(
                f"{self.name}: frames have no numbers, only image files do; use indices (in a "
                f"video, VideoFile.index_at(seconds) finds them)"
            )
        return self.numbers

    def _warn_of_gaps(self, first: int, last: int) -> None:
        """Warn, once, if numbers are missing between those of two indices."""
        numbers = self.numbers
        if numbers is None or numbers[last] - numbers[first] == last - first:
            return
        gaps = np.flatnonzero(np.diff(numbers[first : last + 1]) > 1) + first
        before, after = int(numbers[gaps[0]]), int(numbers[gaps[0] + 1])
        missing = (
            f"number {before + 1} is missing"
            if after - before == 2
            else f"numbers {before + 1} ... {after - 1} are missing"
        )
        others = f" (the first of {gaps.size} gaps)" * (gaps.size > 1)
        self._warn_once(
            "%s: %s%s; indices pass over them, by_number=True repeats the frame before them",
            missing,
            others,
        )

    def _warn_once(self, message: str, *values: object) -> None:
        """Log a warning whose first value is the name, once for each source."""
        if message not in self._logged:
            self._logged |= {message}
            logger.warning(message, self.name, *values)


def _empty_batch(count: int, frame: Tensor) -> Tensor:
    """Allocate (count, C, H, W) for frames like this one, in its memory format."""
    channels_last = frame.stride(0) == 1
    return torch.empty(
        (count, *frame.shape),
        dtype=frame.dtype,
        device=frame.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _to_list(
    indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor, length: int, name: str
) -> list[int]:
    """Convert indices; raise ValueError unless they are integers in 0 ... length - 1."""
    array = indices.cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"indices must be one-dimensional integers, at least one of them, got shape "
            f"{array.shape} and dtype {array.dtype}"
        )
    if array.min() < 0 or array.max() >= length:
        wrong = array[(array < 0) | (array >= length)][0]
        raise ValueError(f"{name}: indices must be in 0 ... {length - 1}, got {wrong}")
    values: list[int] = array.tolist()
    return values


def is_integer(value: object) -> bool:
    """Return whether a value is an integer, also one of NumPy; a bool is not."""
    return isinstance(value, SupportsIndex) and not isinstance(value, bool)


def size_of(frame: Tensor) -> str:
    """Return the size of a frame (C, H, W) for messages: width x height."""
    return f"{frame.shape[-1]} x {frame.shape[-2]}"
