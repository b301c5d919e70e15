"""What tests of models share: quick weights, replicas, comparison by the largest value."""

from typing import Any, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def randomised(model: Model, seed: int = 0) -> Model:
    """Give a model weights and statistics as if it had been trained, in evaluation mode.

    A fresh model's batch norms do nothing, its heads next to nothing, and its non-local blocks
    nothing at all: much could be wrong without showing.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            tensor.fill_(1)
        elif name.endswith("running_mean") or (tensor.ndim == 1 and name.endswith("bias")):
            tensor.normal_(0, 0.1, generator=generator)
        elif tensor.ndim == 1:  # scales and variances
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    return model.eval()


def assert_close(ours: Any, expected: Any) -> None:
    """Tensors, or tuples of them, are equal but for rounding, measured by the largest value."""
    if isinstance(expected, tuple):
        assert isinstance(ours, tuple)
        for one, other in zip(ours, expected, strict=True):
            assert_close(one, other)
        return
    scale = expected.abs().max()
    torch.testing.assert_close(ours / scale, expected / scale, rtol=0, atol=1e-5)


def replicated(model: nn.Module) -> Any:
    """Return a replica as DataParallel makes it for another device, but on the CPU.

    `torch.nn.parallel.replicate` copies tensors to CUDA devices alone; the rest is done as there.
    """
    copies = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, replica in copies.items():
        for name, child in module._modules.items():
            if child is None:
                replica._modules[name] = None
            else:
                setattr(replica, name, copies[child])
        for name, parameter in module._parameters.items():
            if parameter is None:
                replica._parameters[name] = None
            else:
                setattr(replica, name, parameter.detach().clone())
        for name, buffer in module._buffers.items():
            replica._buffers[name] = None if buffer is None else buffer.clone()
    return copies[model]
