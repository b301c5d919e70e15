"""Group transforms on frames of any size, number, modality and form, against plain numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
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
    hflipped,
    normalised,
    resized,
    scaled_size,
    seeds,
    stacked,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import transforms
from presets import ToModelInput
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
    expected = hflipped(group.pixels, group.mode) if heads else group.pixels
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


THIRTEEN = [*CORNERS_AND_CENTRE, (0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (3, 1), (1, 3), (3, 3)]


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
