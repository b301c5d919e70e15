"""Weights into networks: built without any, checked by name, shape and kind, and assigned."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from checkpoints.errors import CheckpointError, join_names

__all__ = ["init_empty", "load_weights"]

_FILLS = {
    *("normal_", "uniform_", "fill_", "zero_"),
    *("constant_", "kaiming_normal_", "kaiming_uniform_"),  # of torch.nn.init
}


class _NoFills(TorchFunctionMode):
    """Takes initial values for given: on the meta device each costs as much as many a real one."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function.__name__ in _FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))


@contextmanager
def init_empty() -> Iterator[None]:
    """Have modules built inside, in this thread, get shapes: no memory, and no values in it."""
    with torch.device("meta"), _NoFills():
        yield


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    absent: tuple[str, ...] = (),
) -> None:
    """Give a model its weights, without copying those that have a storage of their own.

    Args:
        model: usually on the meta device; its parameters are replaced.
        state: weights under the model's names, not to be used any more; converted to its precision.
        source: where the weights come from, for the error.
        absent: prefixes of names that `state` need not have.

    Raises:
        CheckpointError: if names, shapes or kinds of numbers differ, with a summary of which.
    """
    wanted = model.state_dict()
    # Files written before PyTorch 0.4.1 do not count batches; batch norm starts at zero then.
    missing = [
        name
        for name in wanted
        if name not in state
        and not name.startswith(absent)
        and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in wanted]
    common = [name for name in wanted if name in state]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in common
        if state[name].shape != wanted[name].shape
    ]
    mistyped = [
        f"{name} {state[name].dtype} instead of {wanted[name].dtype}"
        for name in common
        if wanted[name].is_floating_point() and not state[name].is_floating_point()
    ]
    problems = [
        f"{len(names)} {what}: {join_names(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
            ("of another type", mistyped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the weights of {source} do not fit a {type(model).__name__} of its config; "
            f"{'; '.join(problems)}"
        )
    # Detached, since a parameter given for a buffer would become one of the model's.
    own = _own_memory(
        {name: tensor.detach().to(wanted[name].dtype) for name, tensor in state.items()}
    )
    model.load_state_dict(own, strict=False, assign=True)


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors that are contiguous and share nothing: only those that do are copied.

    A view of something larger would keep that alive, and what two names share would be trained
    twice.
    """
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if (
            not tensor.is_contiguous()
            or storage.nbytes() != tensor.nbytes
            or storage.data_ptr() in storages
        ):
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        storages.add(tensor.untyped_storage().data_ptr())
        own[name] = tensor
    return own
