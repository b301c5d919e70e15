"""Memory that a call takes."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def peak_memory(call: Callable[[], object]) -> int | None:
    """Bytes that the process takes at most during a call, beyond those before it; Linux only."""

    def status(name: str) -> int:
        _, _, rest = Path("/proc/self/status").read_text().partition(f"{name}:")
        return int(rest.split()[0]) * 1024

    with suppress(OSError, AttributeError):
        # What was freed goes back to the system first, or using it again would not show.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the largest size so far
        before = status("VmRSS")
        call()
        return max(status("VmHWM") - before, 0)
    return None
