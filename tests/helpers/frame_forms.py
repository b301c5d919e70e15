"""Random frames in each of the forms that transforms take."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image


def images(mode: str = "RGB", count: int = 4, width: int = 35, height: int = 20) -> list:
    """Random pictures: whatever is mixed up between them shows."""
    rng = np.random.default_rng(count * width + height)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def arrays(frames: list) -> np.ndarray:
    """(images, H, W, channels), the starting point of everything that is computed apart."""
    return np.stack([np.atleast_3d(np.asarray(image)) for image in frames])


def tensor(frames: list) -> torch.Tensor:
    return torch.from_numpy(arrays(frames).copy()).permute(0, 3, 1, 2).contiguous()


def pairs(frames: list) -> torch.Tensor:
    """L images u0, v0, u1, v1, ... as a tensor with channels u and v."""
    return tensor(frames).unflatten(0, (-1, 2)).flatten(1, 2)


def seeded(transform: Callable, frames: object, seed: int) -> object:
    torch.manual_seed(seed)
    return transform(frames)
