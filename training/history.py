"""What is seen of a run: a line and a table of its epochs, and TensorBoard."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from checkpoints.files import atomic_write

__all__ = ["TensorBoardLog", "describe_epoch", "write_epochs"]

_TYPICAL_EPOCHS = 5  # the last ones, whose time says how long others take
_SECONDS_BETWEEN_WRITES = 10  # of TensorBoard's events: what a killed process loses


def write_epochs(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of all epochs so far, a CSV file with a header, at once and whole.

    Since the file is written anew each time, a resumed run has each epoch once.

    Args:
        path: destination; an existing file is replaced.
        rows: the epochs, in order. Their keys are the columns; what is None or absent is empty.

    Raises:
        OSError: if the file cannot be written.
    """
    text = io.StringIO(newline="")
    columns = dict.fromkeys(chain.from_iterable(rows))
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def describe_epoch(rows: Sequence[Mapping[str, Any]], epochs: int, *, best: bool) -> str:
    """Return a line about the last of the epochs so far.

    Example:
        >>> row = {"epoch": 3, "lr": 0.01, "training_loss": 1.2343, "validation_loss": None}
        >>> describe_epoch([row | {"seconds": 35.2}], 25, best=False)
        'epoch 3 of 25: training loss 1.234, lr 0.01, 35 s, about 13 min left'

    Args:
        rows: the epochs so far, at least one. The median time of the last few is what each of those
            to come is taken to need: a first one that compiles does not count for all.
        epochs: how many there will be.
        best: whether no epoch before had a higher accuracy.
    """
    row = rows[-1]
    losses = [
        f"{name} loss {row[f'{name}_loss']:#.4g}"
        for name in ("training", "validation")
        if row.get(f"{name}_loss") is not None
    ]
    accuracies = [
        f"{name.removesuffix('_top1')} {value:.1f} %"
        for name, value in row.items()
        if name.endswith("_top1") and value is not None
    ]
    if best and accuracies:
        accuracies[-1] += " (best)"
    parts = [*losses, *accuracies, f"lr {row['lr']:.3g}", _format_duration(row["seconds"])]
    if left := epochs - row["epoch"]:
        typical = median(row["seconds"] for row in rows[-_TYPICAL_EPOCHS:])
        parts.append(f"about {_format_duration(left * typical)} left")
    return f"epoch {row['epoch']} of {epochs}: {', '.join(parts)}"


def _format_duration(seconds: float) -> str:
    """Return seconds, minutes or hours, such as "35 s", "12 min" or "3 h 20 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours > 1 else f"{60 * hours + minutes} min"


class TensorBoardLog:
    """Losses, learning rates and accuracies of a run, for the program TensorBoard.

    Args:
        folder: where files of events are and come; None: nothing is logged, as in all processes
            but one.
        first_step: the first that will be logged. Of a run that is resumed, TensorBoard does not
            show what was logged from there on: these steps were lost, and are done again.

    Raises:
        ModuleNotFoundError: if the package tensorboard is not installed.
    """

    def __init__(self, folder: Path | None, first_step: int = 1) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the log for TensorBoard needs the package tensorboard: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(
            folder, purge_step=first_step, flush_secs=_SECONDS_BETWEEN_WRITES
        )

    def log_step(self, step: int, loss: float, lr: float) -> None:
        """Log a step of the optimiser.

        Args:
            step: number of steps done in the whole run, this one among them.
            loss: of the step's batch.
            lr: learning rate of the step.
        """
        self._log("step", {"loss": loss, "lr": lr}, step)

    def log_epoch(self, row: Mapping[str, Any], step: int) -> None:
        """Log what a row of an epoch holds, at the step that ended it."""
        self._log("epoch", row, step)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._writer:
            self._writer.close()

    def _log(self, group: str, values: Mapping[str, float | None], step: int) -> None:
        if self._writer:
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(f"{group}/{name}", value, step)
