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

    Attributes:
        kept: seconds and uint8 RGB (height, W, 3) of each, in the order of their times.
    """

    def __init__(self, height: int, limit: int = 48) -> None:
        self._height, self._limit = height, limit
        self.kept: list[tuple[float, NDArray[np.uint8]]] = []
        self._distance = 0.0  # seconds between those kept, at least

    def add(self, seconds: float, image: Tensor) -> None:
        """Offer a frame; frames come in the order of their times.

        Args:
            seconds: from the beginning of the video.
            image: uint8 RGB (3, H, W).
        """
        if self.kept and seconds < self.kept[-1][0] + self._distance - 1e-6:  # rounding errors
            return
        _, h, w = image.shape
        width = min(max(1, round(self._height * w / h)), _MAX_ASPECT_RATIO * self._height)
        small = resize(image.cpu(), [self._height, width], antialias=True)
        self.kept.append((seconds, small.permute(1, 2, 0).numpy()))
        if len(self.kept) > self._limit:
            self.kept = self.kept[::2]
            self._distance = 2 * (self.kept[-1][0] - self.kept[0][0]) / self._limit
