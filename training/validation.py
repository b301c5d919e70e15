"""Validation: loss and accuracy over all clips, each counted once by any number of processes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from data.dataset import ClipDataset
from data.options import first_few
from engine.evaluate import class_counts_by_task
from engine.loading import load_items
from engine.processes import Processes
from engine.progress import show_progress
from training.batches import ClipBatches, Part
from tsn import TSN

__all__ = ["Validation", "clip_losses", "unreadable_error", "validate"]


@dataclass(frozen=True)
class Validation:
    """What a model makes of the clips of a validation set.

    Attributes:
        loss: mean over the clips.
        metrics: percent by name: "verb_top1", "verb_top5", "noun_top1", "noun_top5", "action_top1"
            or, with one task, "label_top1" and "label_top5".
        predictions: task -> (labels, classes with the highest score), int64 (clips,) each.
        unreadable: id of each segment that could not be read -> why.
    """

    loss: float
    metrics: dict[str, float]
    predictions: dict[str, tuple[Tensor, Tensor]]
    unreadable: dict[str, str]


def clip_losses(
    logits: Sequence[Tensor], labels: Mapping[str, Tensor], *, label_smoothing: float = 0.0
) -> Tensor:
    """Return the loss of each clip: its cross-entropy, with two tasks the mean of both.

    Args:
        logits: of each task, in any precision (N, classes).
        labels: of each task, in the same order: int64 (N,), on the same device.
        label_smoothing: share of the target that all classes get alike.

    Returns:
        float32 (N,).
    """
    losses = [
        cross_entropy(scores.float(), target, reduction="none", label_smoothing=label_smoothing)
        for scores, target in zip(logits, labels.values(), strict=True)
    ]
    return torch.stack(losses).mean(0)


@torch.no_grad()
def validate(
    model: TSN,
    clips: ClipDataset,
    processes: Processes,
    *,
    compute: Callable[[Tensor], Sequence[Tensor]],
    batch_size: int,
    workers: int,
    skip_unreadable: bool = False,
) -> Validation:
    """Return what a model makes of clips, the same in all processes.

    Args:
        model: the model, which is put in evaluation mode.
        clips: labelled clips. Process r of W takes clips r, r + W, ...
        processes: the processes of the run.
        compute: inputs, on the CPU -> logits of each task.
        batch_size: clips at a time.
        workers: processes that read clips.
        skip_unreadable: whether clips that cannot be read are left out.

    Raises:
        OSError: if a clip cannot be read and is not to be left out, or if none can be.
    """
    model.eval()
    tasks = list(class_counts_by_task(model.num_class))
    own = processes.share(range(len(clips)))
    parts = [
        Part(0, tuple(own[start : start + batch_size]), batch_size)
        for start in range(0, len(own), batch_size)
    ]
    batches = load_items(
        ClipBatches(clips, model.evaluation_transform()), parts, workers=workers,
        pin_memory=processes.device.type == "cuda",
    )  # fmt: skip
    unreadable: list[tuple[str, str]] = []
    rows: list[list[float]] = []
    for batch in show_progress(
        batches, len(parts), unit="batches of validation", hidden=processes.rank > 0
    ):
        unreadable += batch.unreadable.items()
        if batch.ids:
            logits = [scores.float().cpu() for scores in compute(batch.inputs)]
            columns = [clip_losses(logits, batch.labels)]
            for scores, label in zip(logits, batch.labels.values(), strict=True):
                columns += [label, scores.argmax(1), _rank(scores, label)]
            rows += torch.stack([column.double() for column in columns], 1).tolist()
    reasons = dict(processes.gather(unreadable))
    rows = processes.gather(rows)
    if (reasons and not skip_unreadable) or not rows:
        raise unreadable_error(reasons, skipped=skip_unreadable)

    losses, *columns = torch.tensor(rows, dtype=torch.float64).unbind(1)
    metrics: dict[str, float] = {}
    predictions: dict[str, tuple[Tensor, Tensor]] = {}
    is_right = torch.ones_like(losses, dtype=torch.bool)
    for task, label, chosen, rank in zip(
        tasks, columns[::3], columns[1::3], columns[2::3], strict=True
    ):
        predictions[task] = label.long(), chosen.long()
        is_right &= label == chosen
        metrics[f"{task}_top1"] = _percent(label == chosen)
        metrics[f"{task}_top5"] = _percent(rank < 5)
    if len(tasks) > 1:
        metrics["action_top1"] = _percent(is_right)
    return Validation(losses.mean().item(), metrics, predictions, reasons)


def unreadable_error(reasons: Mapping[str, str], *, skipped: bool) -> OSError:
    """Return an error that lists segments that cannot be read.

    Args:
        reasons: id of each segment -> why.
        skipped: whether such segments are skipped, but nothing is left.
    """
    lines = first_few([f"{name}: {reason}" for name, reason in reasons.items()], 5, "\n  ")
    advice = "nothing is left of a batch" if skipped else "--skip-missing goes on without them"
    return OSError(f"{len(reasons)} segments cannot be read ({advice}):\n  {lines}")


def _rank(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before the label's: int64 (N,)."""
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)


def _percent(hits: Tensor) -> float:
    return 100 * hits.double().mean().item()
