"""PyTorch's group of the processes of a run, which share what each of them learns."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from engine.processes import Processes

__all__ = ["join_group"]

_PATIENCE = timedelta(days=1)
"""How long a process waits for another within a step, such as for one that writes a file."""


@contextmanager
def join_group(processes: Processes) -> Iterator[None]:
    """Join the other processes, if there are any, until the block ends.

    Args:
        processes: those that torchrun started.

    Raises:
        ConnectionError: if another process ended within the block.
    """
    if processes.count == 1:
        yield
        return
    if processes.device.type == "cuda":
        torch.cuda.set_device(processes.device)
    distributed.init_process_group(
        "nccl" if processes.device.type == "cuda" else "gloo",
        store=processes.store, rank=processes.rank, world_size=processes.count, timeout=_PATIENCE,
    )  # fmt: skip
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        reason = str(error).partition("\n")[0]
        raise ConnectionError(
            f"another process of the run has ended, or cannot be reached: {reason}"
        ) from error
    # Not after an error: the others are still waiting, until torchrun ends them.
    distributed.destroy_process_group()
