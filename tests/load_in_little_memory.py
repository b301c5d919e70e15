"""Loads files in a process with little memory to spare, and prints what came of each, as JSON.

PYTHONPATH=. python tests/load_in_little_memory.py BYTES FILE...
"""

import json
import resource
import sys
import time

from model_loader import load_checkpoint


def main(memory: int, paths: list[str]) -> None:
    with open("/proc/self/status") as status:
        size = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths:
        started = time.monotonic()
        try:
            load_checkpoint(path)
            outcome = {"error": None, "message": ""}
        except Exception as error:
            outcome = {"error": type(error).__name__, "message": str(error)}
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
        seconds = round(time.monotonic() - started, 2)
        print(json.dumps({**outcome, "seconds": seconds, "growth": growth * 1024}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
