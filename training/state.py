"""State of a training run, in checkpoints that any program loads and from which the run goes on.

Nothing random is in it: all draws depend on the seed and on how far the run is (`training.batches`,
`training.loop`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from checkpoints.checkpoint import read_checkpoint
from engine.request import describe_differences
from model_loader import build_from_checkpoint, save_checkpoint
from training.recipes import Recipe
from tsn import TSN

__all__ = ["BEST", "LAST", "Progress", "SavedRun", "read_run", "save_best", "save_run"]

BEST, LAST = "best.pth.tar", "last.pth.tar"


@dataclass
class Progress:
    """How far a run is, and what came of it so far.

    Attributes:
        epoch: number of epochs that are complete.
        step: number of batches of the next one that are done.
        loss_sum: sum of their losses.
        seconds: time that they took.
        rows: a dictionary for each complete epoch, see `training.history`.
        best_epoch: the epoch, from 1, with the best accuracy; 0 where there is none yet.
        predictions: of the last epoch's validation: task -> labels and predicted classes, int64
            (clips,) each.
        best_predictions: of the best epoch's.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    predictions: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    best_predictions: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedRun:
    """What a run goes on from.

    Attributes:
        model: on the CPU, with its weights.
        progress: how far it is.
        learner: state of what makes it learn (`training.learner.Learner`).
    """

    model: TSN
    progress: Progress
    learner: dict[str, Any]


def read_run(folder: Path, request: Mapping[str, Any], *, resume: bool) -> SavedRun | None:
    """Return the run that a folder holds, or None if it holds none.

    Args:
        folder: of the run; it need not exist.
        request: everything that the run depends on, as JSON has it.
        resume: whether to go on with a run.

    Raises:
        ValueError: if there is a run and `resume` is false, if the run is of another request, or if
            the file is no checkpoint of a run.
    """
    path = folder / LAST
    if not path.exists():
        return None
    if not resume:
        raise ValueError(f"{folder} holds a run: --resume goes on with it; or give another --out")
    checkpoint = read_checkpoint(path)
    try:
        training = checkpoint.contents["training"]
        saved_request, progress = dict(training["request"]), Progress(**training["progress"])
        learner = {"optimizer": checkpoint.contents["optimizer"], **training["learner"]}
    except (KeyError, TypeError, ValueError) as error:  # of another program, or another version
        raise ValueError(
            f"{path} is no checkpoint of a run that can go on: give another --out"
        ) from error
    differences = describe_differences(saved_request, json.loads(json.dumps(request)))
    if differences:
        raise ValueError(
            f"{folder} holds a run of another request: {differences}. Give the options that it "
            f"was started with, or another --out"
        )
    return SavedRun(build_from_checkpoint(checkpoint, path), progress, learner)


def save_run(
    folder: Path,
    model: TSN,
    recipe: Recipe,
    progress: Progress,
    *,
    learner: Mapping[str, Any],
    request: Mapping[str, Any],
) -> None:
    """Write what a run goes on from, at once and whole.

    Raises:
        OSError: if it cannot be written; the file of before is as it was.
    """
    others = {name: state for name, state in learner.items() if name != "optimizer"}
    save_checkpoint(
        model,
        folder / LAST,
        epoch=progress.epoch,
        args=asdict(recipe),
        optimizer=learner["optimizer"],
        training={"request": request, "progress": vars(progress), "learner": others},
    )


def save_best(folder: Path, model: TSN, recipe: Recipe, epoch: int) -> None:
    """Write the model alone."""
    save_checkpoint(model, folder / BEST, epoch=epoch, args=asdict(recipe))
