"""Programs in processes of their own."""

import subprocess
from pathlib import Path

from helpers.interpreter import ENVIRONMENT


def run(folder: Path, *command: str | Path) -> str:
    """What a program prints, which has to succeed without a warning."""
    result = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    return result.stdout
