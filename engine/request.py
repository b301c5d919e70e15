"""Requests: everything that the results of a run depend on, recorded in its output folder."""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.processes import Processes
from tsn import TSN

__all__ = ["describe_differences", "describe_run", "file_sha256"]


def describe_run(
    model: TSN, checkpoint: str | os.PathLike[str], processes: Processes
) -> dict[str, Any]:
    """Return what results depend on in the model, and in what it runs on.

    The number of processes is not part of it, nor are workers: results do not depend on them.

    Args:
        model: as it runs, with its precision.
        checkpoint: the file that it was loaded from.
        processes: where it runs. On the CPU the number of threads matters, in the last digits.

    Returns:
        Values that JSON has.
    """
    device = processes.device.type
    return {
        "checkpoint": Path(checkpoint).name,
        "checkpoint_sha256": file_sha256(checkpoint),
        "num_segments": model.num_segments,
        "modality": model.modality,
        "preprocessing": asdict(model.preprocessing),
        "precision": str(next(model.parameters()).dtype).removeprefix("torch."),
        "optimized": model.inference_only,
        "device": device,
        "threads": processes.threads if device == "cpu" else None,
        "version": _library_version(),
    }


def describe_differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return what differs between two requests, both as JSON has them; "" if nothing does."""
    return "; ".join(
        f"{name} was {recorded.get(name)!r}, now {wanted.get(name)!r}"
        for name in sorted({*recorded, *wanted})
        if recorded.get(name) != wanted.get(name)
    )


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _library_version() -> str:
    """Return the version of this clone, or of the installed package."""
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version("epic-action-models")
