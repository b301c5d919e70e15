"""The uni-directional shift over a stream, of which a network sees a few frames at a time.

Source: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", 2019
(arXiv:1811.08383), online models.

Differences from the original:
    - The first frame is shifted zeros, where its demonstration begins with uninitialised memory.
    - Any number of streams and frames at a time.
"""

from copy import deepcopy
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from ops.history import History

__all__ = ["StreamingShift", "streaming_copy"]

Model = TypeVar("Model", bound=nn.Module)


class StreamingShift(nn.Module):
    """Shift from the past, then `net`, where the past may have been in calls before.

    Args:
        net: module applied to the shifted (n*t, C, H, W).
        shift_div: channels [0, C // shift_div) come from the past.
        history: where they are remembered.
        place: name of this place there.
        stride: from how many frames before they come.
    """

    def __init__(
        self, net: nn.Module, shift_div: int, history: History, place: str, stride: int = 1
    ) -> None:
        super().__init__()
        self.net = net
        self.shift_div = shift_div
        self.history = history
        self.place = place
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Apply `net` to the shifted `x` (n*t, C, H, W), the next t frames of n streams."""
        shifted = x.clone()  # keeps channels_last, as a concatenation would not
        # (n*t, C, H, W) -> (n, t, C, H, W), views of both
        shape, fold = (self.history.streams, -1, *x.shape[1:]), x.shape[1] // self.shift_div
        moving = x.view(shape)[:, :, :fold]
        joined = self.history.extend(self.place, moving, self.stride)
        shifted.view(shape)[:, :, :fold] = joined[:, : moving.shape[1]]
        return cast(Tensor, self.net(shifted))

    def extra_repr(self) -> str:
        """Show the options beside the wrapped module."""
        return f"shift_div={self.shift_div}, stride={self.stride}"


def streaming_copy(model: Model, history: History, stride: int = 1) -> Model:
    """Return a copy of a model that has the same weights, evaluates, and shifts over streams.

    Weights, buffers and hooks are the model's own: they take no memory again, and follow what
    happens to the model. Modules are not, so that neither's mode is the other's.

    Args:
        model: a model whose shifts, if it has any, are from the past.
        history: where shifts remember frames.
        stride: from how many frames before a shift comes.
    """
    memo: dict[int, Any] = {
        id(value): value
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, dict) and name != "_modules"
    }
    copy = deepcopy(model, memo)
    for module, original in zip(list(copy.modules()), list(model.modules()), strict=True):
        module.training = False
        if original._compiled_call_impl is not None:  # which copying loses
            module.compile()
    for name, module in list(copy.named_modules()):
        # Not isinstance: torch.hub, a clone and the package have a class of this name each.
        if type(module).__name__ == "TemporalShift":
            shift: Any = module
            place = name.replace("_orig_mod.", "")  # of torch.compile's wrappers
            streaming = StreamingShift(shift.net, shift.shift_div, history, place, stride).eval()
            # Its hooks, which are in dictionaries, and its net.
            vars(streaming).update({k: v for k, v in vars(shift).items() if isinstance(v, dict)})
            copy.set_submodule(name, streaming)
    return copy
