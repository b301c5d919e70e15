"""RGB images as tensors: checked, or made of the frames that PyAV decodes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["check_image", "to_rgb"]


def check_image(image: Tensor) -> None:
    """Raise ValueError unless an image is uint8 (3, H, W)."""
    if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3 or not image.numel():
        raise ValueError(f"image must be uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}")


def to_rgb(frame: Any, size: tuple[int, int], converter: Any) -> Tensor:
    """Convert a frame to RGB, its colours as its matrix and range say, upright.

    Args:
        frame: a PyAV frame.
        size: width and height to scale to before the frame is turned upright.
        converter: a PyAV `VideoReformatter`, to be used for many frames, by one thread at a time.

    Returns:
        uint8 tensor (3, H, W).

    Raises:
        av.FFmpegError: where FFmpeg cannot convert the frame.
    """
    width, height = size
    # A scaler with threads of its own would hang a forked process.
    scaled = converter.reformat(frame, width, height, format="rgb24", threads=1)
    pixels = np.ascontiguousarray(_apply_display_matrix(scaled.to_ndarray(), frame))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _apply_display_matrix(pixels: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Rotate and flip pixels (H, W, 3) as the frame's display matrix says, if it has one.

    The matrix maps (x, y) to (a x + c y, b x + d y). Only multiples of 90 degrees are applied.
    """
    from av.sidedata import sidedata

    side_data: Any = sidedata.SideDataContainer  # whose types are incomplete
    # Not frame.side_data, which refers back to its frame: both would wait for the collector.
    data = side_data(frame).get("DISPLAYMATRIX")
    if data is None:
        return pixels
    (a, b, _), (c, d, _), _ = np.frombuffer(data, dtype=np.int32)[:9].reshape(3, 3).tolist()
    if max(abs(a), abs(d)) * 20 < min(abs(b), abs(c)):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    elif max(abs(b), abs(c)) * 20 >= min(abs(a), abs(d)):
        return pixels
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
