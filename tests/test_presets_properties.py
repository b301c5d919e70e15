"""The evaluation and training presets on frames of any size, modality and form, part by part."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from helpers.pixels import (
    CORNERS_AND_CENTRE,
    LEFT_RIGHT_CENTRE,
    Form,
    Group,
    Pixels,
    apply,
    as_pixels,
    cut,
    fixed_crops,
    groups,
    normalised,
    resized,
    scaled_size,
    seeds,
    stacked,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from data.preprocessing import Preprocessing
from presets import evaluation_transform, training_transform
from transforms import GroupMultiScaleCrop, GroupRandomHorizontalFlip


@st.composite
def models(draw: st.DrawFn) -> SimpleNamespace:
    modality = draw(st.sampled_from(["RGB", "Flow", "RGBDiff"]))
    size = draw(st.integers(4, 24))
    caffe = draw(st.booleans())
    preprocessing = Preprocessing(
        (104.0, 117.0, 128.0) if caffe else (0.485, 0.456, 0.406),
        (1.0,) if caffe else (0.229, 0.224, 0.225),
        "BGR" if caffe else "RGB",
        (0.0, 255.0 if caffe else 1.0),
        input_size=size,
        scale_size=size + draw(st.integers(0, 12)),
    )
    return SimpleNamespace(
        preprocessing=preprocessing.for_modality(modality, 2), modality=modality, caffe=caffe
    )


def as_input(model: SimpleNamespace, pixels: Pixels) -> Pixels:
    """Return what the network sees, written out for each kind of network."""
    values = stacked(pixels, bgr=model.caffe)
    if not model.caffe:
        values = values / 255
    if model.modality == "RGBDiff":  # differences are taken of plain values
        return values
    if model.modality == "Flow":
        return normalised(values, [128 if model.caffe else 0.5], [1 if model.caffe else 0.226])
    if model.caffe:
        return normalised(values, [104, 117, 128], [1])
    return normalised(values, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def grey_level(model: SimpleNamespace) -> float:
    """Return how much one grey level is, at most, in the input of the model."""
    plain = model.caffe or model.modality == "RGBDiff"
    return (1 if model.caffe else 1 / 255) / (1 if plain else 0.224)


def check(
    preset: Callable[[Form], Tensor],
    model: SimpleNamespace,
    group: Group,
    crops: Pixels,
    resizes: bool,
    seed: int = 0,
) -> None:
    """Expect exactly these crops from images, and from tensors the same but for resizing."""
    expected = as_input(model, crops)
    from_list, *from_tensors = (apply(preset, form, seed) for form in group.forms())
    assert from_list.dtype == torch.float32
    assert from_list.shape == expected.shape
    np.testing.assert_allclose(from_list.numpy(), expected, rtol=0, atol=5e-5)
    for outcome in from_tensors:
        allowed = 1.001 * grey_level(model) if resizes else 0
        torch.testing.assert_close(outcome, from_list, rtol=0, atol=allowed)


@given(models(), st.data(), st.sampled_from([1, 3, 10]))
def test_evaluation_preset_equals_its_parts(
    model: SimpleNamespace, data: Any, crop_count: int
) -> None:
    mode = "L" if model.modality == "Flow" else "RGB"
    group = data.draw(groups(mode))
    size, scale = model.preprocessing.input_size, model.preprocessing.scale_size
    w, h = scaled_size(*group.size, scale)
    scaled = resized(group.pixels, w, h)
    if crop_count == 1:
        crops = cut(scaled, round((w - size) / 2), round((h - size) / 2), size, size)
    elif crop_count == 3:
        crops = fixed_crops(scaled, mode, LEFT_RIGHT_CENTRE, scale, scale, False)
    else:
        crops = fixed_crops(scaled, mode, CORNERS_AND_CENTRE, size, size, True)
    # Crops lie behind one another, so statistics repeat over them as over the frames.
    check(evaluation_transform(model, crop_count), model, group, crops, (w, h) != group.size)


@given(models(), st.data(), seeds)
def test_training_preset_equals_its_parts(model: SimpleNamespace, data: Any, seed: int) -> None:
    group = data.draw(groups("L" if model.modality == "Flow" else "RGB"))
    scales = [1, 0.875, 0.75, 0.66] if model.modality == "RGB" else [1, 0.875, 0.75]
    size = model.preprocessing.input_size
    crop = GroupMultiScaleCrop(size, scales)
    flip = GroupRandomHorizontalFlip(is_flow=model.modality == "Flow")
    crops = as_pixels(apply(lambda frames: flip(crop(frames)), group.images(), seed))
    assert crops.shape[1:3] == (size, size)
    check(training_transform(model), model, group, crops, resizes=True, seed=seed)
