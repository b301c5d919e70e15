"""Reports of evaluations: the metrics of models one below the other, as text and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from typing import Any

import numpy as np

from weights.published import Accuracies

__all__ = ["Evaluation", "format_json", "format_report"]

_TASKS = ("verb", "noun", "action", "label")
_PUBLISHED = "published"

_Table = dict[str, dict[str, list[float]]]
"""Heading of some rows -> task -> [top-1, top-5] or [top-1], in percent."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one model, or of several fused, over the labelled segments of a dataset.

    Attributes:
        name: what was evaluated, such as "TSM resnet50 RGB".
        dataset: what it was evaluated on, such as "EPIC-KITCHENS-100, validation".
        metrics: as returned by `epic.metrics`: by `epic_100_metrics` (percent), `epic_55_metrics`
            or `accuracy` (fractions).
        num_segments: segments evaluated.
        num_skipped: segments left out because videos or frames of theirs are missing.
        num_failed: segments whose frames could not be read.
        published: published top-1 accuracies of the same weights, in percent.
        note: what a reader must know about the segments or the published accuracies.
    """

    name: str
    dataset: str
    metrics: Mapping[str, Any]
    num_segments: int
    num_skipped: int = 0
    num_failed: int = 0
    published: Accuracies | None = None
    note: str = ""


def format_report(evaluations: Sequence[Evaluation]) -> str:
    """Return tables of the metrics, in percent with two decimals; "-" is what there is not.

    Evaluations that follow one another and have the same dataset and note share a table.

    Args:
        evaluations: what to show, from top to bottom.

    Returns:
        Lines of text, ending with a line break.

    Raises:
        ValueError: if metrics are none of those that `Evaluation` names.
    """
    lines: list[str] = []
    for (dataset, note), group in groupby(evaluations, lambda e: (e.dataset, e.note)):
        lines += [dataset, *filter(None, [note]), "", *_format_group(list(group)), ""]
    return "\n".join(lines)


def format_json(evaluations: Sequence[Evaluation]) -> str:
    """Return evaluations as JSON: a list of objects with the attributes of `Evaluation`.

    Metrics are unrounded and keep their unit, which `metrics_unit` names: "percent" or
    "fraction". A metric that is not a number, such as the mean over no class, is null.
    """
    return json.dumps(
        [
            asdict(evaluation)
            | {"metrics": _plain(evaluation.metrics), "metrics_unit": _unit(evaluation.metrics)}
            for evaluation in evaluations
        ],
        indent=2,
    )


def _unit(metrics: Mapping[str, Any]) -> str:
    """Return the unit of metrics: "percent" in those of EPIC-KITCHENS-100, else "fraction"."""
    return "percent" if any("_accuracy_at_" in key for key in metrics) else "fraction"


def _plain(value: Any) -> Any:
    """Return nested mappings and sequences of numbers as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if np.ndim(value):
        return [_plain(item) for item in value]
    return float(value) if math.isfinite(value) else None


def _percentages(metrics: Mapping[str, Any]) -> _Table:
    """Return metrics as the table shows them."""
    table: _Table = {}
    if _unit(metrics) == "percent":
        for subset, task, k in product(("all", "unseen", "tail"), _TASKS, (1, 5)):
            key = f"{subset}_{task}_accuracy_at_{k}"
            if key in metrics:
                table.setdefault(subset, {}).setdefault(task, []).append(float(metrics[key]))
        return table
    if "accuracy" in metrics:  # EPIC-KITCHENS-55
        parts = {
            "accuracy": metrics["accuracy"],
            "mean precision of many-shot classes": metrics["precision"],
            "mean recall of many-shot classes": metrics["recall"],
        }
    else:
        parts = {"accuracy": metrics}
    for heading, part in parts.items():
        tasks = [task for task in _TASKS if task in part]
        table[heading] = {
            task: [100 * float(x) for x in np.atleast_1d(part[task])] for task in tasks
        }
    if not any(table.values()):
        raise ValueError(f"metrics must be those of epic.metrics, got the keys {list(metrics)}")
    return table


def _format_group(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the lines of the two tables of evaluations on one dataset: segments, and metrics."""
    tables = [_percentages(evaluation.metrics) for evaluation in evaluations]
    parts = [part for table in tables for part in table.values()]
    tasks = [task for task in _TASKS if any(task in part for part in parts)]
    margin = max(len(f"    {_PUBLISHED}"), *(len(f"  {e.name}") for e in evaluations))

    lines = [" " * margin + "  segments   skipped    failed"]
    for e in evaluations:
        counts = (e.num_segments, e.num_skipped, e.num_failed)
        lines.append(f"{e.name:<{margin}}" + "".join(f"{count:>10,}" for count in counts))
    lines += ["", " " * margin + "".join(f"    {task:^14}" for task in tasks)]
    lines.append(f"{'percent':<{margin}}" + "     top-1   top-5" * len(tasks))

    def add_row(label: str, accuracies: Mapping[str, Sequence[float]]) -> None:
        cells = (_format_pair(accuracies.get(task, ())) for task in tasks)
        lines.append(f"{label:<{margin}}" + "".join(cells))

    for heading in dict.fromkeys(heading for table in tables for heading in table):
        lines.append(heading)
        for e, table in zip(evaluations, tables, strict=True):
            if heading not in table:
                continue
            add_row(f"  {e.name}", table[heading])
            if e.published and heading in ("all", "accuracy"):
                published = asdict(e.published).items()
                add_row(f"    {_PUBLISHED}", {task: [x] for task, x in published if x is not None})
    return [line.rstrip() for line in lines]


def _format_pair(values: Sequence[float]) -> str:
    """Return the columns top-1 and top-5 of one task."""
    cells = [f"{value:.2f}" if math.isfinite(value) else "-" for value in values] + ["-", "-"]
    return f"  {cells[0]:>8}{cells[1]:>8}"
