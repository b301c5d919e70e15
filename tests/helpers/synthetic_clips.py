"""Clips of noise in the place of a dataset, and a network that needs no time."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.segments import Segment
from helpers.small_tsn import small_tsn
from tsn import TSN


class SyntheticClips(Dataset[dict[str, Any]]):
    """Clips of so many frames, each its own; those with a `bad` index cannot be read."""

    def __init__(self, count: int, frames: int = 2, bad: Collection[int] = ()) -> None:
        self.segments = [Segment(f"P01_{index}", "P01_01") for index in range(count)]
        self.frames, self.bad = frames, bad

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.bad:
            raise ValueError("P01_01.MP4:\n no frame of it")
        return {"id": self.segments[index].id, "clip": noise(self.frames, index)}


def noise(frames: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (frames, 3, 36, 40), dtype=torch.uint8, generator=generator)


def tiny_tsn(num_class: Any = (5, 7), **options: Any) -> TSN:
    """Make a ResNet-18 that sees 2 segments of 32 x 32 pixels."""
    model = small_tsn(num_class, 2, **options)
    model.preprocessing = replace(model.preprocessing, input_size=32, scale_size=36)
    return model
