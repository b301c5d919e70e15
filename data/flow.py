"""Optical flow of one's own videos, in the form that flow models read.

Flow frame i is the motion from RGB frame i * stride to RGB frame i * stride + dilation, so R frames
have ceil((R - dilation) / stride) of them. Motion to the right is positive in u, motion down in v,
in pixels of frames whose shorter side is `size`. It is clipped to [-bound, bound] and stored in 8
bits: rint(127.5 + 127.5 * motion / bound). No motion is 128, since rint takes halves to the even
number, -bound is 0 and bound is 255; noise around zero becomes 127 and 128.

`PRESETS` has what is known of the published flow of EPIC-KITCHENS. Another program computed it, on
a GPU, with a TV-L1 of its own and a rounding that is not recorded: expect similar images, not equal
ones.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data.frame_times import ResampledFrames
from data.frames import FrameSource
from data.options import positive_integer, positive_number
from data.video import Clip, open_frames
from data.video_file import VideoFile
from data.views import ResizedFrames

__all__ = ["PRESETS", "TVL1", "ComputedFlow", "FlowConfig", "FlowMethod", "quantize_flow"]


@dataclass(frozen=True)
class FlowConfig:
    """What flow depends on beside the clip and the method.

    Attributes:
        stride: RGB frames from the beginning of one flow frame to that of the next.
        dilation: RGB frames that a flow frame spans.
        bound: motion in pixels that the grey levels 0 and 255 stand for.
        size: shorter side of the flow, to which RGB frames are resized.
        rate: RGB frames per second of a video file, as if they were extracted at that rate;
            EPIC-KITCHENS' are at 60, those of videos `PXX_1YY` at 50. None: every frame.

    Raises:
        ValueError: for anything but positive numbers, integers but for `bound` and `rate`.
    """

    stride: int = 2
    dilation: int = 3
    bound: float = 25.0
    size: int = 256
    rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("stride", "dilation", "size"):
            positive_integer(name, getattr(self, name))
        for name in ("bound", "rate"):
            value = getattr(self, name)
            if (name, value) != ("rate", None):
                positive_number(name, value)


PRESETS = {
    "epic-kitchens-55": FlowConfig(),
    "extension": FlowConfig(stride=1, dilation=1, bound=8.0),
}
"""The published flow: of the videos of 2018 as its authors state it, and of the videos `PXX_1YY` of
EPIC-KITCHENS-100, where the numbers are documented for two videos that were done again."""


class FlowMethod(Protocol):
    """A way to compute motion, and its name with version. Several threads call it at once."""

    name: str

    def __call__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the motion (H, W, 2) in pixels, u then v, between grey frames (H, W)."""


class TVL1:
    """TV-L1 (Zach, Pock and Bischof, 2007) of OpenCV on the CPU, with OpenCV's parameters.

    OpenCV is set to one thread in this process, since pairs of frames are computed side by side.

    Raises:
        ImportError: if OpenCV with its contributed modules is not installed.
    """

    def __init__(self) -> None:
        try:
            from cv2 import __version__, optflow, setNumThreads
        except ImportError as error:
            raise ImportError(
                "computing flow needs OpenCV's contributed modules, in place of any other opencv "
                "package: pip install opencv-contrib-python-headless"
            ) from error
        setNumThreads(1)
        self.name = f"TV-L1 of OpenCV {__version__}"
        self._create: Any = optflow.DualTVL1OpticalFlow_create

    def __call__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the motion, float32 (H, W, 2), between grey frames, uint8 (H, W)."""
        flow: NDArray[np.float32] = self._create().calc(first, second, None)
        return flow


def quantize_flow(flow: NDArray[np.floating[Any]], bound: float) -> NDArray[np.uint8]:
    """Return motion in pixels as grey levels: 128 for none, 0 and 255 for `bound` and beyond."""
    scaled = np.clip(127.5 + 127.5 * flow / bound, 0, 255)
    grey: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return grey


class ComputedFlow(FrameSource):
    """Flow frames of a clip of RGB frames, computed as they are read.

    `load_clip` and `Predictor` take it like any source, and compute only what they sample. Each RGB
    frame is decoded once. Flow frame 0 has number 1, as in the published folders.

    Args:
        clip: as for `open_frames`; images must be numbered without gaps.
        config: stride, dilation and so on; by default those of EPIC-KITCHENS-55.
        method: how to compute motion; None: `TVL1()`.
        jobs: pairs of frames that are computed at the same time.

    Attributes:
        config: as given.
        num_rgb_frames: RGB frames of the clip, at `config.rate`.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if the clip cannot be read, has gaps, is too short, or is no video file where
            `config.rate` is given.
        ImportError: if a package is missing.

    Example:
        >>> from data.synthetic import make_video
        >>> flow = ComputedFlow(make_video("clip.mp4"))
        >>> len(flow), flow.read([0]).shape
        (29, torch.Size([1, 2, 256, 456]))
    """

    channels = 2

    def __init__(
        self,
        clip: Clip,
        config: FlowConfig = PRESETS["epic-kitchens-55"],
        *,
        method: FlowMethod | None = None,
        jobs: int = 1,
    ) -> None:
        self.config = config
        self._jobs = positive_integer("jobs", jobs)
        self._method = method or TVL1()
        source = open_frames(clip)
        _check_no_gaps(source)
        if config.rate is not None:
            if not isinstance(source, VideoFile):
                raise ValueError(f"{source.name}: rate is for video files, whose frames have times")
            source = ResampledFrames(source, config.rate)
        self._source = ResizedFrames(source, config.size)
        self.name = source.name
        self.fps = source.fps / config.stride if source.fps else None
        self.num_rgb_frames = len(source)
        if self.num_rgb_frames <= config.dilation:
            raise ValueError(
                f"{self.name}: flow that spans {config.dilation} frames needs "
                f"{config.dilation + 1} of them, got {self.num_rgb_frames}"
            )

    def __len__(self) -> int:
        return -((self.config.dilation - self.num_rgb_frames) // self.config.stride)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers of the flow frames, 1 ... len."""
        return np.arange(1, len(self) + 1)

    def compute(self, indices: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield index and flow frame, uint8 (2, H, W), one after the other.

        Args:
            indices: ascending, each in 0 ... len - 1.

        Raises:
            ValueError: while iterating, for frames that cannot be decoded or differ in size.
        """
        pool = ThreadPoolExecutor(self._jobs)  # OpenCV computes without holding Python's lock
        waiting: deque[tuple[int, Future[Tensor]]] = deque()
        try:
            for pair in self._submit_pairs(pool, indices):
                waiting.append(pair)
                while waiting and (waiting[0][1].done() or len(waiting) > 2 * self._jobs):
                    index, future = waiting.popleft()
                    yield index, future.result()
            for index, future in waiting:
                yield index, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        return self.compute(indices)

    def _submit_pairs(
        self, pool: ThreadPoolExecutor, indices: Sequence[int]
    ) -> Iterator[tuple[int, Future[Tensor]]]:
        try:
            for index, first, second in self._read_pairs(indices):
                yield index, pool.submit(self._compute_one, first, second)
        except ValueError as error:  # raised when its turn comes: what was read before counts
            future: Future[Tensor] = Future()
            future.set_exception(error)
            yield -1, future

    def _compute_one(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Tensor:
        grey = quantize_flow(self._method(first, second), self.config.bound)
        return torch.from_numpy(grey).permute(2, 0, 1)  # (H, W, 2) -> (2, H, W)

    def _read_pairs(
        self, indices: Sequence[int]
    ) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
        """Yield index, first and second grey frame (H, W) of flow frames; decode each once."""
        stride, dilation = self.config.stride, self.config.dilation
        pairs = [(index * stride, index * stride + dilation) for index in indices]
        frames = self._source._frames_of_one_size(sorted({i for pair in pairs for i in pair}))
        grey: dict[int, NDArray[np.uint8]] = {}
        for index, (first, second) in zip(indices, pairs, strict=True):
            while second not in grey:
                place, frame = next(frames)
                pixels = frame.permute(1, 2, 0).cpu().numpy()  # (C, H, W) -> (H, W, C)
                grey[place] = np.array(Image.fromarray(pixels).convert("L"))
            yield index, grey[first], grey[second]
            grey = {place: image for place, image in grey.items() if place >= first}


def _check_no_gaps(source: FrameSource) -> None:
    """Raise ValueError where image numbers are missing: over a gap, motion is larger."""
    numbers = source.numbers
    if numbers is not None and (gaps := np.flatnonzero(np.diff(numbers) > 1)).size:
        before, after = numbers[gaps[0]], numbers[gaps[0] + 1]
        raise ValueError(
            f"{source.name}: flow needs images numbered without gaps, but none has a number "
            f"between {before} and {after}" + f" (the first of {gaps.size} gaps)" * (gaps.size > 1)
        )
