"""Models for inference alone: batch norms folded into convolutions, and a layout that suits these.

What is left of a ResNet-50 then is what its convolutions cost.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ops.backbone import Backbone
from ops.non_local import NonLocalBlock
from ops.temporal_shift import TemporalShift

__all__ = ["check_model", "evaluation_mode", "optimize_for_inference"]

Model = TypeVar("Model", bound=nn.Module)

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_model(model: object) -> None:
    """Refuse what is none of the models here.

    Raises:
        ValueError: for anything else.
    """
    # Not isinstance: torch.hub, a clone and the package have a class of this name each.
    if not (isinstance(model, nn.Module) and hasattr(model, "inference_only")):
        raise ValueError(
            f"model must be a TSN, TRN, MTRN or TSM, got {type(model).__name__} (of a wrapped "
            f"model, give the module inside)"
        )


def optimize_for_inference(
    model: Model,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
) -> Model:
    """Return a copy of a model that gives the same outputs faster, and can do nothing else.

    Batch norms of the backbone are folded into the convolutions in front of them (networks of
    pretrainedmodels keep theirs), which leaves identities in their places; convolutions lie in
    channels_last; parameters are frozen. The copy's `inference_only` is true: its `train()`,
    `get_optim_policies` and `save_checkpoint` refuse. To hooks, a convolution gives what its batch
    norm gave; blocks and stages give what they did.

    Args:
        model: a TSN, TRN, MTRN or TSM; stays as it is.
        dtype: precision of weights and inputs, such as torch.bfloat16; None, the model's own.
        channels_last: whether convolutions keep the channels of a pixel together, which CPUs and
            recent GPUs compute faster.
        compile: whether to compile the backbone with torch.compile, at its first use.

    Returns:
        The copy, in evaluation mode, where the model is.

    Raises:
        ValueError: if the model is of another kind, or `dtype` is no floating-point dtype.
    """
    check_model(model)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating-point torch.dtype or None, got {dtype!r}")
    own_dtype = next(model.parameters()).dtype
    # Folded in float32 at least, whatever comes before and after.
    fast = deepcopy(model).to(torch.promote_types(own_dtype, torch.float32))
    fast.eval().requires_grad_(False)
    network = cast(nn.Module, fast.base_model)
    _fold_batch_norms(network)
    if channels_last:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
    fast = fast.to(own_dtype if dtype is None else dtype)
    if compile:
        network.compile()
    fast.inference_only = True  # type: ignore[assignment]  # a bool of such models
    return fast


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and each of its modules back into its own mode."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _fold_batch_norms(network: nn.Module) -> None:
    """Fold batch norms into convolutions, wherever a part of a network says that it can be done."""
    folded: set[nn.Module] = set()
    for part in network.modules():
        if not isinstance(part, Backbone | NonLocalBlock):
            continue
        for convolution, batch_norm in part.foldable():
            if isinstance(convolution, TemporalShift):
                convolution = convolution.net
            if isinstance(convolution, _CONVOLUTIONS) and isinstance(batch_norm, _BATCH_NORMS):
                convolution.weight, convolution.bias = fuse_conv_bn_weights(
                    convolution.weight,
                    convolution.bias,
                    cast(Tensor, batch_norm.running_mean),
                    cast(Tensor, batch_norm.running_var),
                    batch_norm.eps,
                    batch_norm.weight,
                    batch_norm.bias,
                )
                folded.add(batch_norm)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in folded:
                setattr(parent, name, nn.Identity())
