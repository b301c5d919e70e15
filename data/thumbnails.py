"""A few small pictures out of any number, evenly spread over the time that these take."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.functional import resize

__all__ = ["Thumbnails"]

_MAX_ASPECT_RATIO = 4


class Thumbnails:
    """Frames, shrunk and thinned out as they come: memory does not grow with their number.

    Args:
        height: of the thumbnails, in pixels.
        limit: how many are kept at most.
    """

    def __init__(self, height: int, limit: int = 48) -> None:
        self._height, self._limit = height, limit
        self._kept: list[tuple[float, NDArray[np.uint8]]] = []
        self._distance = 0.0  # seconds between those kept, at least

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, seconds: float, image: Tensor) -> None:
        """Offer a frame; frames come in the order of their times.

        Args:
            seconds: from the beginning of the video.
            image: uint8 RGB (3, H, W).
        """
        if self._kept and seconds < self._kept[-1][0] + self._distance:
            return
        _, h, w = image.shape
        width = min(max(1, round(self._height * w / h)), _MAX_ASPECT_RATIO * self._height)
        small = resize(image.cpu(), [self._height, width], antialias=True)
        self._kept.append((seconds, small.permute(1, 2, 0).numpy()))
        if len(self._kept) > self._limit:
            self._kept = self._kept[::2]
            self._distance = 2 * (self._kept[-1][0] - self._kept[0][0]) / self._limit

    def select(
        self, count: int, start: float, stop: float
    ) -> list[tuple[float, NDArray[np.uint8]]]:
        """Return the frames that are nearest to the middles of `count` equal parts of a time.

        Returns:
            Seconds, and uint8 RGB (height, W, 3).
        """
        times = np.array([seconds for seconds, _ in self._kept])
        middles = start + (np.arange(count) + 0.5) / count * (stop - start)
        return [self._kept[int(np.abs(times - middle).argmin())] for middle in middles]
