"""The clips that a command line trains on, and those that a run leaves out."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from checkpoints.files import atomic_write
from data.dataset import ClipDataset, Problem
from data.segments import Segment
from data.video import keep_sources
from engine.processes import Processes
from tools.options import includes_stop
from tsn import TSN

__all__ = ["find_problems", "find_root", "open_clips", "write_problems"]

_PROBLEMS = "skipped.json"

Problems = Mapping[str, Sequence[Problem]]
"""Name of a dataset -> what is wrong with its clips; without those that have no problems."""


def find_root(options: argparse.Namespace, modality: str) -> Path:
    """Return the folder of the frames."""
    root: Path = (options.flow_data if modality == "Flow" else None) or options.data
    return root


def open_clips(
    segments: Sequence[Segment], model: TSN, options: argparse.Namespace, mode: str
) -> ClipDataset:
    """Return the clips as a model sees them, sampled as `mode` says."""
    return ClipDataset(
        segments,
        find_root(options, model.modality),
        modality=model.modality,
        num_segments=model.num_segments,
        new_length=model.new_length,
        mode=mode,
        include_stop=includes_stop(model, options),
        flow_stride=options.flow_stride,
        rate=options.fps,
        short_side=model.preprocessing.scale_size,
    )


def find_problems(
    clips: Mapping[str, ClipDataset], out: Path, processes: Processes, *, resumed: bool
) -> Problems:
    """Return what is wrong with clips, in all processes.

    A run that goes on must have the clips that it began with, whatever has come since: its problems
    are those that `write_problems` wrote.
    """
    keep_sources(sum(len({s.video for s in each.segments}) for each in clips.values()))
    # In all processes: what they open here, their workers have open.
    found: dict[str, Sequence[Problem]] = {name: each.problems() for name, each in clips.items()}
    path = out / _PROBLEMS
    if resumed:
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found = {name: [Problem(**p) for p in each] for name, each in recorded.items()}
    found, *_ = processes.gather([found])  # a file may be missing for one of them alone
    return {name: problems for name, problems in found.items() if problems}


def write_problems(problems: Problems, out: Path) -> None:
    """Write what a run leaves out, if anything."""
    path = out / _PROBLEMS
    if not problems:
        path.unlink(missing_ok=True)
        return
    text = json.dumps({name: [asdict(p) for p in each] for name, each in problems.items()})
    with atomic_write(path) as file:
        file.write(text.encode())
