"""Every dtype, with and without autocast and gradients, against the baseline in float64."""

import copy
from collections.abc import Callable

import pytest
import torch
from helpers.model_variants import (
    FEW,
    HALF,
    MODELS,
    as_dtype,
    assert_near,
    baseline,
    clips,
    each,
    model_of,
    run,
)
from torch import Tensor

from tsn import TSN


@torch.no_grad()
@each(MODELS)
def test_every_dtype(name: str) -> None:
    for dtype in [torch.float32, *(HALF if name in FEW else [torch.bfloat16])]:
        outputs = run(as_dtype(name, dtype), clips(name, 1).to(dtype))
        assert {output.dtype for output in outputs} == {dtype}
        assert_near(outputs, baseline(name, 1), dtype)


@torch.no_grad()
@each(MODELS)
def test_autocast(name: str) -> None:
    for dtype in HALF if name in FEW else [torch.bfloat16]:
        with torch.autocast("cpu", dtype):
            outputs = run(model_of(name), clips(name, 1))
        assert_near(outputs, baseline(name, 1), dtype)


@each(["MTRN", "TSM-pool"])
def test_autocast_trains(name: str) -> None:
    """Gradients under autocast are float32, and point where the float32 ones do."""
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


@torch.no_grad()
@each(["MTRN"])
def test_many_segments_in_half_precision(name: str) -> None:
    shape = (1, 24, 32, 16)
    for dtype in HALF:
        outputs = run(as_dtype(name, dtype, 16), clips(name, *shape).to(dtype))
        assert_near(outputs, baseline(name, *shape), dtype)


@each(["TSN-RGBDiff", "TSM-BNInception"])
@pytest.mark.parametrize(
    ("weights", "inputs", "autocast"),
    [
        (torch.float32, torch.float64, None),
        (torch.float32, torch.float16, None),
        (torch.bfloat16, torch.float32, None),
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


def test_other_errors_of_the_backbone_stay_as_they_are() -> None:
    model = copy.deepcopy(model_of("TSN"))

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    model.base_model.layer1.register_forward_pre_hook(fail)
    for dtype in (torch.float32, torch.float64):  # float64 is cast, as sharded models cast inputs
        model.base_model.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        with pytest.raises(RuntimeError, match=r"^out of memory$"):
            model(clips("TSN").to(dtype))


# Gradients


def gradient(model: TSN, leaf: Tensor, arrange: Callable[[Tensor], Tensor]) -> Tensor:
    """Return that of a sum which weighs every output differently, with respect to the inputs."""
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
    rearranged = gradient(model, leaf, lambda six: six.mT.contiguous().mT.flatten(1, 3))
    assert_near((rearranged,), (expected,), torch.float64)


@each(["TSN", *FEW])
def test_without_gradients(name: str) -> None:
    inputs = clips(name).clone().requires_grad_()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            outputs = run(model_of(name), inputs)
            made_inside = run(model_of(name), clips(name) * 1)
        assert not any(output.requires_grad for output in outputs)
        assert_near(outputs, baseline(name), torch.float32)
        assert_near(made_inside, baseline(name), torch.float32)


@each(["TSN", "TSM-block", *FEW])
def test_training_leaves_the_inputs_alone(name: str) -> None:
    model = copy.deepcopy(model_of(name)).train()
    for inputs in (clips(name), clips(name).flatten(1, 3)):
        sum(output.sum() for output in run(model, inputs)).backward()
