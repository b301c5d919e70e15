"""The training loop, of one process or of those that torchrun started.

After every step the state of the run is complete in memory, and every few minutes in a file. What a
step draws depends on the seed, the step and the process alone: an interrupted run of one process
goes on bit for bit as it would have gone.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data.dataset import ClipDataset
from engine.interruption import note_interrupt
from engine.loading import load_items
from engine.processes import Processes
from engine.progress import show_progress
from training.batches import ClipBatches, plan_epoch, steps_per_epoch
from training.history import TensorBoardLog, describe_epoch, write_epochs
from training.learner import Learner, prepare_model
from training.process_group import join_group
from training.recipes import Recipe
from training.state import LAST, Progress, SavedRun, save_best, save_run
from training.validation import unreadable_error, validate
from tsn import TSN

__all__ = ["train"]

_logger = logging.getLogger(__name__)


def train(
    model: TSN,
    recipe: Recipe,
    training: ClipDataset,
    validation: ClipDataset | None,
    folder: Path,
    processes: Processes,
    *,
    request: Mapping[str, Any] | None = None,
    saved: SavedRun | None = None,
    workers: int = 2,
    minutes: float = 10.0,
    replace_unreadable: bool = False,
    tensorboard: bool = False,
) -> Progress:
    """Train a model, and write `last.pth.tar`, `best.pth.tar` and `epochs.csv` into a folder.

    Args:
        model: that of `saved`, if a run goes on; it is moved to the device of `processes`.
        recipe: how to train.
        training: labelled clips for this model, sampled as the recipe says.
        validation: labelled clips for this model, or None: then no epoch is the best.
        folder: of the run; it is made.
        processes: the processes of this run.
        request: everything that the run depends on, as JSON has it, which `state.read_run` compares
            before a run goes on.
        saved: the run to go on with.
        workers: processes that read clips, for each process of the run.
        minutes: between checkpoints, at most; there is one after the first step and each epoch too.
        replace_unreadable: whether other clips take the places of those that cannot be read, and
            validation leaves them out.
        tensorboard: whether to write events for TensorBoard into the folder.

    Returns:
        How the run went; the same in all processes.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM: the step that is being computed ends, or the
            batch of validation, and the checkpoint is written.
        ValueError: if a loss is not finite (the checkpoint of before is as it was), if the folder
            holds another run, or options contradict each other.
        OSError: if a clip cannot be read, a file cannot be written, or another process has ended.
        RuntimeError: if a worker ended before its time.
    """
    needed = processes.count * recipe.accumulate
    if recipe.batch_size < needed:
        raise ValueError(
            f"batch_size must be at least {needed}, a clip for each of {processes.count} processes "
            f"and {recipe.accumulate} parts, got {recipe.batch_size}"
        )
    if saved is None and (folder / LAST).exists():
        raise ValueError(f"folder must hold no run but the one that is saved, got {folder}")
    steps = steps_per_epoch(len(training), recipe)
    progress = saved.progress if saved else Progress()
    if processes.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob("*.partial"):  # what a killed run was writing
            partial.unlink()
    log = TensorBoardLog(
        folder / "tensorboard" if tensorboard and processes.rank == 0 else None,
        progress.epoch * steps + progress.step + 1,
    )
    with closing(log), join_group(processes), note_interrupt() as interrupted:
        learner = Learner(model, recipe, processes, steps)
        if saved:
            learner.load_state_dict(saved.learner)
        run = _Run(
            learner, recipe, training, validation, folder, processes, progress, steps,
            json.loads(json.dumps(request or {})), workers, 60 * minutes, replace_unreadable, log,
            interrupted,
        )  # fmt: skip
        while progress.epoch < recipe.epochs:
            run.train_epoch()
            run.end_epoch()
    return progress


@dataclass
class _Run:
    """What the epochs of a run share; see `train`."""

    learner: Learner
    recipe: Recipe
    training: ClipDataset
    validation: ClipDataset | None
    folder: Path
    processes: Processes
    progress: Progress
    steps: int
    request: Mapping[str, Any]
    workers: int
    seconds_between_checkpoints: float
    replace_unreadable: bool
    log: TensorBoardLog
    interrupted: Callable[[], bool]

    def __post_init__(self) -> None:
        self.is_first = self.processes.rank == 0
        self.unreadable: set[str] = set()
        self.note = ""  # of the last step

    def train_epoch(self) -> None:
        """Learn from the clips of an epoch that the run has not seen yet."""
        progress, model = self.progress, self.learner.model
        began = time.monotonic()
        # A run writes its first checkpoint soon: no other starts in its folder, and no space left
        # is noticed now.
        saved = began if progress.epoch or progress.step else -math.inf
        before = progress.seconds
        parts = plan_epoch(
            len(self.training), self.recipe, progress.epoch, first_step=progress.step,
            rank=self.processes.rank, processes=self.processes.count,
        )  # fmt: skip
        batches = load_items(
            ClipBatches(
                self.training, model.training_transform(flip=self.recipe.flip),
                seed=self.recipe.seed, replace=self.replace_unreadable,
            ),
            parts, workers=self.workers, pin_memory=self.processes.device.type == "cuda",
        )  # fmt: skip
        prepare_model(model, self.recipe)
        for batch in show_progress(
            batches, self.steps, done=progress.step,
            unit=f"steps of epoch {progress.epoch + 1} of {self.recipe.epochs}",
            amount=lambda batch: batch.part.is_last, note=lambda: self.note,
            hidden=not self.is_first,
        ):  # fmt: skip
            self.report_unreadable(batch.unreadable)
            if not batch.ids:
                raise unreadable_error(batch.unreadable, skipped=True)
            step = progress.epoch * self.steps + progress.step
            result = self.learner.learn(batch, step, stop=self.interrupted())
            if result is None:
                continue
            (loss, stop), lr = result, self.learner.lr(step)
            progress.step += 1
            progress.loss_sum += loss
            progress.seconds = before + time.monotonic() - began
            self.note = f"loss {loss:.4g}, lr {lr:.3g}"
            self.log.log_step(step + 1, loss, lr)
            if stop or time.monotonic() - saved >= self.seconds_between_checkpoints:
                self.save()
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt

    def end_epoch(self) -> None:
        """Validate, and write what came of the epoch."""
        progress, began = self.progress, time.monotonic()
        row: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "lr": self.learner.lr((progress.epoch + 1) * self.steps - 1),
            "training_loss": progress.loss_sum / self.steps,
        }
        is_best = False
        if self.validation is not None:
            self.learner.share_statistics()
            try:
                result = validate(
                    self.learner.model, self.validation, self.processes,
                    compute=self.compute, workers=self.workers,
                    batch_size=-(-self.recipe.batch_size // self.processes.count),
                    skip_unreadable=self.replace_unreadable,
                )  # fmt: skip
            except KeyboardInterrupt:
                self.save()  # a run that goes on validates again
                raise
            self.report_unreadable(result.unreadable)
            progress.predictions = result.predictions
            row |= {"validation_loss": result.loss, **result.metrics}
            accuracies = [_accuracy(each) for each in (*progress.rows, row)]
            is_best = accuracies[-1] > max(accuracies[:-1], default=-1.0)
        row["seconds"] = progress.seconds + time.monotonic() - began
        progress.rows.append(row)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum = progress.seconds = 0.0
        if is_best:
            progress.best_epoch = progress.epoch
            progress.best_predictions = progress.predictions
        if self.is_first:
            if is_best:
                save_best(self.folder, self.learner.model, self.recipe, progress.epoch)
            write_epochs(self.folder / "epochs.csv", progress.rows)
            self.log.log_epoch(row, progress.epoch * self.steps)
            self.save()  # last: a run that dies before validates again, and writes the others anew
            print(describe_epoch(progress.rows, self.recipe.epochs, best=is_best), flush=True)

    def compute(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return logits for validation, unless the run is to stop."""
        if self.interrupted():
            raise KeyboardInterrupt
        return self.learner.compute(inputs)

    def save(self) -> None:
        if self.is_first:
            save_run(
                self.folder, self.learner.model, self.recipe, self.progress,
                learner=self.learner.state_dict(), request=self.request,
            )  # fmt: skip

    def report_unreadable(self, reasons: Mapping[str, str]) -> None:
        """Log segments that could not be read, each once, or refuse to go on without them."""
        new = {name: reason for name, reason in reasons.items() if name not in self.unreadable}
        if new and not self.replace_unreadable:
            raise unreadable_error(new, skipped=False)
        for name, reason in new.items():
            _logger.warning("segment %s cannot be read: %s", name, reason)
        self.unreadable |= new.keys()


def _accuracy(row: Mapping[str, Any]) -> float:
    """Return the accuracy that the best epoch has most of: of actions, or of the one task."""
    return float(row["action_top1"] if "action_top1" in row else row["label_top1"])
