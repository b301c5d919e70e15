"""A process that keeps what it frees does not ask the system for it again."""

import ctypes
import platform
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from ops.memory import keep_freed_memory
from tools.measure import OwnProcess

CPU = torch.device("cpu")


def big_tensors(in_thread: bool) -> Callable[[], int]:
    """Makes and drops 256 MiB, and says how often the system had to hand out a page for it."""
    import resource

    def page_faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def call() -> int:
        before = page_faults()
        if in_thread:
            thread = threading.Thread(target=torch.ones, args=(2**26,))
            thread.start()
            thread.join()
        else:
            torch.ones(2**26)
        return page_faults() - before

    return call


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is told to the GNU C library")
@pytest.mark.parametrize("in_thread", [False, True])
def test_memory_is_not_asked_for_again(in_thread: bool) -> None:
    faults = {}
    for keep in (True, False):
        make = partial(big_tensors, in_thread)
        with closing(OwnProcess(make, CPU, keep_memory=keep)) as process:
            # What lies between may be in the way of the first ones.
            faults[keep] = min(cast(int, process()) for _ in range(5))
    assert faults[True] < 100 < faults[False]  # pages of up to 2 MiB


def test_it_says_whether_it_does() -> None:
    with closing(OwnProcess(partial(partial, keep_freed_memory), CPU)) as process:
        assert process() is (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_other_systems_say_so(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def load(name: None) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert not keep_freed_memory()


def test_a_refused_option_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(mallopt=lambda option, value: int(option != -1))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert not keep_freed_memory()
