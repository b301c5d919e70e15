"""Every batch size, number of segments, image size and memory layout against the baseline."""

import copy
from collections.abc import Callable

import pytest
import torch
from helpers.model_variants import (
    FEW,
    HALF,
    MODELS,
    T,
    as_dtype,
    assert_near,
    baseline,
    clips,
    each,
    model_of,
    run,
    run_one_by_one,
)
from torch import Tensor

from tsn import TSN

# Batches, segments, sizes


@torch.no_grad()
@each(["TSN", "TRN", "MTRN-random-Flow", "TSM-non-local-pool"])
def test_batches_agree_with_their_clips(name: str) -> None:
    # With random relations, every batch draws once, and so the same ones as each clip alone.
    six = clips(name, 17)
    model = model_of(name)
    expected = run_one_by_one(model, six)
    for count in (3, 17):
        outputs = run(model, six[:count])
        assert_near(outputs, tuple(task[:count] for task in expected), torch.float32)


def layouts(six: Tensor) -> dict[str, Tensor]:
    """Return the same clips in every documented shape."""
    n, t, frames, c, h, w = six.shape
    return {
        "(N, T*L*C, H, W)": six.reshape(n, t * frames * c, h, w),
        "(1, k*T*L*C, H, W)": six.reshape(1, n * t * frames * c, h, w),
        "(N, T, L*C, H, W)": six.reshape(n, t, frames * c, h, w),
        "(N, T, L, C, H, W)": six,
    }


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "segments"),
    [
        (name, segments)
        for name in ("TSN", "TRN", "MTRN", "TSM", "TSM-pool", "TSM-BNInception")
        for segments in (1, 2, 3)
        # No scale of one segment, no half of an odd number.
        if not (name == "MTRN" and segments == 1) and not (name == "TSM-pool" and segments % 2)
    ],
)
def test_segments_and_documented_shapes(name: str, segments: int) -> None:
    model, six = model_of(name, segments), clips(name, 2, 24, 32, segments)
    expected = run_one_by_one(model, six)
    for inputs in layouts(six).values():
        assert_near(run(model, inputs), expected, torch.float32)


@torch.no_grad()
@each(MODELS)
def test_odd_sizes(name: str) -> None:
    model, six = model_of(name), clips(name, 2, 33, 47)
    expected = run_one_by_one(model, six)
    assert_near(run(model, six), expected, torch.float32)
    last = six.flatten(1, 3).contiguous(memory_format=torch.channels_last)
    assert_near(run(model, last), expected, torch.float32)
    # A border of zeros is what convolutions see outside: a picture is not that of its even part.
    assert (run(model, six[..., :-1, :-1])[0] - expected[0]).abs().max() > 0


# Memory


def transposed(inputs: Tensor) -> Tensor:
    return inputs.transpose(-1, -2).contiguous().transpose(-1, -2)


def strided(inputs: Tensor) -> Tensor:
    wide = torch.full((*inputs.shape[:-1], 2 * inputs.shape[-1]), torch.nan)
    wide[..., ::2] = inputs
    return wide[..., ::2]


def segments_first(inputs: Tensor) -> Tensor:
    return inputs.transpose(0, 1).contiguous().transpose(0, 1)


def colours_last(inputs: Tensor) -> Tensor:
    """As decoders give frames: colours behind height and width."""
    return inputs.movedim(-3, -1).contiguous().movedim(-1, -3)


def inside_a_larger_picture(inputs: Tensor) -> Tensor:
    return torch.nn.functional.pad(inputs, (3, 2, 1, 4), value=torch.nan)[..., 1:-4, 3:-2]


MEMORY = [transposed, strided, segments_first, colours_last, inside_a_larger_picture]


@torch.no_grad()
@pytest.mark.parametrize("arrange", MEMORY)
@each(["TSN-RGBDiff", "MTRN-random-Flow", "TSM-BNInception"])
def test_inputs_that_are_not_contiguous(name: str, arrange: Callable[[Tensor], Tensor]) -> None:
    for shape, inputs in layouts(clips(name)).items():
        arranged = arrange(inputs)
        assert arranged.equal(inputs)
        assert not arranged.is_contiguous() or (arrange, shape[:3]) == (segments_first, "(1,")
        assert_near(run(model_of(name), arranged), baseline(name), torch.float32)


@torch.no_grad()
@each(FEW)
def test_inputs_that_share_memory_with_themselves(name: str) -> None:
    model, six = model_of(name), clips(name)
    frozen = six[:, :1].expand_as(six)  # one snippet in place of all
    assert_near(run(model, frozen), run(model, frozen.contiguous()), torch.float32)
    # Neighbouring snippets of frames that overlap: (N, F, C, H, W) -> (N, T, L, C, H, W)
    length = model.frames_per_snippet
    video = six.flatten(1, 2)[:, : T + length - 1]
    sliding = video.unfold(1, length, 1).movedim(-1, 2)
    assert_near(run(model, sliding), run(model, sliding.contiguous()), torch.float32)


def in_channels_last(model: TSN) -> TSN:
    """A copy; a whole model's `to` would stumble over 3-D convolutions of non-local blocks."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    return model


@torch.no_grad()
@each(MODELS)
def test_channels_last(name: str) -> None:
    model = in_channels_last(model_of(name))
    four = clips(name).flatten(1, 3)
    five = clips(name).flatten(2, 3)
    last = four.contiguous(memory_format=torch.channels_last)
    last_3d = five.contiguous(memory_format=torch.channels_last_3d)
    for inputs in (four, last, five, last_3d):
        assert_near(run(model, inputs), baseline(name), torch.float32)
    for inputs in (last, last_3d):
        assert_near(run(model_of(name), inputs), baseline(name), torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALF, ids=str)
@each(FEW)
def test_channels_last_in_half_precision(name: str, dtype: torch.dtype) -> None:
    model = in_channels_last(as_dtype(name, dtype))
    inputs = clips(name, 1).to(dtype).flatten(1, 3).contiguous(memory_format=torch.channels_last)
    assert_near(run(model, inputs), baseline(name, 1), dtype)
