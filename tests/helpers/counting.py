"""What is read and computed: frames of a source, images that a backbone sees; and tiny models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.frames import FrameSource
from data.views import WholeView
from helpers.small_models import randomised
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

MODELS = {"TSN": TSN, "TRN": TRN, "MTRN": MTRN, "TSM": TSM}


@lru_cache(maxsize=16)
def tiny(variant: str, modality: str = "RGB", segments: int = 4, **options: Any) -> TSN:
    """Make a model that sees 32 x 32 pixels of frames resized to 36; tests share it."""
    options = {"base_model": "resnet18", "pretrained": None, **options}
    model = MODELS[variant]((5, 7), segments, modality, **options)
    model.preprocessing = replace(model.preprocessing, input_size=32, scale_size=36)
    return randomised(model)


class CountedFrames(WholeView):
    """A source that writes down which frames are decoded."""

    def __init__(self, source: FrameSource) -> None:
        super().__init__(source)
        self.decoded: list[int] = []

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index, frame in self._source._frames(indices):
            self.decoded.append(index)
            yield index, frame


class NoiseFrames(FrameSource):
    """Frames of noise, as many as are wanted, made when they are read."""

    name, channels = "noise", 3

    def __init__(self, count: int, channels: int = 3, size: tuple[int, int] = (36, 40)) -> None:
        self.count, self.channels, self.size = count, channels, size

    def __len__(self) -> int:
        return self.count

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            noise = np.random.default_rng(index).integers(0, 256, (self.channels, *self.size))
            yield index, torch.from_numpy(noise.astype(np.uint8))


@contextmanager
def counted_images(model: TSN) -> Iterator[list[int]]:
    """Collect the numbers of images that a model's backbone is called with."""
    seen: list[int] = []
    backbone: nn.Module = model.base_model
    hook = backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        hook.remove()
