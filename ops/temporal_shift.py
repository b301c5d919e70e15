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

from ops.backbones import ResNet
from ops.bn_inception import BNInception

__all__ = [
    "SHIFT_PLACES",
    "TemporalPool",
    "TemporalShift",
    "add_temporal_pool",
    "add_temporal_shift",
    "temporal_shift",
]

SHIFT_PLACES = ("block", "blockres")
"""Where a residual block shifts: on its input altogether, or inside the residual branch alone."""


def temporal_shift(x: Tensor, num_segments: int, shift_div: int = 8) -> Tensor:
    """Move some channels one segment back, as many one segment forward, and leave the rest.

    With fold = C // shift_div: channels [0, fold) take their value from the next segment (the last
    segment gets zeros), [fold, 2 fold) from the previous one (the first gets zeros).

    Args:
        x: float (N*T, C, H, W), T = `num_segments`; the segments of a clip are neighbours.
        num_segments: T.
        shift_div: one part in `shift_div` of the channels moves each way.

    Returns:
        A new tensor of the same shape, dtype and memory format.
    """
    fold = x.shape[1] // shift_div
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return _shifted_by_concatenation(x, num_segments, fold)
    return _shift(x, num_segments, fold)


def _shift(x: Tensor, num_segments: int, fold: int, reverse: bool = False) -> Tensor:
    """The first `fold` channels move back and the second forward, or the other way round."""
    if torch.is_grad_enabled() and x.requires_grad and not _is_traced():
        return cast(Tensor, _Shift.apply(x, num_segments, fold, reverse))
    return _shifted(x, num_segments, fold, reverse)


def _shifted_by_concatenation(x: Tensor, num_segments: int, fold: int) -> Tensor:
    """The shift for torch.jit.trace and the older exporter for ONNX, which loses writes in place.

    torch.compile takes three times as long to compile it with shapes that are symbols.
    """
    # (N*T, C, H, W) -> (N, T, C, H, W)
    clips = x.unflatten(0, (-1, num_segments))
    back = F.pad(clips[:, 1:, :fold], (0, 0, 0, 0, 0, 0, 0, 1))
    forward = F.pad(clips[:, :-1, fold : 2 * fold], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat((back, forward, clips[:, :, 2 * fold :]), dim=2).flatten(0, 1)


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def _shifted(x: Tensor, num_segments: int, fold: int, reverse: bool) -> Tensor:
    """What `_shift` returns, in operations of PyTorch."""
    # One pass over everything, then the few channels that move. A concatenation would lose
    # channels_last, and convolutions would rearrange it; writing each part of an empty tensor takes
    # half as long again where the channels of a pixel lie together.
    result = x.clone()
    _move(x, result, num_segments, fold, reverse)
    return result


def _move(
    source: Tensor, target: Tensor, num_segments: int, fold: int, reverse: bool = False
) -> None:
    """Write what moves of `source` to its place in `target`, both (N*T, at least 2 fold, H, W)."""
    # (N*T, C, H, W) -> (N, T, C, H, W), views of both
    clips = (source.shape[0] // num_segments, num_segments)
    source, target = (x.view(*clips, *x.shape[1:]) for x in (source, target))
    back, forward = slice(fold), slice(fold, 2 * fold)
    if reverse:
        back, forward = forward, back
    target[:, :-1, back] = source[:, 1:, back]
    target[:, -1, back].zero_()
    target[:, 1:, forward] = source[:, :-1, forward]
    target[:, 0, forward].zero_()


def _shift_in_place(x: Tensor, num_segments: int, fold: int) -> tuple[Tensor, Tensor]:
    """Shift a dense tensor of at least two segments; returns what moves of it, and a copy of that.

    It does what `_move` does. Slices would take as long as the copying, hence the strides.
    """
    moving = x.narrow(1, 0, 2 * fold)
    original = moving.clone()
    clips, size = x.shape[0] // num_segments, (fold, *x.shape[2:])

    def all_but_one(tensor: Tensor, segment: int, channel: int) -> Tensor:
        """`fold` channels of all segments of each clip but one, from these on."""
        frame, *rest = tensor.stride()
        start = tensor.storage_offset() + segment * frame + channel * rest[0]
        strides = (num_segments * frame, frame, *rest)
        return tensor.as_strided((clips, num_segments - 1, *size), strides, start)

    all_but_one(x, 0, 0).copy_(all_but_one(original, 1, 0))
    all_but_one(x, 1, fold).copy_(all_but_one(original, 0, fold))
    # The second channels of the first segment and the first of the last, which are so far apart:
    frame, *rest = x.stride()
    start = x.storage_offset() + fold * rest[0]
    strides = (num_segments * frame, (num_segments - 1) * frame - fold * rest[0], *rest)
    x.as_strided((clips, 2, *size), strides, start).zero_()
    return moving, original


class _Shift(Function):
    """The shift with its derivative, which is the shift the other way round.

    Left to itself, autograd copies the whole gradient for each part that is written.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, num_segments: int, fold: int, reverse: bool) -> Tensor:
        return _shifted(x, num_segments, fold, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.num_segments, ctx.fold, ctx.reverse = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        shifted = _shift(gradient, ctx.num_segments, ctx.fold, not ctx.reverse)
        return shifted, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _shift(tangent, ctx.num_segments, ctx.fold, ctx.reverse)


class TemporalShift(nn.Module):
    """Shift, then `net`: wraps a module so that its input is shifted through time.

    Args:
        net: module applied to the shifted (N*T, C, H, W).
        num_segments: T.
        shift_div: one part in `shift_div` of the channels moves each way.

    Attributes:
        in_place: whether to shift the input itself, which moves less memory, and put it back
            afterwards; where `net` is the identity it stays shifted and is the output, as with
            nn.ReLU(inplace=True). It is done in inference mode alone, on a tensor that was made
            there, and not while there are hooks, which could keep what changes. Any other `net`
            must not return its input, and no other thread may use it.
    """

    def __init__(self, net: nn.Module, num_segments: int, shift_div: int = 8) -> None:
        super().__init__()
        self.net = net
        self.num_segments = num_segments
        self.shift_div = shift_div
        self.in_place = False

    def forward(self, x: Tensor) -> Tensor:
        """Apply `net` to the shifted `x` (N*T, C, H, W)."""
        if not self.in_place or _is_traced() or not self._may_borrow(x):
            return cast(Tensor, self.net(temporal_shift(x, self.num_segments, self.shift_div)))
        moving, original = _shift_in_place(x, self.num_segments, x.shape[1] // self.shift_div)
        if isinstance(self.net, nn.Identity):
            return x
        try:
            return cast(Tensor, self.net(x))
        finally:
            moving.copy_(original)

    def _may_borrow(self, x: Tensor) -> bool:
        """Whether nobody sees that `x` is another for a while, and no element is there twice."""
        net = self.net
        return (
            torch.is_inference_mode_enabled()
            and x.is_inference()
            and (x.is_contiguous(memory_format=torch.channels_last) or x.is_contiguous())
            and min(self.num_segments, self.shift_div) > 1
            and x.shape[0] % self.num_segments == 0  # otherwise the copy says what is wrong
            and not (self._forward_pre_hooks or self._forward_hooks)
            and not (net._forward_pre_hooks or net._forward_hooks)
        )

    def extra_repr(self) -> str:
        """Show the options beside the wrapped module."""
        return f"num_segments={self.num_segments}, shift_div={self.shift_div}"


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
    temporal_pool: bool = False,
) -> None:
    """Make a backbone shift channels through time, in place.

    A ResNet shifts in its residual blocks. BN-Inception shifts the input of every stage but the
    first, eleven in all; its key names stay as they are.

    Args:
        backbone: an `ops.backbones.ResNet` or `BNInception`.
        num_segments: T.
        shift_div: one part in `shift_div` of the channels moves each way.
        shift_place: "blockres" shifts the input of each block's first convolution and leaves the
            shortcut as it is; "block" shifts the block's input. BN-Inception has no shortcuts, so
            only "block" is possible there.
        shift_every: 1 shifts in every block, k in blocks 0, k, 2k, ... of every stage.
        temporal_pool: whether `add_temporal_pool` will follow, after which the stages from
            `layer2` on see half as many segments.

    Raises:
        ValueError: for a backbone or a place where no shift is possible.
    """
    if isinstance(backbone, BNInception):
        if shift_place != "block":
            raise ValueError(
                f"shift_place={shift_place!r} is not possible with BNInception, which has no "
                f"residual blocks: use shift_place='block'"
            )
        if shift_every != 1 or temporal_pool:
            raise ValueError(
                f"shift_every={shift_every!r} and temporal_pool={temporal_pool!r} are for ResNets; "
                f"BNInception takes shift_every=1 and temporal_pool=False"
            )
        backbone.before_stage = TemporalShift(nn.Identity(), num_segments, shift_div)
        return
    if not isinstance(backbone, ResNet):
        raise ValueError(
            f"base_model must be a ResNet or BNInception to be shifted, got "
            f"{type(backbone).__name__}"
        )
    for index, stage in enumerate(backbone.stages()):
        segments = num_segments // 2 if temporal_pool and index > 0 else num_segments
        for position in range(0, len(stage), shift_every):
            block = stage[position]
            if shift_place == "block":
                stage[position] = TemporalShift(block, segments, shift_div)
            else:
                block.conv1 = TemporalShift(cast(nn.Module, block.conv1), segments, shift_div)


def add_temporal_pool(backbone: nn.Module, num_segments: int) -> None:
    """Halve the segments in front of a ResNet's second stage, in place.

    To be added after shifts and non-local blocks, whose key names then start with `layer2.net`.

    Args:
        backbone: an `ops.backbones.ResNet`.
        num_segments: T, even.

    Raises:
        ValueError: if the backbone is not a ResNet or T is odd.
    """
    if not isinstance(backbone, ResNet):
        raise ValueError(
            f"temporal_pool needs a ResNet as base_model, got {type(backbone).__name__}"
        )
    if num_segments % 2:
        raise ValueError(f"temporal_pool needs an even num_segments, got {num_segments}")
    backbone.layer2 = TemporalPool(backbone.layer2, num_segments)
