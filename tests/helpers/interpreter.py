"""A fresh interpreter in which tests run functions: `interpreter.run(function, *arguments)`."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch  # noqa: F401 -- loaded before the forks, which then begin at once

from helpers.repository import REPOSITORY

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "tests")}
"""As it was before any test; more threads would not survive a fork."""


class ProgramError(Exception):
    """An exception in the other interpreter, as the text of its traceback."""


class Interpreter:
    """An interpreter with nothing of the library imported.

    Each function runs in a fork of it, and must be silent. Its arguments and its result go through
    JSON, itself as the name of its module and its own.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=folder, env=ENVIRONMENT, text=True,
        )  # fmt: skip

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the function's result.

        Raises:
            ProgramError: where the function raises.
        """
        assert self._process.stdin
        assert self._process.stdout
        request = json.dumps([function.__module__, function.__name__, arguments])
        print(request, file=self._process.stdin, flush=True)
        result, error, printed = json.loads(self._process.stdout.readline())
        if error:
            raise ProgramError(error)
        assert printed == ""
        return result

    def close(self) -> None:
        self._process.communicate()


def _serve() -> None:
    for line in sys.stdin:
        module, name, arguments = json.loads(line)
        function = getattr(importlib.import_module(module), name)
        with tempfile.TemporaryFile("w+") as printed:
            result, error = _run_in_fork(function, arguments, printed.fileno())
            printed.seek(0)
            print(json.dumps([result, error, printed.read()]), flush=True)


def _run_in_fork(function: Callable[..., Any], arguments: list[Any], printed: int) -> Any:
    """Return the result of a function, and the text of its exception."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for stream in (1, 2):
                os.dup2(printed, stream)
            answer = json.dumps([function(*arguments), None])
        except BaseException:
            answer = json.dumps([None, traceback.format_exc()])
        with open(writer, "w") as pipe:
            print(answer, file=pipe)
        sys.stdout.flush()
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.readline()  # not to the end, which workers keep open for a while
    os.waitpid(child, 0)
    return json.loads(answer or '[null, "the process ended before its time"]')


if __name__ == "__main__":
    importlib.import_module("torchvision.transforms.v2")  # which changes filters and environment
    _serve()
