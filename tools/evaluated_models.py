"""The models that a command line asks to evaluate, with their clips."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.dataset import ClipDataset
from data.segments import Segment
from engine.output_folder import OutputFolder
from engine.processes import Processes
from engine.request import describe_run, file_sha256
from tools.options import find_checkpoint, includes_stop, load_model
from tsn import TSN

__all__ = ["EvaluatedModel", "name_checkpoints", "open_model"]


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate, its clips, and where its logits go."""

    name: str
    checkpoint: Path
    model: TSN
    clips: ClipDataset
    folder: OutputFolder


def name_checkpoints(checkpoints: Sequence[str]) -> dict[str, Path]:
    """Return the checkpoints by the names of their folders in OUT.

    Raises:
        FileNotFoundError: if a checkpoint is no file, and of no published weights.
        ValueError: if two have one name.
    """
    named: dict[str, Path] = {}
    for path in map(find_checkpoint, checkpoints):
        name = re.sub(r"(\.pth)?\.\w+$", "", path.name)
        if name in named or name == "fusion":  # another folder's name
            name = f"{path.resolve().parent.name}-{name}"
        if name in named or path in named.values():
            raise ValueError(f"checkpoints must have names that differ, got {path} twice")
        named[name] = path
    return named


def open_model(
    name: str,
    checkpoint: Path,
    segments: Sequence[Segment],
    options: argparse.Namespace,
    processes: Processes,
) -> EvaluatedModel:
    """Load a model, and make its dataset and its folder in OUT.

    Raises:
        ValueError: if the model or the options cannot be, or the folder is of another request.
        OSError: if a file cannot be read, or the folder cannot be written.
    """
    model = load_model(checkpoint, options, optimize=options.optimize)
    if not model.before_softmax:  # before another model runs for hours
        raise ValueError(
            f"{checkpoint}: model must give logits: it was built with before_softmax=False"
        )
    root = (options.flow_data if model.modality == "Flow" else None) or options.data
    clips = ClipDataset(
        segments,
        root,
        modality=model.modality,
        num_segments=model.num_segments,
        new_length=model.new_length,
        mode="twice" if options.twice_sample else "test",
        include_stop=includes_stop(model, options),
        flow_stride=options.flow_stride,
        rate=options.fps,
        short_side=model.preprocessing.scale_size,
    )
    request = {
        **describe_run(model, checkpoint, processes),
        "annotations": [
            file_sha256(path) for path in (options.annotations, *(options.epic_55_segments or ()))
        ],
        "data": str(root.resolve()),
        "sampling": clips.mode,
        "include_stop": clips.include_stop,
        "flow_stride": clips.flow_stride,
        "rate": clips.rate,
        "crops": options.crops,
        "batch_size": options.batch_size,
    }
    return EvaluatedModel(name, checkpoint, model, clips, OutputFolder(options.out / name, request))
