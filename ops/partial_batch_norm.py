"""Partial batch normalisation: all batch norms of a backbone but the first are frozen.

Source: Wang et al., "Temporal Segment Networks", 2016 (arXiv:1608.00859), section 3.2: a few clips
tell little of the statistics, and only the first layer sees another distribution than it was
trained on.
"""

import logging
from collections.abc import Iterable

from torch import nn

from ops.non_local import NonLocalBlock

__all__ = ["partial_batch_norms", "warn_of_fresh_statistics"]

_logger = logging.getLogger(__name__)


def partial_batch_norms(backbone: nn.Module) -> list[nn.BatchNorm2d | nn.SyncBatchNorm]:
    """Return the 2-D batch norms of a backbone but the first, in order."""
    modules = list(backbone.modules())
    # By place, for conversions to SyncBatchNorm make one class of 2-D and 3-D layers.
    blocks = (module for module in modules if isinstance(module, NonLocalBlock))
    non_local = {inner for block in blocks for inner in block.modules()}
    return [
        module
        for module in modules
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and module not in non_local
    ][1:]


def warn_of_fresh_statistics(frozen: Iterable[nn.BatchNorm2d | nn.SyncBatchNorm]) -> None:
    """Log a warning if frozen batch norms have the statistics of fresh ones.

    Activations then grow or shrink from block to block, and the loss stays ln(classes).
    """
    try:
        fresh = [
            bool((layer.running_mean == 0).all() and (layer.running_var == 1).all())
            for layer in frozen
            if layer.running_mean is not None and layer.running_var is not None
        ]
    except RuntimeError:  # without values, as on the meta device or under torch.vmap
        return
    if fresh and all(fresh):
        _logger.warning(
            "training begins with partial batch norm, but its %d frozen layers have the statistics "
            "of fresh ones: the network can hardly learn. Start from trained weights "
            "(pretrained='imagenet'), or build the model with partial_bn=False",
            len(fresh),
        )
