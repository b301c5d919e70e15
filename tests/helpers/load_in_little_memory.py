"""Loads files in a process with little memory to spare, and prints what came of each, as JSON.

PYTHONPATH=. python tests/helpers/load_in_little_memory.py BYTES FILE...
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from model_loader import load_checkpoint
from tools.print_checkpoint_details import describe


def status(name: str) -> int:
    """Bytes that the kernel notes of this process: VmSize, its size; VmHWM, its largest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main(memory: int, paths: list[str]) -> None:
    limit = status("VmSize") + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start = status("VmHWM")
    for path in paths:
        started = time.monotonic()
        outcome: dict[str, Any] = {"error": None, "message": "", "described": None}
        try:
            load_checkpoint(path)
        except Exception as error:
            outcome.update(error=type(error).__name__, message=str(error))
        try:
            json.dumps(describe(path))
        except Exception as error:
            outcome["described"] = type(error).__name__
        outcome["growth"] = status("VmHWM") - start
        outcome["seconds"] = round(time.monotonic() - started, 2)
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
