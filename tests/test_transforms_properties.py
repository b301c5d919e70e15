"""Group transforms on frames of any size, number, modality and form, against plain numpy.

What is expected is computed from arrays (images, H, W, channels) with nothing but slices and
arithmetic; Pillow resizes where something is resized.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import transforms
from data.preprocessing import Preprocessing
from presets import ToModelInput, evaluation_transform, training_transform
from transforms import (
    GroupCenterCrop,
    GroupFullResSample,
    GroupMultiScaleCrop,
    GroupNormalize,
    GroupOverSample,
    GroupRandomCrop,
    GroupRandomHorizontalFlip,
    GroupRandomSizedCrop,
    GroupScale,
    Stack,
    ToTorchFormatTensor,
)

Pixels = np.ndarray
Form = list[Image.Image] | Tensor

sides = st.integers(6, 60)
seeds = st.integers(0, 2**31)


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
    """Any form as int (images, H, W, channels); u and v in pairs become images of their own."""
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
    """What a transform makes of a form, which it must leave as it was."""
    before = as_pixels(form).copy()
    torch.manual_seed(seed)
    result = transform(form)
    assert np.array_equal(as_pixels(form), before), "the frames were written to"
    return result


def mirrored(pixels: Pixels, mode: str) -> Pixels:
    """Left to right; of flow, every other image is a u, whose sign changes."""
    result = pixels[:, :, ::-1].astype(int)
    if mode == "L":
        result[::2] = 255 - result[::2]
    return result


def resized(pixels: Pixels, w: int, h: int) -> Pixels:
    return as_pixels([i.resize((w, h), Image.Resampling.BILINEAR) for i in as_images(pixels)])


def scaled_size(w: int, h: int, size: int) -> tuple[int, int]:
    """GroupScale's: the shorter side becomes `size`, the longer one is rounded down."""
    return (size, int(size * h / w)) if w <= h else (int(size * w / h), size)


def cut(pixels: Pixels, x: int, y: int, w: int, h: int) -> Pixels:
    """A rectangle that lies inside."""
    assert 0 <= x <= x + w <= pixels.shape[2]
    assert 0 <= y <= y + h <= pixels.shape[1]
    return pixels[:, y : y + h, x : x + w]


def assert_levels(ours: Pixels, expected: Pixels, levels: int) -> None:
    """Equal but for `levels`; PyTorch resizes one value in a million with an error of one more."""
    assert ours.shape == expected.shape
    differences = np.abs(ours - expected)
    assert differences.max() <= 2 * levels
    assert np.count_nonzero(differences > levels) <= 1 + differences.size // 100_000


# Flips


@given(groups(), seeds)
def test_a_flip_flips(group: Group, seed: int) -> None:
    is_flow = group.mode == "L"
    flip = GroupRandomHorizontalFlip(is_flow)
    outcomes = [as_pixels(apply(flip, form, seed)) for form in group.forms()]
    torch.manual_seed(seed)
    heads = int(torch.randint(2, ())) == 1
    expected = mirrored(group.pixels, group.mode) if heads else group.pixels
    assert all(np.array_equal(outcome, expected) for outcome in outcomes)
    # Twice is the identity, also of u.
    for form in group.forms():
        twice = apply(lambda frames: seeded(flip, flip(frames), seed), form, seed)
        assert np.array_equal(as_pixels(twice), group.pixels)


def seeded(transform: Callable[[Any], Any], form: Form, seed: int) -> Any:
    torch.manual_seed(seed)
    return transform(form)


@given(groups("L"), seeds)
def test_a_flip_of_grey_frames_inverts_nothing(group: Group, seed: int) -> None:
    for form in group.forms():
        outcome = as_pixels(apply(GroupRandomHorizontalFlip(), form, seed))
        assert any(np.array_equal(outcome, p) for p in (group.pixels, group.pixels[:, :, ::-1]))


# Crops


@given(groups(), st.data(), seeds)
def test_crops_are_rectangles_inside_the_frames(group: Group, data: Any, seed: int) -> None:
    w, h = group.size
    crop_w, crop_h = data.draw(st.integers(1, w)), data.draw(st.integers(1, h))
    centre, anywhere = GroupCenterCrop((crop_h, crop_w)), GroupRandomCrop((crop_h, crop_w))
    x, y = round((w - crop_w) / 2), round((h - crop_h) / 2)
    torch.manual_seed(seed)
    drawn = [int(torch.randint(n + 1, ())) for n in (w - crop_w, h - crop_h)]
    for form in group.forms():
        outcome = as_pixels(apply(centre, form))
        assert np.array_equal(outcome, cut(group.pixels, x, y, crop_w, crop_h))
        outcome = as_pixels(apply(anywhere, form, seed))
        assert np.array_equal(outcome, cut(group.pixels, *drawn, crop_w, crop_h))


CORNERS_AND_CENTRE = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]
LEFT_RIGHT_CENTRE = [(0, 2), (4, 2), (2, 2)]
THIRTEEN = [*CORNERS_AND_CENTRE, (0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (3, 1), (1, 3), (3, 3)]


def fixed_crops(
    pixels: Pixels, mode: str, places: list[tuple[int, int]], w: int, h: int, flip: bool
) -> Pixels:
    """(crops * images, h, w, channels): crop, mirrored or not, image."""
    step_x, step_y = (pixels.shape[2] - w) // 4, (pixels.shape[1] - h) // 4
    crops = []
    for x, y in places:
        crop = cut(pixels, x * step_x, y * step_y, w, h)
        crops += [crop, mirrored(crop, mode)] if flip else [crop]
    return np.concatenate(crops)


@given(groups(), st.booleans(), st.booleans(), st.data())
def test_fixed_crops_in_order(group: Group, three: bool, flip: bool, data: Any) -> None:
    w, h = (data.draw(st.integers(1, side)) for side in group.size)
    places = LEFT_RIGHT_CENTRE if three else CORNERS_AND_CENTRE
    kind = GroupFullResSample if three else GroupOverSample
    transform = kind((w, h), None, flip)
    expected = fixed_crops(group.pixels, group.mode, places, w, h, flip)
    for form in group.forms():
        outcome = apply(transform, form)
        assert np.array_equal(as_pixels(outcome), expected)
        assert len(outcome) == len(places) * (1 + flip) * len(form)


@given(groups(), st.integers(4, 40), st.data())
def test_fixed_crops_of_scaled_frames(group: Group, scale: int, data: Any) -> None:
    crop = data.draw(st.integers(1, scale))
    scaled = resized(group.pixels, *scaled_size(*group.size, scale))
    expected = fixed_crops(scaled, group.mode, CORNERS_AND_CENTRE, crop, crop, True)
    levels = 0 if min(group.size) == scale else 1
    from_list, *from_tensors = (
        as_pixels(apply(GroupOverSample(crop, scale), form)) for form in group.forms()
    )
    assert np.array_equal(from_list, expected)
    for outcome in from_tensors:
        assert_levels(outcome, expected, levels)


# Sizes


@given(groups(), st.integers(2, 70), st.integers(2, 70), st.booleans())
def test_scale(group: Group, size: int, other: int, both: bool) -> None:
    w, h = (other, size) if both else scaled_size(*group.size, size)
    transform = GroupScale((size, other) if both else size)
    expected = resized(group.pixels, w, h)
    assert expected.shape[1:3] == (h, w)
    from_list, *from_tensors = (as_pixels(apply(transform, form)) for form in group.forms())
    assert np.array_equal(from_list, expected)
    for outcome in from_tensors:
        assert_levels(outcome, expected, levels=int(group.size != (w, h)))


def multi_scale_sizes(w: int, h: int, size: tuple[int, int], scales: list[float], distort: int,
                      ) -> set[tuple[int, int]]:  # fmt: skip
    def snapped(side: int, target: int, limit: int) -> int:
        return target if abs(side - target) < 3 and target <= limit else side

    sizes = [max(1, int(min(w, h) * scale)) for scale in scales]
    return {
        (snapped(sizes[j], size[0], w), snapped(sizes[i], size[1], h))
        for i in range(len(scales))
        for j in range(len(scales))
        if abs(i - j) <= distort
    }


@given(
    groups(),
    st.tuples(st.integers(2, 50), st.integers(2, 50)),
    st.lists(st.floats(0.1, 1), min_size=1, max_size=4),
    st.integers(0, 2),
    st.sampled_from([(True, True), (True, False), (False, True)]),
    seeds,
)
def test_multi_scale_crop(
    group: Group,
    size: tuple[int, int],
    scales: list[float],
    distort: int,
    fixed: tuple[bool, bool],
    seed: int,
) -> None:
    transform = GroupMultiScaleCrop(size, scales, distort, *fixed)
    (w, h), seen = group.size, set()
    expected_sizes = multi_scale_sizes(w, h, size, scales, distort)
    assert set(transform.crop_sizes(w, h)) == expected_sizes

    def spy(frames: Form, x: int, y: int, crop_w: int, crop_h: int) -> Form:
        seen.add((x, y, crop_w, crop_h))
        return crop(frames, x, y, crop_w, crop_h)

    crop = transforms.crop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "crop", spy)
        outcomes = [as_pixels(apply(transform, form, seed)) for form in group.forms()]
        [(x, y, crop_w, crop_h)] = seen  # the same in every form
        for further in range(20):
            apply(transform, group.forms()[2], seed + further)
    for seen_x, seen_y, seen_w, seen_h in seen:
        assert (seen_w, seen_h) in expected_sizes
        cut(group.pixels, seen_x, seen_y, seen_w, seen_h)  # inside
        if fixed[0]:
            places = THIRTEEN if fixed[1] else CORNERS_AND_CENTRE
            step_x, step_y = (w - seen_w) // 4, (h - seen_h) // 4
            assert (seen_x, seen_y) in {(step_x * i, step_y * j) for i, j in places}
    expected = resized(cut(group.pixels, x, y, crop_w, crop_h), *size)
    assert np.array_equal(outcomes[0], expected)
    for outcome in outcomes[1:]:
        assert_levels(outcome, expected, levels=int((crop_w, crop_h) != size))


@given(groups(), st.tuples(st.integers(2, 50), st.integers(2, 50)), seeds)
def test_random_sized_crop(group: Group, size: tuple[int, int], seed: int) -> None:
    h, w = size
    outcomes = [as_pixels(apply(GroupRandomSizedCrop(size), form, seed)) for form in group.forms()]
    for outcome in outcomes:
        assert outcome.shape == (len(group.pixels), h, w, group.pixels.shape[-1])
        assert_levels(outcome, outcomes[0], levels=1)
        # Averages of pixels of the same image and channel.
        assert (outcome.max((1, 2)) <= group.pixels.max((1, 2))).all()
        assert (outcome.min((1, 2)) >= group.pixels.min((1, 2))).all()


# Tensors of numbers

statistics = st.lists(st.floats(0.125, 200, width=16), min_size=1, max_size=1) | st.lists(
    st.floats(0.125, 200, width=16), min_size=3, max_size=3
)


def stacked(pixels: Pixels, bgr: bool) -> Pixels:
    """(images * channels, H, W)"""
    pixels = pixels[..., ::-1] if bgr and pixels.shape[-1] == 3 else pixels
    return np.moveaxis(pixels, -1, 1).reshape(-1, *pixels.shape[1:3]).astype(np.float64)


def normalised(values: Pixels, mean: list[float], std: list[float]) -> Pixels:
    channels = len(values)
    mean, std = (np.resize(x, channels).reshape(-1, 1, 1) for x in (mean, std))
    return (values - mean) / std


@given(groups(), st.booleans(), st.booleans(), statistics, statistics)
def test_conversion_is_plain_arithmetic(
    group: Group, bgr: bool, divide: bool, mean: list[float], std: list[float]
) -> None:
    assume(group.mode == "RGB" or len(group.pixels) % 3 == 0 or len(mean) == len(std) == 1)
    expected = stacked(group.pixels, bgr)
    in_range = expected / 255 if divide else expected
    last = normalised(in_range, mean, std)
    whole = ToModelInput(mean, std, "BGR" if bgr else "RGB", (0.0, 1.0 if divide else 255.0))
    for form in group.forms():
        stack = apply(Stack(bgr), form)
        before = stack.clone() if isinstance(stack, Tensor) else stack.copy()
        chw = stack.numpy() if isinstance(stack, Tensor) else np.moveaxis(stack, 2, 0)
        assert chw.dtype == np.uint8
        assert np.array_equal(chw, expected)
        floats = ToTorchFormatTensor(divide)(stack)
        assert (stack == before).all()
        assert floats.dtype == torch.float32
        assert np.array_equal(floats.numpy(), in_range.astype(np.float32))
        kept = floats.clone()
        chain = GroupNormalize(mean, std)(floats)
        assert floats.equal(kept)
        at_once = apply(whole, form)
        assert at_once.is_contiguous()
        assert at_once.equal(chain)
        for values in (chain, at_once):
            assert values.dtype == torch.float32
            np.testing.assert_allclose(values.numpy(), last, rtol=1e-5, atol=1e-5 * 256 / min(std))


# Presets


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
    """What the network sees, written out for each kind of network."""
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
    """How much one grey level is, at most, in the input of the model."""
    plain = model.caffe or model.modality == "RGBDiff"
    return (1 if model.caffe else 1 / 255) / (1 if plain else 0.224)


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


def check(
    preset: Callable[[Form], Tensor],
    model: SimpleNamespace,
    group: Group,
    crops: Pixels,
    resizes: bool,
    seed: int = 0,
) -> None:
    """Exactly these crops from images, and from tensors the same but for how they are resized."""
    expected = as_input(model, crops)
    from_list, *from_tensors = (apply(preset, form, seed) for form in group.forms())
    assert from_list.dtype == torch.float32
    assert from_list.shape == expected.shape
    np.testing.assert_allclose(from_list.numpy(), expected, rtol=0, atol=5e-5)
    for outcome in from_tensors:
        allowed = 1.001 * grey_level(model) if resizes else 0
        torch.testing.assert_close(outcome, from_list, rtol=0, atol=allowed)
