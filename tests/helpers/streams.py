"""What tests of streams share: uni-directional models, frames in chunks, and what is expected."""

import random
from typing import Any

import torch
from torch import Tensor

from helpers.counting import tiny
from streaming import Stream
from tsn import TSN

Outputs = tuple[Tensor, ...]

SHIFTS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "resnet50": {},
    "resnet18 block": {"shift_place": "block"},
    "resnet50 every second": {"shift_every": 2, "shift_div": 4},
    "BNInception": {"shift_place": "block"},
    "mobilenetv2": {},
}
"""Every shiftable backbone, and place in it."""
FRAMES = 11


def past(kind: str = "resnet18", segments: int = 4, **options: Any) -> TSN:
    """Make a small uni-directional TSM; tests share it."""
    options = {"base_model": kind.split()[0], **SHIFTS[kind], **options}
    return tiny("TSM", segments=segments, shift_direction="past", **options)


def batched(kind: str = "resnet18", segments: int = FRAMES, **options: Any) -> TSN:
    """Make the network that scores each frame of a clip of T at once."""
    return past(kind, segments, consensus_type="identity", **options)


def make(variant: str) -> TSN:
    """Make a small model of a variant that can be streamed."""
    return past() if variant == "TSM" else tiny(variant, segments=3)


def frames_for(model: TSN, *shape: int, seed: int = 0) -> Tensor:
    """Return frames (*shape, L*C, 32, 32) in the range that the backbone is used to."""
    depth = model.frames_per_snippet * (2 if model.modality == "Flow" else 3)
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(*shape, depth, 32, 32, generator=generator)
    return frames * (60 if model.arch == "BNInception" else 1)


def in_chunks(stream: Stream, frames: Tensor, seed: int = 0, longest: int = 4) -> Outputs:
    """Score frames (..., t, L*C, H, W) in chunks of any length; one frame may lack its axis."""
    draw, parts, done, dim = random.Random(seed), [], 0, frames.ndim - 4
    while done < frames.shape[dim]:
        length = min(draw.randint(1, longest), frames.shape[dim] - done)
        chunk = frames.narrow(dim, done, length)
        parts.append(as_tuple(stream(chunk[0] if length == 1 and dim == 0 else chunk)))
        done += length
    return tuple(torch.cat(task, dim=dim) for task in zip(*parts, strict=True))


def as_tuple(outputs: Any) -> Outputs:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def at(scores: Outputs, *place: int) -> Outputs:
    """Return each task's scores of one frame, (classes,)."""
    return tuple(task[place] for task in scores)


@torch.no_grad()
def per_frame(model: TSN, frames: Tensor) -> Outputs:
    """Return what a model of `batched` says of the T frames of a clip."""
    return tuple(task[0] for task in as_tuple(model(frames[None])))


@torch.no_grad()
def expected_scores(model: TSN, seen: Tensor, stride: int = 1) -> Outputs:
    """Return the scores (classes,) of the last of the frames that a stream has seen.

    Without a stream: by the model itself, on the clip that ends with this frame.
    """
    t = model.num_segments
    if model.variant in ("TRN", "MTRN"):  # which repeat the first frame
        last = len(seen) - 1
        clip = seen[[max(last - place * stride, 0) for place in reversed(range(t))]]
        return at(as_tuple(model(clip[None])), 0)
    own = seen.flip(0)[::stride].flip(0)
    if model.variant == "TSM":
        # A frame reaches as many later ones as there are shifts, eight; and no earlier one.
        clip = torch.zeros(FRAMES, *seen.shape[1:])
        recent = own[-FRAMES:]
        clip[: len(recent)] = recent
        return at(per_frame(batched(), clip), len(recent) - 1)
    features = model.features(own[None, -t:])
    scores = [head(features) for head in model._heads()]
    if not model.before_softmax:
        scores = [task.softmax(-1) for task in scores]
    if model.consensus_type == "identity":
        return tuple(task[-1] for task in scores)
    return tuple(task.amax(0) if model.consensus_type == "max" else task.mean(0) for task in scores)
