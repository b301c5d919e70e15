"""Small models of every variant, and how near their outputs come to a baseline.

The baseline is the model in float64 on contiguous 6-D inputs, one clip at a time. How far another
way may be from it follows from the precision it works in, measured by the largest value.
"""

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.small_models import randomised
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

Outputs = tuple[Tensor, ...]

T = 4
VARIANTS: dict[str, tuple[type[TSN], dict[str, Any]]] = {
    "TSN": (TSN, {}),
    "TSN-max": (TSN, {"consensus_type": "max"}),
    "TSN-probabilities": (TSN, {"before_softmax": False}),
    "TSN-RGBDiff": (TSN, {"modality": "RGBDiff"}),
    "TRN": (TRN, {}),
    "MTRN": (MTRN, {}),
    "MTRN-random-Flow": (
        MTRN,
        {"modality": "Flow", "relation_sampling": "random", "classifier_pairing": "per-scale"},
    ),
    "TSM": (TSM, {}),
    "TSM-block": (TSM, {"shift_place": "block"}),
    "TSM-pool": (TSM, {"temporal_pool": True}),
    "TSM-non-local-pool": (TSM, {"non_local": True, "temporal_pool": True}),
    "TSM-past": (TSM, {"shift_direction": "past"}),
    "TSM-BNInception": (TSM, {"base_model": "BNInception", "shift_place": "block"}),
}
MODELS = [name for name in VARIANTS if name not in ("TSM", "TSM-pool")]
"""Of what these compute, the others compute a part."""
FEW = ["TSN-RGBDiff", "TRN", "MTRN-random-Flow", "TSM-non-local-pool", "TSM-BNInception"]

# Units of rounding (`torch.finfo(dtype).eps`) that outputs may be off. In half precision each layer
# rounds its outputs alone, and the roundings add up at random; the longer types round the sums of
# thousands of products too, whose order differs with batch size and memory layout.
ROUNDINGS = {torch.float64: 1000, torch.float32: 100, torch.float16: 6, torch.bfloat16: 6}
HALF = [torch.float16, torch.bfloat16]


@functools.lru_cache(maxsize=len(VARIANTS))
def model_of(name: str, segments: int = T) -> TSN:
    """Return a model in evaluation mode; not to be changed."""
    kind, options = VARIANTS[name]
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
    """Return (N, T, L, C, H, W) in the range that the backbone is used to; not to be changed."""
    model = model_of(name, segments)
    c = 2 if model.modality == "Flow" else 3
    generator = torch.Generator().manual_seed(count + h + w)
    frames = torch.randn(count, segments, model.frames_per_snippet, c, h, w, generator=generator)
    return frames * (60 if model.arch == "BNInception" else 1)


def run(model: Callable[[Tensor], Any], inputs: Tensor) -> Outputs:
    """Return outputs, with the draws of relations always the same and the inputs left alone."""
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
def baseline(name: str, *shape: int) -> Outputs:
    return run_one_by_one(
        as_dtype(name, torch.float64, *shape[3:]), clips(name, *shape).contiguous().double()
    )


def assert_near(ours: Outputs, expected: Outputs, dtype: torch.dtype) -> None:
    """Compare within the precision of `dtype`, whatever dtypes the tensors have."""
    allowed = ROUNDINGS[dtype] * torch.finfo(dtype).eps
    for one, other in zip(ours, expected, strict=True):
        assert one.shape == other.shape
        off = (one.double() - other.double()).abs().max() / other.abs().max()
        assert off <= allowed, f"off by {off:.1e} of the largest value, allowed are {allowed:.1e}"


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test with each of these models; all tests of one model follow one another."""
    return pytest.mark.parametrize("name", list(names), scope="module")
