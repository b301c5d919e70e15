"""Images of one colour under any name, and the colours of frames."""

from pathlib import Path

import torch
from PIL import Image


def save(folder: Path, name: str, value: int, mode: str = "RGB", size=(12, 10)) -> None:
    """An image of one colour, its value (a PNG inside, whatever its name, to be exact)."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode in "LP" else (value,) * len(mode)
    Image.new(mode, size, colour).save(path, format="PNG")


def values(frames: torch.Tensor) -> list[list[int]]:
    """Of each frame, the value of each channel, which must be the same everywhere."""
    assert frames.dtype == torch.uint8
    assert (frames == frames[..., :1, :1]).all()
    return frames[..., 0, 0].tolist()
