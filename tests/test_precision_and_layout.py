"""Every dtype, batch size, image size and memory layout against one plain path.

The plain path is the model in float64 on contiguous 6-D inputs, one clip at a time. How far another
way may be from it follows from the precision it works in, measured by the largest value.
"""

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from helpers.small_models import randomised
from torch import Tensor

from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

Outputs = tuple[Tensor, ...]

T = 4
RESNET18: dict[str, tuple[type[TSN], dict[str, Any]]] = {
    "TSN": (TSN, {}),
    "TSN-max": (TSN, {"consensus_type": "max"}),
    "TSN-probabilities": (TSN, {"before_softmax": False}),
    "TSN-Flow": (TSN, {"modality": "Flow"}),
    "TSN-RGBDiff": (TSN, {"modality": "RGBDiff"}),
    "TRN": (TRN, {}),
    "MTRN": (MTRN, {}),
    "MTRN-random": (
        MTRN,
        {"modality": "Flow", "relation_sampling": "random", "classifier_pairing": "per-scale"},
    ),
    "TSM": (TSM, {}),
    "TSM-Flow": (TSM, {"modality": "Flow"}),
    "TSM-block": (TSM, {"shift_place": "block"}),
    "TSM-non-local": (TSM, {"non_local": True}),
    "TSM-pool": (TSM, {"temporal_pool": True}),
    "TSM-non-local-pool": (TSM, {"non_local": True, "temporal_pool": True}),
}
BN_INCEPTION: dict[str, tuple[type[TSN], dict[str, Any]]] = {
    "TSN-BNInception": (TSN, {"base_model": "BNInception"}),
    "MTRN-BNInception-Flow": (MTRN, {"base_model": "BNInception", "modality": "Flow"}),
    "TSM-BNInception": (TSM, {"base_model": "BNInception", "shift_place": "block"}),
}
MODELS = RESNET18 | BN_INCEPTION
FEW = ["TSN-RGBDiff", "TRN", "MTRN-random", "TSM-non-local-pool", "TSM-BNInception"]

# Units of rounding (`torch.finfo(dtype).eps`) that outputs may be off. In half precision each layer
# rounds its outputs alone, and the roundings add up at random; the longer types round the sums of
# thousands of products too, whose order differs with batch size and memory layout.
ROUNDINGS = {torch.float64: 1000, torch.float32: 100, torch.float16: 6, torch.bfloat16: 6}
HALF = [torch.float16, torch.bfloat16]


@functools.lru_cache(maxsize=len(MODELS))
def model_of(name: str, segments: int = T) -> TSN:
    """A model in evaluation mode; not to be changed."""
    kind, options = MODELS[name]
    options = {"modality": "RGB", "base_model": "resnet18", "pretrained": None, **options}
    if options["modality"] != "RGB":
        options["new_length"] = 2
    if kind in (TRN, MTRN):
        options["img_feature_dim"] = 32
    model = randomised(kind((20, 30), segments, **options))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".nl.theta." in key or ".nl.phi." in key:
                parameter.mul_(0.05)  # attention that does not jump at every rounding
            if key.startswith("fc_") and not model.before_softmax:
                parameter.mul_(0.1)  # away from probabilities of 0 and 1
    return model


@functools.lru_cache(maxsize=8)
def as_dtype(name: str, dtype: torch.dtype, segments: int = T) -> TSN:
    return copy.deepcopy(model_of(name, segments)).to(dtype)


@functools.lru_cache(maxsize=8)
def clips(name: str, count: int = 2, h: int = 24, w: int = 32, segments: int = T) -> Tensor:
    """(N, T, L, C, H, W) in the range that the backbone is used to; not to be changed."""
    model = model_of(name, segments)
    c = 2 if model.modality == "Flow" else 3
    generator = torch.Generator().manual_seed(count + h + w)
    frames = torch.randn(count, segments, model.frames_per_snippet, c, h, w, generator=generator)
    return frames * (60 if model.arch == "BNInception" else 1)


def run(model: Callable[[Tensor], Any], inputs: Tensor) -> Outputs:
    """Outputs, with the draws of relations always the same and the inputs left alone."""
    before = inputs.detach().clone()
    torch.manual_seed(0)
    outputs = model(inputs)
    assert inputs.equal(before), "the inputs were written to"
    return outputs if isinstance(outputs, tuple) else (outputs,)


@torch.no_grad()
def run_one_by_one(model: TSN, six: Tensor) -> Outputs:
    each = [run(model, clip.unsqueeze(0)) for clip in six]
    return tuple(torch.cat(task) for task in zip(*each, strict=True))


@functools.lru_cache(maxsize=8)
def plain(name: str, *shape: int) -> Outputs:
    return run_one_by_one(
        as_dtype(name, torch.float64, *shape[3:]), clips(name, *shape).contiguous().double()
    )


def assert_near(ours: Outputs, expected: Outputs, dtype: torch.dtype) -> None:
    """Equal within the precision of `dtype`, whatever the tensors' own dtypes are."""
    allowed = ROUNDINGS[dtype] * torch.finfo(dtype).eps
    for one, other in zip(ours, expected, strict=True):
        assert one.shape == other.shape
        off = (one.double() - other.double()).abs().max() / other.abs().max()
        assert off <= allowed, f"off by {off:.1e} of the largest value, allowed are {allowed:.1e}"


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test with each of these models; all tests of one model follow one another."""
    return pytest.mark.parametrize("name", list(names), scope="module")


# Precision


@torch.no_grad()
@each(MODELS)
def test_every_dtype(name: str) -> None:
    for dtype in [torch.float32, *(HALF if name in FEW else [torch.bfloat16])]:
        outputs = run(as_dtype(name, dtype), clips(name, 1).to(dtype))
        assert {output.dtype for output in outputs} == {dtype}
        assert_near(outputs, plain(name, 1), dtype)


@torch.no_grad()
@each(MODELS)
def test_autocast(name: str) -> None:
    for dtype in HALF if name in FEW else [torch.bfloat16]:
        with torch.autocast("cpu", dtype):
            outputs = run(model_of(name), clips(name, 1))
        assert_near(outputs, plain(name, 1), dtype)


@each(["MTRN", "TSM-pool"])
def test_autocast_trains(name: str) -> None:
    """Gradients under autocast are float32, and point where the plain ones do."""
    model = copy.deepcopy(model_of(name))
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs = run(model, clips(name, 1))
        sum(output.float().logsumexp(1).sum() for output in outputs).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, expected in gradients[0].items():
        ours = gradients[1][key]
        assert ours.dtype == torch.float32
        cosine = torch.cosine_similarity(ours.flatten(), expected.flatten(), dim=0)
        assert cosine > 0.95, f"{key}: {cosine}"


@each(["TSN", "TSN-RGBDiff", "TSM-BNInception"])
@pytest.mark.parametrize(
    ("weights", "inputs", "autocast"),
    [
        (torch.float32, torch.float64, None),
        (torch.float32, torch.float16, None),
        (torch.float32, torch.bfloat16, None),
        (torch.bfloat16, torch.float32, None),
        (torch.bfloat16, torch.float16, None),
        (torch.float32, torch.float64, torch.bfloat16),
    ],
)
def test_other_dtypes_than_the_weights_are_named(
    name: str, weights: torch.dtype, inputs: torch.dtype, autocast: torch.dtype | None
) -> None:
    model = as_dtype(name, weights)
    message = f"^inputs must be {weights}, .* got {inputs}: .*model.to"
    for function in (model, model.features):
        with (
            torch.autocast("cpu", autocast, enabled=autocast is not None),
            pytest.raises(ValueError, match=message),
        ):
            function(clips(name).to(inputs))


def test_other_errors_of_the_image_network_stay_as_they_are() -> None:
    model = copy.deepcopy(model_of("TSN"))

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    model.base_model.layer1.register_forward_pre_hook(fail)
    for dtype in (torch.float32, torch.float64):  # float64 is cast, as sharded models cast inputs
        model.base_model.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        with pytest.raises(RuntimeError, match=r"^out of memory$"):
            model(clips("TSN").to(dtype))


# Batches, segments, sizes


@torch.no_grad()
@each(["TSN", "TRN", "MTRN-random", "TSM-non-local-pool"])
def test_batches_agree_with_their_clips(name: str) -> None:
    # With random relations, every batch draws once, and so the same ones as each clip alone.
    six = clips(name, 17)
    model = model_of(name)
    expected = run_one_by_one(model, six)
    for count in (3, 17):
        outputs = run(model, six[:count])
        assert_near(outputs, tuple(task[:count] for task in expected), torch.float32)


def layouts(six: Tensor) -> dict[str, Tensor]:
    """The same clips in every documented shape."""
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
        for segments in (1, 2, 3, 8)
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
@each(["MTRN"])
def test_many_segments_in_half_precision(name: str) -> None:
    shape = (1, 24, 32, 16)
    for dtype in HALF:
        outputs = run(as_dtype(name, dtype, 16), clips(name, *shape).to(dtype))
        assert_near(outputs, plain(name, *shape), dtype)


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
@each(["TSN-RGBDiff", "MTRN", "TSM-Flow", "TSM-BNInception"])
def test_inputs_that_are_not_contiguous(name: str, arrange: Callable[[Tensor], Tensor]) -> None:
    for shape, inputs in layouts(clips(name)).items():
        arranged = arrange(inputs)
        assert arranged.equal(inputs)
        assert not arranged.is_contiguous() or (arrange, shape[:3]) == (segments_first, "(1,")
        assert_near(run(model_of(name), arranged), plain(name), torch.float32)


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
        assert_near(run(model, inputs), plain(name), torch.float32)
    for inputs in (last, last_3d):
        assert_near(run(model_of(name), inputs), plain(name), torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALF, ids=str)
@each(FEW)
def test_channels_last_in_half_precision(name: str, dtype: torch.dtype) -> None:
    model = in_channels_last(as_dtype(name, dtype))
    inputs = clips(name, 1).to(dtype).flatten(1, 3).contiguous(memory_format=torch.channels_last)
    assert_near(run(model, inputs), plain(name, 1), dtype)


# Gradients


def gradient(model: TSN, leaf: Tensor, arrange: Callable[[Tensor], Tensor]) -> Tensor:
    """Of a sum that weighs every output differently, with respect to the inputs."""
    leaf = leaf.clone().requires_grad_()
    outputs = run(model, arrange(leaf))
    loss = sum((output * torch.arange(1.0, output.numel() + 1).view_as(output)).sum()
               for output in outputs)  # fmt: skip
    return torch.autograd.grad(loss, leaf)[0]


@each(["TSN", "TSM-block", *FEW])
def test_gradients_reach_the_inputs(name: str) -> None:
    leaf = clips(name).double()
    model = as_dtype(name, torch.float64)
    expected = gradient(model, leaf, lambda six: six)
    assert (expected.flatten(1, 3).abs().amax(dim=(-1, -2)) > 0).all()  # every channel
    # The slope along a direction; small steps, over which nothing is rectified.
    direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(1)).double()
    step = 1e-7
    with torch.no_grad():
        ahead, behind = (run(model, leaf + sign * step * direction) for sign in (1, -1))
    slope = sum(
        ((a - b) * torch.arange(1.0, a.numel() + 1).view_as(a)).sum() / (2 * step)
        for a, b in zip(ahead, behind, strict=True)
    )
    torch.testing.assert_close((expected * direction).sum(), slope, rtol=1e-4, atol=0)
    rearranged = gradient(model, leaf, lambda six: transposed(six).flatten(1, 3))
    assert_near((rearranged,), (expected,), torch.float64)


@each(["TSN", "TSM", *FEW])
def test_without_gradients(name: str) -> None:
    inputs = clips(name).clone().requires_grad_()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            outputs = run(model_of(name), inputs)
            made_inside = run(model_of(name), clips(name) * 1)
        assert not any(output.requires_grad for output in outputs)
        assert_near(outputs, plain(name), torch.float32)
        assert_near(made_inside, plain(name), torch.float32)


@each(["TSN", "TSM-block", *FEW])
def test_training_leaves_the_inputs_alone(name: str) -> None:
    model = copy.deepcopy(model_of(name)).train()
    for inputs in (clips(name), clips(name).flatten(1, 3)):
        sum(output.sum() for output in run(model, inputs)).backward()
