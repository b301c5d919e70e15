"""A process that keeps what it frees does not ask the system for it again."""

import ctypes
import multiprocessing
import platform
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from ops.memory import keep_freed_memory


def own_process(initializer: Callable[[], object] | None = None) -> ProcessPoolExecutor:
    """A process in which nothing else was done."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer)


def page_faults(elements: int, in_thread: bool) -> int:
    """How often the system hands out a page for a tensor that is made and dropped."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    if in_thread:
        thread = threading.Thread(target=torch.ones, args=(elements,))
        thread.start()
        thread.join()
    else:
        torch.ones(elements)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is told to the GNU C library")
@pytest.mark.parametrize("in_thread", [False, True])
def test_memory_is_not_asked_for_again(in_thread: bool) -> None:
    faults = {}
    for initializer in (keep_freed_memory, None):
        with own_process(initializer) as process:
            # The first leaves room for the others, wherever small things lie between.
            sizes = [2**27, *5 * [2**26]]
            faults[initializer] = min(process.map(page_faults, sizes, 6 * [in_thread]))
    assert faults[keep_freed_memory] < 100 < faults[None]  # pages of up to 2 MiB


def test_it_says_whether_it_does() -> None:
    with own_process() as process:
        kept = process.submit(keep_freed_memory).result()
    assert kept is (platform.libc_ver()[0] == "glibc")


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
