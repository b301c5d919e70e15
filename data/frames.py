"""What all sources of frames have in common: a length, and frames read by index."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["FLOW_LAYOUTS", "RGB_LAYOUTS", "FrameRange", "FrameSource", "size_of"]

RGB_LAYOUTS = (
    "a video file, a folder of numbered images (frame_0000000001.jpg, img_00001.jpg, ...; "
    "jpg, jpeg or png), a uint8 array or tensor (frames, H, W, 3) or (frames, 3, H, W), or a list "
    "of PIL images"
)
FLOW_LAYOUTS = (
    "a folder with sub-folders u/ and v/ of numbered images, a folder of images x_00001.jpg and "
    "y_00001.jpg (or flow_x_ and flow_y_, or u_ and v_), a uint8 array or tensor "
    "(frames, H, W, 2) or (frames, 2, H, W), or a list of mode L PIL images u, v, u, v, ..."
)


class FrameSource(ABC):
    """Frames that can be counted and read by index.

    Attributes:
        name: what messages call it, such as its path.
        channels: 3 for RGB, 2 for flow (u, then v).
        fps: frames per second where known, else None.
    """

    name: str
    channels: int
    fps: float | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames (flow: of pairs of u and v), at least 1."""

    @abstractmethod
    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Index and uint8 frame (C, H, W) for ascending, distinct, valid indices.

        A frame may come more than once; the last one counts.
        """

    def read(self, indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor) -> Tensor:
        """Reads frames; each one is decoded once and nothing but the result is kept.

        Args:
            indices: one-dimensional, in any order, duplicates allowed, each in 0 ... len - 1.

        Returns:
            uint8 tensor (len(indices), C, H, W), RGB or (u, v), in the order asked for. Channels
            of a pixel that lie together in the source, as in videos and images, do so here
            (torch.channels_last): copying and resizing are fastest then.

        Raises:
            ValueError: for indices outside the clip, frames of different sizes, or frames that
                cannot be decoded.
        """
        wanted = _checked_indices(indices, len(self), self.name)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        frames: Tensor | None = None
        for index, frame in self._frames(sorted(places)):
            if frames is None:
                frames = torch.empty(
                    (len(wanted), *frame.shape),
                    dtype=frame.dtype,
                    device=frame.device,
                    memory_format=torch.channels_last
                    if frame.stride(0) == 1
                    else torch.contiguous_format,
                )
            if frame.shape != frames.shape[1:]:
                raise ValueError(
                    f"{self.name}: frames must have one size, but frame {index} is "
                    f"{size_of(frame)} where another one is {size_of(frames)} (width x height)"
                )
            for place in places[index]:
                frames[place] = frame
        assert frames is not None  # there is at least one index, and every index has a frame
        return frames


class FrameRange(FrameSource):
    """Frames start ... stop - 1 of another source, such as one labelled segment of a long video.

    Args:
        source: where the frames come from.
        start: index of the first frame.
        stop: index behind the last frame; the end of the source if None.

    Raises:
        ValueError: if the range is empty or reaches outside the source, or an end is no integer.
    """

    def __init__(self, source: FrameSource, start: int = 0, stop: int | None = None) -> None:
        stop = len(source) if stop is None else stop
        for name, value in (("start", start), ("stop", stop)):
            if isinstance(value, bool) or not isinstance(value, SupportsIndex):
                raise ValueError(f"{name} must be an integer or None, got {value!r}")
        if not 0 <= start < stop <= len(source):
            raise ValueError(
                f"start and stop must satisfy 0 <= start < stop <= {len(source)}, the number of "
                f"frames in {source.name}, got start={start}, stop={stop}"
            )
        self.name, self.channels, self.fps = source.name, source.channels, source.fps
        self._source, self._range = source, range(start, stop)

    def __len__(self) -> int:
        return len(self._range)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        start = self._range.start
        for index, frame in self._source._frames([start + index for index in indices]):
            yield index - start, frame


def _checked_indices(
    indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor, length: int, name: str
) -> list[int]:
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


def size_of(frame: Tensor) -> str:
    """Size of a frame (C, H, W) for messages: width x height."""
    return f"{frame.shape[-1]} x {frame.shape[-2]}"
