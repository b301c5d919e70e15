"""The temporal shift, its insertion into a backbone, and temporal pooling.

Source: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", 2019
(arXiv:1811.08383).

Differences from the original:
    - Temporal pooling really pools; the original halves the number of segments without inserting
      the pooling, and so returns twice as many predictions.
    - `shift_every` says which residual blocks shift. The original derives it from the depth, in one
      of its versions; weights of both kinds exist.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from ops.backbone import Backbone
from ops.backbones import SHIFTABLE

__all__ = [
    "SHIFT_DIRECTIONS",
    "SHIFT_PLACES",
    "TemporalPool",
    "TemporalShift",
    "add_temporal_pool",
    "add_temporal_shift",
    "temporal_shift",
]

SHIFT_PLACES = ("block", "blockres")
"""Where a residual block shifts: on its input altogether, or inside the residual branch alone."""
SHIFT_DIRECTIONS = ("both", "past")
"""Where channels come from: half of those that move from either neighbour, or all from the past."""


def temporal_shift(
    x: Tensor, num_segments: int, shift_div: int = 8, direction: str = "both"
) -> Tensor:
    """Move some channels through time, and leave the rest.

    With fold = C // shift_div, "both" moves channels [0, fold) one segment back, so that they take
    their value from the next segment (the last segment gets zeros), and [fold, 2 fold) one segment
    forward (the first gets zeros). "past" moves channels [0, fold) forward.

    Args:
        x: float (N*T, C, H, W), T = `num_segments`; the segments of a clip are neighbours.
        num_segments: T.
        shift_div: one part in `shift_div` of the channels moves each way.
        direction: one of `SHIFT_DIRECTIONS`.

    Returns:
        A new tensor of the same shape, dtype and memory format.
    """
    fold = x.shape[1] // shift_div
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return _shifted_by_concatenation(x, num_segments, fold, direction)
    return _shift(x, num_segments, fold, direction)


def _moves(fold: int, direction: str) -> list[tuple[slice, int]]:
    """Return which channels move, and how many segments forward."""
    first, second = slice(fold), slice(fold, 2 * fold)
    return [(first, -1), (second, 1)] if direction == "both" else [(first, 1)]


def _shift(
    x: Tensor, num_segments: int, fold: int, direction: str, reverse: bool = False
) -> Tensor:
    """Move channels as `direction` says, or in reverse."""
    if torch.is_grad_enabled() and x.requires_grad and not _is_traced():
        return cast(Tensor, _Shift.apply(x, num_segments, fold, direction, reverse))
    return _shifted(x, num_segments, fold, direction, reverse)


def _shifted_by_concatenation(x: Tensor, num_segments: int, fold: int, direction: str) -> Tensor:
    """Shift for torch.jit.trace and the older exporter for ONNX, which loses writes in place.

    torch.compile takes three times as long to compile it with shapes that are symbols.
    """
    # (N*T, C, H, W) -> (N, T, C, H, W)
    clips = x.unflatten(0, (-1, num_segments))
    moves = _moves(fold, direction)
    parts = [
        F.pad(clips[:, :-1, channels], (0, 0, 0, 0, 0, 0, 1, 0))
        if step > 0
        else F.pad(clips[:, 1:, channels], (0, 0, 0, 0, 0, 0, 0, 1))
        for channels, step in moves
    ]
    return torch.cat((*parts, clips[:, :, len(moves) * fold :]), dim=2).flatten(0, 1)


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def _shifted(x: Tensor, num_segments: int, fold: int, direction: str, reverse: bool) -> Tensor:
    """Return what `_shift` returns, in operations of PyTorch."""
    # One pass over everything, then the few channels that move. A concatenation would lose
    # channels_last, and convolutions would rearrange it; writing each part of an empty tensor takes
    # half as long again where the channels of a pixel lie together.
    result = x.clone()
    # (N*T, C, H, W) -> (N, T, C, H, W), views of both
    clips = (x.shape[0] // num_segments, num_segments, *x.shape[1:])
    source, target = x.view(clips), result.view(clips)
    for channels, step in _moves(fold, direction):
        if (step > 0) != reverse:
            target[:, 1:, channels] = source[:, :-1, channels]
            target[:, 0, channels].zero_()
        else:
            target[:, :-1, channels] = source[:, 1:, channels]
            target[:, -1, channels].zero_()
    return result


class _Shift(Function):
    """The shift with its derivative, which is the shift the other way round.

    Left to itself, autograd copies the whole gradient for each part that is written.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, num_segments: int, fold: int, direction: str, reverse: bool) -> Tensor:
        return _shifted(x, num_segments, fold, direction, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.num_segments, ctx.fold, ctx.direction, ctx.reverse = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = gradients
        shifted = _shift(gradient, ctx.num_segments, ctx.fold, ctx.direction, not ctx.reverse)
        return shifted, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _shift(tangent, ctx.num_segments, ctx.fold, ctx.direction, ctx.reverse)


class TemporalShift(nn.Module):
    """Shift, then `net`: wraps a module so that its input is shifted through time.

    Args:
        net: module applied to the shifted (N*T, C, H, W).
        num_segments: T.
        shift_div: one part in `shift_div` of the channels moves each way.
        direction: one of `SHIFT_DIRECTIONS`.
    """

    def __init__(
        self, net: nn.Module, num_segments: int, shift_div: int = 8, direction: str = "both"
    ) -> None:
        super().__init__()
        self.net = net
        self.num_segments = num_segments
        self.shift_div = shift_div
        self.direction = direction

    def forward(self, x: Tensor) -> Tensor:
        """Apply `net` to the shifted `x` (N*T, C, H, W)."""
        shifted = temporal_shift(x, self.num_segments, self.shift_div, self.direction)
        return cast(Tensor, self.net(shifted))

    def extra_repr(self) -> str:
        """Show the options beside the wrapped module."""
        options = f"num_segments={self.num_segments}, shift_div={self.shift_div}"
        return f"{options}, direction={self.direction!r}"


class TemporalPool(nn.Module):
    """Halve the segments by a maximum over three neighbours, stride two, then apply `net`.

    Args:
        net: module applied to the pooled (N*T/2, C, H, W).
        num_segments: T, even.
    """

    def __init__(self, net: nn.Module, num_segments: int) -> None:
        super().__init__()
        self.net = net
        self.num_segments = num_segments

    def forward(self, x: Tensor) -> Tensor:
        """Apply `net` to `x` (N*T, C, H, W) pooled over time."""
        # (N*T, C, H, W) -> (N, C, T, H, W)
        clips = x.unflatten(0, (-1, self.num_segments)).transpose(1, 2)
        pooled = F.max_pool3d(clips, (3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0))
        # (N, C, T/2, H, W) -> (N*T/2, C, H, W)
        return cast(Tensor, self.net(pooled.transpose(1, 2).flatten(0, 1)))


def add_temporal_shift(
    backbone: nn.Module,
    num_segments: int,
    *,
    shift_div: int = 8,
    shift_place: str = "blockres",
    shift_every: int = 1,
    shift_direction: str = "both",
    temporal_pool: bool = False,
) -> None:
    """Make a backbone shift channels through time, in place.

    Args:
        backbone: one of `ops.backbones.SHIFTABLE`.
        num_segments: T.
        shift_div: one part in `shift_div` of the channels moves each way.
        shift_place: "blockres" shifts the input of each block's first convolution and leaves the
            shortcut as it is; "block" shifts the block's input. BN-Inception has no shortcuts, so
            only "block" is possible there: the input of every stage but the first, eleven in all.
        shift_every: 1 shifts in every block, k in blocks 0, k, 2k, ... of every stage.
        shift_direction: one of `SHIFT_DIRECTIONS`.
        temporal_pool: whether `add_temporal_pool` will follow, after which all stages but the first
            see half as many segments.

    Raises:
        ValueError: for a backbone or a place where no shift is possible.
    """
    places = (
        backbone.shift_places(shift_place, shift_every) if isinstance(backbone, Backbone) else []
    )
    if not places:
        raise ValueError(
            f"base_model must be one of {', '.join(SHIFTABLE)} to be shifted, got a "
            f"{type(backbone).__name__}"
        )
    for index, stage in enumerate(places):
        segments = num_segments // 2 if temporal_pool and index > 0 else num_segments
        for parent, name in stage:
            shifted = parent.get_submodule(name)
            shift = TemporalShift(shifted, segments, shift_div, shift_direction)
            setattr(parent, name, shift)


def add_temporal_pool(backbone: nn.Module, num_segments: int) -> None:
    """Halve the segments in front of the second residual stage, in place.

    To be added after shifts and non-local blocks, whose key names then start with `layer2.net`.

    Args:
        backbone: a backbone with residual stages.
        num_segments: T, even.

    Raises:
        ValueError: if the backbone has no such stages, or T is odd.
    """
    stages = list(backbone.stages()) if isinstance(backbone, Backbone) else []
    if not stages:
        raise ValueError(
            f"temporal_pool needs a ResNet as base_model, got {type(backbone).__name__}"
        )
    if num_segments % 2:
        raise ValueError(f"temporal_pool needs an even num_segments, got {num_segments}")
    second = stages[1]
    setattr(backbone, second, TemporalPool(backbone.get_submodule(second), num_segments))
