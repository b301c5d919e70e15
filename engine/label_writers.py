"""Labels on their way out: rows as they come, or ActivityNet's JSON at the end."""

import csv
import json
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from checkpoints.files import atomic_write
from predictor import Label, Prediction, TimedPrediction

__all__ = ["ActivityNetWriter", "LabelWriter", "MergedRows", "RowWriter", "TablePrinter"]

_FIELDS = {"verb": "verbs", "noun": "nouns", "action": "actions", "class": "classes"}
"""Column -> the field of a `Prediction`."""


class LabelWriter(ABC):
    """What takes labels as they come."""

    @abstractmethod
    def add(self, row: TimedPrediction) -> None:
        """Take the next row, which begins where the one before ended."""

    def finish(self) -> None:  # noqa: B027 - many have nothing to do
        """Write what is known at the end alone."""


class RowWriter(LabelWriter):
    """A file with the best classes of each row, written at once, so that others can follow.

    It is made when the first row comes.

    Args:
        path: ends in `.csv`, for a table with a header, or `.jsonl`, for a JSON object a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def add(self, row: TimedPrediction) -> None:
        """Write a row.

        Raises:
            OSError: if the file exists when the first row comes, or it cannot be written.
        """
        fields = _to_fields(row, _best_labels(row.prediction))
        is_first = self._file is None
        if self._file is None:
            self._file = open(self._path, "x", encoding="utf-8", newline="")  # noqa: SIM115 - stays
        if self._path.suffix.lower() == ".csv":
            writer = csv.DictWriter(self._file, list(fields), lineterminator="\n")
            if is_first:
                writer.writeheader()
            writer.writerow(fields)
        else:
            self._file.write(json.dumps(fields, ensure_ascii=False) + "\n")
        self._file.flush()

    def finish(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


class TablePrinter(LabelWriter):
    """A line on stdout for each row, for people."""

    def add(self, row: TimedPrediction) -> None:
        """Print a row, its action first."""
        labels = list(_best_labels(row.prediction).values())
        texts = [f"{label.name} {label.probability:.1%}" for label in labels[::-1]]
        print(f"{row.start:9.2f} {row.stop:9.2f} s  {', '.join(texts)}", flush=True)


class ActivityNetWriter(LabelWriter):
    """Results as ActivityNet's programs read them, a segment for each row, whole or not at all.

    Args:
        path: the file.
        video: name of the video.
    """

    def __init__(self, path: Path, video: str) -> None:
        self._path, self._video = path, video
        self._segments: list[dict[str, Any]] = []

    def add(self, row: TimedPrediction) -> None:
        """Take the next segment, with its best action."""
        best = list(_best_labels(row.prediction).values())[-1]
        fields = _to_fields(row, {"label": best})
        self._segments.append(
            {
                "label": best.name,
                "score": fields["label_probability"],
                "segment": [fields["start"], fields["stop"]],
            }
        )

    def finish(self) -> None:
        """Write the file.

        Raises:
            OSError: if it cannot be written.
        """
        # ActivityNet's evaluation refuses a file without the other two.
        about = {"version": "VERSION 1.3", "external_data": {}}
        contents = {**about, "results": {self._video: self._segments}}
        with atomic_write(self._path) as file:
            file.write(json.dumps(contents, ensure_ascii=False, indent=1).encode())


class MergedRows(LabelWriter):
    """Neighbours with the same best classes as one row, with their mean probabilities.

    Args:
        writer: gets each row when it is complete.
    """

    def __init__(self, writer: LabelWriter) -> None:
        self._writer = writer
        self._held: TimedPrediction | None = None
        self._labels: dict[str, Label] = {}
        self._sums: list[float] = []
        self._count = 0

    def add(self, row: TimedPrediction) -> None:
        """Take the next row."""
        labels = _best_labels(row.prediction)
        probabilities = [label.probability for label in labels.values()]
        is_equal = _classes(labels) == _classes(self._labels)
        if self._held and is_equal and row.start <= self._held.stop:  # no pause between them
            self._held = replace(self._held, stop=row.stop)
            self._sums = [a + b for a, b in zip(self._sums, probabilities, strict=True)]
            self._count += 1
            return
        self._flush()
        self._held, self._labels, self._sums, self._count = row, labels, probabilities, 1

    def finish(self) -> None:
        """Pass on the last row, and finish the writer."""
        self._flush()
        self._held = None
        self._writer.finish()

    def _flush(self) -> None:
        if self._held:
            means = {
                _FIELDS[column]: (replace(label, probability=total / self._count),)
                for (column, label), total in zip(self._labels.items(), self._sums, strict=True)
            }
            self._writer.add(replace(self._held, prediction=Prediction(**means)))


def _best_labels(prediction: Prediction) -> dict[str, Label]:
    """Return the best class of each kind that there is, by column."""
    found = {column: getattr(prediction, field) for column, field in _FIELDS.items()}
    return {column: labels[0] for column, labels in found.items() if labels}


def _classes(labels: dict[str, Label]) -> list[tuple[int, ...]]:
    return [label.classes for label in labels.values()]


def _to_fields(row: TimedPrediction, labels: dict[str, Label]) -> dict[str, Any]:
    """Return the fields of a row by column, times to the millisecond."""
    fields: dict[str, Any] = {"start": round(row.start, 3), "stop": round(row.stop, 3)}
    for column, label in labels.items():
        fields[column] = label.name
        fields[f"{column}_probability"] = round(label.probability, 6)
    return fields
