"""Frames of any size and form, and what transforms make of them, in plain numpy.

What is expected is computed from arrays (images, H, W, channels) with nothing but slices and
arithmetic; Pillow resizes where something is resized.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

Pixels = np.ndarray
Form = list[Image.Image] | Tensor

sides = st.integers(6, 60)
seeds = st.integers(0, 2**31)

CORNERS_AND_CENTRE = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]
LEFT_RIGHT_CENTRE = [(0, 2), (4, 2), (2, 2)]


@dataclass
class Group:
    """The same frames in every form that transforms take."""

    pixels: Pixels
    """(images, H, W, channels)"""
    mode: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[2], self.pixels.shape[1]

    def images(self) -> list[Image.Image]:
        return as_images(self.pixels)

    def forms(self) -> list[Form]:
        chw = torch.from_numpy(self.pixels).permute(0, 3, 1, 2)  # strided, as from a decoder
        forms = [self.images(), chw, chw.contiguous()]
        if self.mode == "L":  # u and v as channels
            forms.append(chw.unflatten(0, (-1, 2)).flatten(1, 2))
        return forms


def as_images(pixels: Pixels) -> list[Image.Image]:
    return [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one) for one in pixels]


def as_pixels(form: Form) -> Pixels:
    """Return int (images, H, W, channels); u and v in pairs become images of their own."""
    if isinstance(form, Tensor):
        assert form.dtype == torch.uint8
        form = form if form.shape[1] == 3 else form.flatten(0, 1).unsqueeze(1)
        return form.permute(0, 2, 3, 1).numpy().astype(int)
    return np.stack([np.atleast_3d(np.asarray(image)) for image in form]).astype(int)


@st.composite
def groups(draw: st.DrawFn, mode: str | None = None) -> Group:
    mode = mode or draw(st.sampled_from(["RGB", "L"]))
    count = draw(st.integers(1, 3)) * (2 if mode == "L" else 1)
    shape = (count, draw(sides), draw(sides), 3 if mode == "RGB" else 1)
    rng = np.random.default_rng(draw(seeds))
    return Group(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def apply(transform: Callable[[Any], Any], form: Form, seed: int = 0) -> Any:
    """Return what a transform makes of a form, which it must leave as it was."""
    before = as_pixels(form).copy()
    torch.manual_seed(seed)
    result = transform(form)
    assert np.array_equal(as_pixels(form), before), "the frames were written to"
    return result


def hflipped(pixels: Pixels, mode: str) -> Pixels:
    """Flip left to right; of flow, every other image is a u, whose sign changes."""
    result = pixels[:, :, ::-1].astype(int)
    if mode == "L":
        result[::2] = 255 - result[::2]
    return result


def resized(pixels: Pixels, w: int, h: int) -> Pixels:
    return as_pixels([i.resize((w, h), Image.Resampling.BILINEAR) for i in as_images(pixels)])


def scaled_size(w: int, h: int, size: int) -> tuple[int, int]:
    """Return GroupScale's size: the shorter side becomes `size`, the longer one is rounded down."""
    return (size, int(size * h / w)) if w <= h else (int(size * w / h), size)


def cut(pixels: Pixels, x: int, y: int, w: int, h: int) -> Pixels:
    """Cut a rectangle that lies inside."""
    assert 0 <= x <= x + w <= pixels.shape[2]
    assert 0 <= y <= y + h <= pixels.shape[1]
    return pixels[:, y : y + h, x : x + w]


def fixed_crops(
    pixels: Pixels, mode: str, places: list[tuple[int, int]], w: int, h: int, flip: bool
) -> Pixels:
    """Return (crops * images, h, w, channels): crop, flipped or not, image."""
    step_x, step_y = (pixels.shape[2] - w) // 4, (pixels.shape[1] - h) // 4
    crops = []
    for x, y in places:
        crop = cut(pixels, x * step_x, y * step_y, w, h)
        crops += [crop, hflipped(crop, mode)] if flip else [crop]
    return np.concatenate(crops)


def stacked(pixels: Pixels, bgr: bool) -> Pixels:
    """Return (images * channels, H, W)."""
    pixels = pixels[..., ::-1] if bgr and pixels.shape[-1] == 3 else pixels
    return np.moveaxis(pixels, -1, 1).reshape(-1, *pixels.shape[1:3]).astype(np.float64)


def normalised(values: Pixels, mean: list[float], std: list[float]) -> Pixels:
    channels = len(values)
    mean, std = (np.resize(x, channels).reshape(-1, 1, 1) for x in (mean, std))
    return (values - mean) / std
