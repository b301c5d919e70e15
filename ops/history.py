"""What networks remember of the frames before: the last values at each of their places.

The state is a dictionary of tensors: "frames_seen", int64 (n,), and for each place the last values
of n streams, (n, length, ...). A step reads one state and makes the next, so that a step that fails
leaves no trace.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data.options import first_few

__all__ = ["History", "State", "blank_state", "check_shapes", "check_state", "put_stream"]

State = dict[str, Tensor]

SEEN = "frames_seen"


class History:
    """The values that n streams had at each place, during a step.

    Args:
        streams: n.
    """

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self.begin(blank_state(streams))

    def begin(self, state: State) -> None:
        """Begin a step after `state`, which stays as it is."""
        self._before = state
        self._after: State = {}

    def extend(
        self, place: str, new: Tensor, length: int, *, fill: Tensor | float | None = None
    ) -> Tensor:
        """Return the last values of a place with the new ones behind them.

        Args:
            place: its name. Places that share one are told apart by the order of calls.
            new: (n, t, ...).
            length: how many of the last values to remember.
            fill: what streams that have seen nothing remember, (n, 1, ...) or a number; 0 if None.

        Returns:
            A tensor (n, length + t, ...).
        """
        key, calls = place, 0
        while key in self._after:
            calls += 1
            key = f"{place}.{calls}"
        if key in self._before:
            last = self._before[key].to(new)  # its device and dtype
        else:
            last = new.new_zeros(new.shape[0], length, *new.shape[2:])
        if fill is not None and not self._before[SEEN].all():
            fresh = (self._before[SEEN] == 0).to(new.device)
            last = torch.where(fresh.view(-1, *(1 for _ in new.shape[1:])), fill, last)
        joined = torch.cat((last, new), dim=1)
        # A copy, or the state would hold the memory of the whole chunk.
        self._after[key] = joined[:, joined.shape[1] - length :].clone(
            memory_format=torch.contiguous_format
        )
        return joined

    def windows(
        self,
        place: str,
        new: Tensor,
        size: int,
        stride: int,
        *,
        fill: Tensor | float | None = None,
    ) -> Tensor:
        """Return for each new value the last `size` of every `stride`-th, itself included.

        Args:
            place: as for `extend`.
            new: (n, t, D).
            size: values in a window.
            stride: values from one of a window to the next.
            fill: as for `extend`.

        Returns:
            A view (n, t, D, size), in the order of time.
        """
        joined = self.extend(place, new, (size - 1) * stride, fill=fill)
        return joined.unfold(1, (size - 1) * stride + 1, 1)[..., ::stride]

    def mean(self, place: str, new: Tensor, size: int, stride: int) -> Tensor:
        """Return for each new value the mean over those of its window that have come.

        Args:
            place: as for `windows`, and so on.
            new: (n, t, D).
            size: values in a window.
            stride: values from one of a window to the next.

        Returns:
            (n, t, D) of the same dtype, computed in float32 at least.
        """
        windows = self.windows(place, new, size, stride)
        total = windows.sum(-1, dtype=torch.promote_types(new.dtype, torch.float32))
        earlier = self._before[SEEN][:, None] + torch.arange(new.shape[1], device="cpu")
        counts = (earlier // stride + 1).clamp(max=size).to(new.device)
        return (total / counts[:, :, None]).to(new.dtype)

    def finish(self, frames: int) -> State:
        """Return the state after a step of `frames` frames of each stream."""
        return {SEEN: self._before[SEEN] + frames, **self._after}


def blank_state(streams: int) -> State:
    """Return the state of streams that have seen nothing."""
    return {SEEN: torch.zeros(streams, dtype=torch.int64, device="cpu")}


def put_stream(state: State, index: int, part: Mapping[str, Tensor] | None = None) -> State:
    """Return a state in which one stream has another state.

    Args:
        state: of n streams; stays as it is.
        index: which stream.
        part: the state that it gets, (1, ...) each, with the same names; zeros if None.
    """
    result = {name: values.clone() for name, values in state.items()}
    for name, values in result.items():
        values[index] = 0 if part is None else part[name][0].to(values.device)
    return result


def check_state(state: Any, streams: int) -> None:
    """Refuse what cannot be a state.

    Args:
        state: what should be a state of some network.
        streams: n.

    Raises:
        ValueError: if it is no dictionary of tensors, or not of n streams.
    """
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"state must be what state_dict() of a Stream returned, a dictionary of tensors, got "
            f"{type(state).__name__}"
        )
    seen = state.get(SEEN)
    if seen is None or seen.dtype != torch.int64 or seen.shape != (streams,) or (seen < 0).any():
        got = "none" if seen is None else f"{seen.dtype} {tuple(seen.shape)}"
        raise ValueError(
            f"state must be of {streams} stream{'s' * (streams != 1)} with a {SEEN!r} of int64 "
            f"({streams},), not negative, got {got}"
        )


def check_shapes(state: Mapping[str, Tensor], template: State) -> None:
    """Refuse a state of another network, or of other frames.

    Args:
        state: one that `check_state` accepts.
        template: a state of any number of streams whose names and shapes are right.

    Raises:
        ValueError: with the first things that are wrong.
    """
    faults = [f"{name} is missing" for name in template if name not in state]
    faults += [f"{name} is unknown" for name in state if name not in template]
    for name in [name for name in template if name in state]:
        expected, got = (len(state[SEEN]), *template[name].shape[1:]), tuple(state[name].shape)
        if got != expected:
            faults.append(f"{name} must be {expected}, got {got}")
    if faults:
        raise ValueError(
            f"state must be that of a Stream of this model, with the same stride and window, over "
            f"frames of the same size: {first_few(faults, separator='; ')}"
        )
