"""What a call takes of the process's memory."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import pytest


def peak_memory(call: Callable[[], object]) -> int:
    """Return the bytes that a call takes at most, its result included.

    Skips the test where the system does not tell.
    """
    try:
        # What was freed goes back to the system first, or using it again would not show.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is the present size
    except (OSError, AttributeError, TypeError):
        pytest.skip("this system does not tell")
    before = _status("VmRSS")
    call()
    return max(_status("VmHWM") - before, 0)


def _status(name: str) -> int:
    """Return the bytes that Linux notes of this process under a name."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
