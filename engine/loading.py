"""Items of a dataset, read ahead by worker processes."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.queues import Queue
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

__all__ = ["load_items"]

Item = TypeVar("Item")


def load_items(
    dataset: Dataset[Item], indices: Sequence[Any] | None, *, workers: int, pin_memory: bool = False
) -> Iterator[Item]:
    """Yield items of a map-style dataset in a given order, or of an iterable one in its own.

    Args:
        dataset: what to read; open files belong into its `__getitem__`, not its constructor.
        indices: which items, in which order, as its `__getitem__` takes them; None for an iterable
            dataset, which one worker reads.
        workers: processes that read ahead, two items each; 0: items are read when they are needed.
        pin_memory: whether tensors come in page-locked memory, which a GPU copies from by itself.

    Raises:
        RuntimeError: if a worker ends before its time, such as for want of memory; also from
            whatever runs between two items.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_unchanged,  # the default would turn tuples into lists
        worker_init_fn=_prepare_worker,
        # Workers run on one thread, and so nothing that does not survive a fork. One takes
        # milliseconds, where a fresh interpreter takes seconds to import torch.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    try:
        yield from loader
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        if not workers:
            raise
        # It ended while it was handing over a tensor, which PyTorch does not see.
        raise RuntimeError("DataLoader worker exited unexpectedly") from error


def _unchanged(item: Item) -> Item:
    return item


def _prepare_worker(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the main process, and end a worker that cannot hand over.

    Ctrl-C reaches all processes of a terminal, SIGTERM those of a job: of `timeout`, of torchrun,
    of a batch system. The main process decides when its workers end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()
    # Python would go on without the item, which the main process waits for, forever.
    Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]  # private


def _give_up(error: Exception, item: object) -> None:
    """End a worker whose item does not fit into shared memory, for which containers have little."""
    print(f"a worker process cannot hand over what it read: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _end_when_told() -> None:
    """Wait for the SIGTERM of the main process, which ends a worker that is stuck with it."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
