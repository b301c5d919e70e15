"""What belongs to the process, so that importing, building and loading must leave it alone.

before = snapshot()
...
assert not changes(before)
"""

import gc
import locale
import logging
import multiprocessing
import os
import random
import sys
import threading
import warnings
from collections.abc import Mapping

import numpy as np
import torch


def snapshot() -> dict[str, object]:
    """Names and values of the process-wide state."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is the point
    return {
        "torch's random generator": torch.get_rng_state().numpy().tobytes(),
        "NumPy's random generator": repr(numpy_state["state"]["key"].tobytes()),
        "NumPy's place in it": numpy_state["state"]["pos"],
        "Python's random generator": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads of torch": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cuDNN": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "torch's allow-list": set(map(repr, torch.serialization.get_safe_globals())),
        "warning filters": list(warnings.filters),
        "environment": dict(os.environ),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.disabled),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "sys.path": list(sys.path),
        "working directory": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook, __import__),
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
        "recursion limit": sys.getrecursionlimit(),
    }


def changes(before: Mapping[str, object]) -> list[str]:
    """Names of what is no longer as it was."""
    return [name for name, value in snapshot().items() if value != before[name]]
