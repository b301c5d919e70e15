"""The memory of a process, which the system is slow to hand out.

A network on a CPU takes and frees the same large tensors for every clip. The C library of Linux
gives freed memory back to the system, which has to find and clear each page of 4 KiB when it is
asked for again: tens of thousands for a clip on a ResNet-50, hundreds of thousands for a batch.
"""

import ctypes

__all__ = ["keep_freed_memory"]

# Options of `mallopt`, from the GNU C library's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees, and use it again.

    It holds for everything in the process, and until that ends, which stays as large as it was at
    its largest. So it is for programs that mostly run networks, to be called when they begin:
    threads that have memory of their own by then keep it. Later ones share that of the main thread,
    and wait for one another where they take much of it at once.

    Returns:
        Whether it does from now on: True with the GNU C library, which most of Linux has; False
        elsewhere, where nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; TypeError on Windows
        return False
    # Nothing by mmap, which is given back when it is freed; nothing back from the heap; one heap,
    # since those of threads hold no more than 64 MiB.
    options = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_ARENA_MAX: 1}
    return all(mallopt(option, value) == 1 for option, value in options.items())
