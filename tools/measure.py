"""Calls measured side by side: their time, their memory, and what the processor can do at most.

A machine is faster at one moment than at another. So calls that are to be compared take turns, and
how they compare is the median over the rounds of what each round says.
"""

import ctypes
import multiprocessing
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import PIL
import torch
import torchvision
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ops.memory import keep_freed_memory

__all__ = [
    "OwnProcess",
    "Timing",
    "count_flops",
    "describe_machine",
    "matmul_peak",
    "peak_memory",
    "take_turns",
    "tf32",
]

_MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
_MATMUL_ROUNDS = 10


@dataclass(frozen=True)
class Timing:
    """How long a call took.

    Attributes:
        seconds: in every round.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the rounds, in seconds."""
        return median(self.seconds)

    def times_as_fast_as(self, other: "Timing") -> float:
        """By which factor this is faster than a call of the same rounds (less than 1: slower)."""
        return median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))


def take_turns(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, device: torch.device
) -> dict[str, Timing]:
    """Time calls against one another.

    Args:
        calls: what to time, by name; each was called before, so that nothing happens for the first
            time.
        rounds: how often each one is called. Every round starts with another one.
        device: where they work; what they leave going on there counts.

    Returns:
        The timings by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            _wait_for(device)
            start = time.perf_counter()
            calls[name]()
            _wait_for(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class OwnProcess:
    """A call that is made in a process of its own, where nothing else has been done.

    What else a process does decides how much memory it has at hand. One that trains two models in
    turns keeps what the larger one needs, so that the smaller one looks cheaper.

    Args:
        make: makes the call, there; it can be pickled.
        device: where the call works.
        keep_memory: whether it begins with `ops.memory.keep_freed_memory`. Otherwise how much of
            its memory is asked for again with every call is the luck of the process.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[], object]],
        device: torch.device,
        *,
        keep_memory: bool = False,
    ) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._process = ProcessPoolExecutor(1, context, _begin_process, (keep_memory,))
        self._arguments = make, device

    def __call__(self) -> object:
        """Make the call, wait until it is done, and return its result, which can be pickled."""
        return self._result_of(_call)

    def peak_memory(self) -> int | None:
        """What `peak_memory` says, there."""
        return cast(int | None, self._result_of(_peak_memory))

    def _result_of(self, function: Callable[..., object]) -> object:
        try:
            with _ctrl_c_later():
                future = self._process.submit(function, *self._arguments)
            return future.result()
        except KeyboardInterrupt:
            # Ctrl-C that was sent to this process alone would wait for what the others are doing.
            for child in multiprocessing.active_children():
                child.terminate()
            raise

    def close(self) -> None:
        """End the process. One that is left open keeps its parent from ending."""
        self._process.shutdown()


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Processes that begin inside do not notice Ctrl-C until they are ready for it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_process(keep_memory: bool) -> None:
    # Ctrl-C ends it, without a word: its parent has one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if keep_memory:
        keep_freed_memory()
    # Begun before, it would have a heap of its own, which later threads would share.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The allocator of Linux keeps blocks of up to 32 MB once it has seen such a one come back. As
    # in any program that has run for a while, whose timings do not depend on what it did first.
    torch.ones(2**23 - 2**13)


def _end_with_parent() -> None:
    """Wait for the parent's end, however it comes, rather than for calls that never will."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


_made: list[Callable[[], object]] = []  # in such a process, the one call that it makes


def _made_once(make: Callable[[], Callable[[], object]]) -> Callable[[], object]:
    if not _made:
        _made.append(make())
    return _made[0]


def _call(make: Callable[[], Callable[[], object]], device: torch.device) -> object:
    result = _made_once(make)()
    _wait_for(device)
    return result


def _peak_memory(make: Callable[[], Callable[[], object]], device: torch.device) -> int | None:
    return peak_memory(_made_once(make), device)


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call takes at most, beyond what is in use before: results and in between.

    Args:
        call: what to measure.
        device: whose memory; of a CPU, what Linux holds for the process.

    Returns:
        Bytes, or None where the system does not tell.
    """
    if isinstance(call, OwnProcess):
        return call.peak_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with suppress(OSError, AttributeError):
        # What was freed goes back to the system first, or using it again would not show.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is the present one
        before = _status("VmRSS")
        call()
        return max(_status("VmHWM") - before, 0)
    return None


def _status(name: str) -> int:
    """Bytes that Linux notes of this process under a name."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of a call's convolutions and matrix products, by shape.

    A multiplication and the addition that follows it are two.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def matmul_peak(precision: str, device: torch.device) -> float:
    """Operations per second of a large square matrix product, the most that was seen.

    It is computed as such and as a convolution, since different libraries do: on CPUs by AMD, the
    one for matrices (MKL) reaches half of what the one for convolutions (oneDNN) does.

    Args:
        precision: "float32", "tf32" (on CUDA) or the name of another dtype.
        device: where.
    """
    dtype = getattr(torch, "float32" if precision == "tf32" else precision)
    side = _MATMUL_SIDE.get(device.type, 2048)
    matrix = torch.randn(side, side, device=device, dtype=dtype)

    # Rows are the pixels of one image, columns their channels.
    image = matrix.view(1, -1, 32, side).permute(0, 3, 1, 2)
    weight = matrix.view(side, side, 1, 1)
    calls = {
        "matrices": lambda: torch.mm(matrix, matrix),
        "convolution": lambda: functional.conv2d(image, weight),
    }
    with torch.inference_mode(), tf32(precision == "tf32"):
        for call in calls.values():
            call()  # type: ignore[no-untyped-call]  # a lambda
        timings = take_turns(calls, rounds=_MATMUL_ROUNDS, device=device)
    return 2 * side**3 / min(min(timing.seconds) for timing in timings.values())


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether CUDA may round float32 to 19 bits in convolutions and matrix products, inside.

    Args:
        allowed: PyTorch's own default is true for convolutions and false for matrix products.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def describe_machine(device: torch.device) -> dict[str, str]:
    """Processor, cores and versions: what a figure is worth nothing without."""
    machine = {
        "CPU": f"{_processor()} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} "
        f"cores, PyTorch uses {torch.get_num_threads()}",
    }
    if device.type == "cuda":
        properties: Any = torch.cuda.get_device_properties(device)
        machine["GPU"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        machine["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    simd = " (Pillow-SIMD)" if ".post" in PIL.__version__ else ""
    return machine | {
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "torchvision": torchvision.__version__,
        "NumPy": np.__version__,
        "Pillow": f"{PIL.__version__}{simd}",
    }


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return cast(str, found[1])
    return platform.processor() or platform.machine()
