"""Items of a dataset, read ahead by worker processes."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from engine import loading
from engine.loading import load_items


class Facts(Dataset[tuple[int, int, int, bool]]):
    """What a worker is like: its process, its threads, whether Ctrl-C reaches it."""

    def __getitem__(self, index: int) -> tuple[int, int, int, bool]:
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return index, os.getpid(), torch.get_num_threads(), ignored


class Deadly(Dataset[int]):
    """An item ends the worker, as the system does when memory runs out."""

    def __getitem__(self, index: int) -> int:
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_items_come_in_order_from_workers_of_one_thread() -> None:
    items = list(load_items(Facts(), [4, 2, 9, 7], workers=2))
    assert [item[0] for item in items] == [4, 2, 9, 7]
    assert len({item[1] for item in items} - {os.getpid()}) == 2
    assert {item[2:] for item in items} == {(1, True)}


class Terminated(Dataset[int]):
    """A worker gets the SIGTERM that all processes of a job get."""

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return index


class Stuck(Dataset[int]):
    """Items after the first never come."""

    def __getitem__(self, index: int) -> int:
        if index:
            time.sleep(1e6)
        return os.getpid()


def test_a_worker_outlives_the_signal_that_ends_a_job() -> None:
    assert list(load_items(Terminated(), range(3), workers=1)) == [0, 1, 2]


def test_a_stuck_worker_ends_with_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    items = load_items(Stuck(), range(3), workers=1)
    worker = next(items)
    del items
    for _ in range(200):
        if not any(each.pid == worker for each in multiprocessing.active_children()):
            return
        time.sleep(0.05)
    pytest.fail("it is still there")


class Large(Dataset[torch.Tensor]):
    """Items for which there is no shared memory."""

    def __getitem__(self, index: int) -> torch.Tensor:
        def refuse(*arguments: object) -> None:
            raise RuntimeError("unable to allocate shared memory: No space left on device")

        torch.UntypedStorage._share_fd_cpu_ = refuse  # type: ignore[assignment]  # of the worker
        return torch.zeros(2)


def test_no_shared_memory_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(load_items(Large(), range(3), workers=1))
    assert "hand over what it read: unable to allocate shared memory" in capfd.readouterr().err


def test_without_workers_items_are_read_here() -> None:
    (item,) = load_items(Facts(), [5], workers=0)
    assert item[:2] == (5, os.getpid())


def test_a_worker_that_dies_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(load_items(Deadly(), range(6), workers=1))


@pytest.mark.parametrize("broken", [ConnectionResetError, EOFError, FileNotFoundError])
def test_a_worker_that_dies_while_it_hands_over_a_tensor_is_an_error(
    monkeypatch: pytest.MonkeyPatch, broken: type[Exception]
) -> None:
    def load(*arguments: Any, **options: Any) -> Iterator[int]:
        yield 0
        raise broken

    monkeypatch.setattr(loading, "DataLoader", load)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(load_items(Facts(), [0, 1], workers=1))
    with pytest.raises(broken):
        list(load_items(Facts(), [0, 1], workers=0))
