"""The processes of one run: what torchrun started, or a single one.

    torchrun --nproc-per-node=8 tools/evaluate.py ...

Process r of W takes items r, r + W, ... of a fixed order. Nothing is sent while they work: what
they make lies in files, and only failures are gathered once all are done.
"""

import os
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

from data.options import positive_integer

__all__ = ["Processes", "count_cores", "join_processes"]

Item = TypeVar("Item")

_START = timedelta(minutes=5)
"""How long a process looks for torchrun, which may have been killed meanwhile."""

_PATIENCE = timedelta(days=30)
"""How long the first process to finish waits for the last one."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        device: where this process computes.
        threads: threads of this process, for computing on the CPU.
        store: what processes tell one another, which torchrun keeps; None of a process alone.
    """

    rank: int
    count: int
    device: torch.device
    threads: int
    store: Any = None

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of this process."""
        return items[self.rank :: self.count]

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all processes, in their order; wait for the last process."""
        if self.count == 1:
            return list(items)
        turn = self.store.add(f"turn of {self.rank}", 1)
        self.store.set(f"{turn} of {self.rank}", pickle.dumps(list(items)))
        # `get` would wait too, but deaf to Ctrl-C.
        while not self.store.check([f"{turn} of {rank}" for rank in range(self.count)]):
            time.sleep(0.1)
        parts = [self.store.get(f"{turn} of {rank}") for rank in range(self.count)]
        return [item for part in parts for item in pickle.loads(part)]


@contextmanager
def join_processes(device: str | None = None, threads: int | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started, or run alone.

    Args:
        device: such as "cpu", "cuda" or "cuda:1". "cuda" and None take the GPU of the process's
            number on its machine, None only if there is one.
        threads: threads of this process; None, its share of the machine's cores.

    Raises:
        ValueError: if there is no such device, or `threads` is no positive integer.
    """
    count, local_count, local_rank = (
        int(os.environ.get(name, default))
        for name, default in (("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if threads is None:
        # torchrun asks for one thread, unless told otherwise.
        threads = torch.get_num_threads() if count == 1 else count_cores() // local_count
        threads = max(threads, 1)
    torch.set_num_threads(positive_integer("threads", threads))
    chosen = _choose_device(device, local_rank)
    if count == 1:
        yield Processes(0, 1, chosen, threads)
        return
    from torch.distributed.rendezvous import rendezvous  # not in every build of PyTorch

    # The store alone, without a process group: nothing but a few words is sent, and the threads of
    # a group may hang when PyTorch 2.6 ends.
    store, rank, count = next(rendezvous("env://", timeout=_START))
    store.set_timeout(_PATIENCE)
    processes = Processes(rank, count, chosen, threads, store)
    yield processes
    # torchrun ends the others as soon as one has failed, while the first may still be writing.
    processes.gather([])


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux, where a container may have a part of them
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _choose_device(name: str | None, local_rank: int) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if name == "cuda":
            name = f"cuda:{local_rank % max(torch.cuda.device_count(), 1)}"
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device must be one of this machine, got {name!r}: {reason}") from error
    return device
