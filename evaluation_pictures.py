"""Figures of an evaluation, with the package matplotlib: confusions, accuracies of the classes."""

import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pictures import new_figure, save_figure

__all__ = ["draw_class_accuracies", "draw_confusions"]

_CELL = 0.36  # inches, as all lengths of figures are
_MARGIN = 2.8  # beside the cells, for names and titles
_MIN_WIDTH = 6.5  # for the title
_MAX_NAME_LENGTH = 20
_MAX_NAMED_POINTS = 15
_LARGEST_POINT = 400.0  # area in square points, of 1/72 inch
_BLUE, _ORANGE = "#0072B2", "#D55E00"  # the colour-blind tell them apart (Okabe and Ito)


def draw_confusions(
    labels: ArrayLike,
    predictions: ArrayLike,
    names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    num_classes: int = 20,
) -> None:
    """Draw the confusion matrix of the most frequent classes, and write a picture.

    A row is the segments of a class, in percent by predicted class. All other classes share the
    last column, so that a row adds up to 100.

    Args:
        labels: integers (S,), classes of the segments.
        predictions: integers (S,), classes with the highest score.
        names: the names of the C classes, by id.
        path: destination, whose ending says which format it has.
        title: written above.
        num_classes: rows, at most; a class without segments has none.

    Raises:
        ValueError: if the arrays are empty, or fit neither each other nor the names.
        ModuleNotFoundError: if matplotlib is not installed.
    """
    labels, predictions = _check_classes(labels, predictions, len(names))
    counts = np.bincount(labels, minlength=len(names))
    shown = np.argsort(-counts, kind="stable")[: min(num_classes, np.count_nonzero(counts))]
    num_rows = len(shown)
    places = np.full(len(names), num_rows)  # class -> its row and column
    places[shown] = np.arange(num_rows)
    matrix = np.zeros((num_rows + 1, num_rows + 1))
    np.add.at(matrix, (places[labels], places[predictions]), 1)
    shown_names = [_shorten(names[i]) for i in shown]
    columns = [*shown_names, "other classes"][: len(names)]
    percent = 100 * matrix[:num_rows, : len(columns)] / counts[shown, None]

    width, height = _CELL * len(columns) + _MARGIN, _CELL * num_rows + _MARGIN
    figure = new_figure(max(width, _MIN_WIDTH), height)
    axes = figure.add_subplot()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for i, j in np.argwhere(percent >= 0.5):
        color = "white" if percent[i, j] > 55 else "black"
        axes.text(j, i, f"{percent[i, j]:.0f}", ha="center", va="center", color=color, fontsize=8)
    axes.axvline(num_rows - 0.5, color="grey", linewidth=0.8)  # before the other classes
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(num_rows), shown_names)
    axes.set_xlabel("prediction, in percent of the row (blank: below 0.5)")
    axes.set_ylabel("label")
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(num_rows), [f"{count:,}" for count in counts[shown]])
    right.set_ylabel("segments")
    for side in (axes, right):
        side.tick_params(length=0)
    covered = f"{counts[shown].sum():,} of {len(labels):,} segments"
    most_frequent = " most frequent" if num_rows < np.count_nonzero(counts) else ""
    _set_title(axes, title, f"{num_rows}{most_frequent} classes, {covered}")
    save_figure(figure, path)


def draw_class_accuracies(
    labels: ArrayLike,
    predictions: ArrayLike,
    names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    training_counts: ArrayLike | None = None,
    tail: Collection[int] = (),
) -> None:
    """Draw the accuracy of each class against its frequency in training, and write a picture.

    Args:
        labels: integers (S,), classes of the segments; a class without segments is not drawn.
        predictions: integers (S,), classes with the highest score.
        names: the names of the C classes, by id.
        path: destination, whose ending says which format it has.
        title: written above.
        training_counts: integers (C,), training segments of each class. Where they are not known,
            the evaluated segments take their place, and the axis says so.
        tail: ids of the rare classes, drawn in another colour and shape.

    Raises:
        ValueError: if the arrays are empty, or fit neither each other nor the names.
        ModuleNotFoundError: if matplotlib is not installed.
    """
    labels, predictions = _check_classes(labels, predictions, len(names))
    counts = np.bincount(labels, minlength=len(names))
    correct = np.bincount(labels[labels == predictions], minlength=len(names))
    frequency = counts if training_counts is None else np.asarray(training_counts)
    if frequency.shape != counts.shape or frequency.min() < 0:
        raise ValueError(
            f"training_counts must be {len(names)} numbers of segments, one for each name, got "
            f"{frequency.size}, the smallest {frequency.min(initial=0)}"
        )
    drawn = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    x, y = frequency[drawn], 100 * correct[drawn] / counts[drawn]
    point = _LARGEST_POINT / np.sqrt(counts.max())  # of one segment
    areas = point * np.sqrt(counts[drawn])
    in_tail = np.isin(drawn, list(tail))

    figure = new_figure(9, 6)
    axes = figure.add_subplot()
    for chosen, marker, color, name in (
        (~in_tail, "o", _BLUE, "other classes" if in_tail.any() else "classes"),
        (in_tail, "D", _ORANGE, "tail classes"),
    ):
        if chosen.any():
            axes.scatter(
                x[chosen], y[chosen], areas[chosen], color, marker=marker, alpha=0.55,
                edgecolors="white", linewidths=0.5, label=f"{chosen.sum()} {name}",
            )  # fmt: skip
    axes.scatter([], [], label="\nsegments evaluated:", alpha=0)
    for count in np.unique(np.geomspace(1, counts.max(), 3).round()):
        size = point * np.sqrt(count)
        axes.scatter([], [], size, "lightgrey", edgecolors="grey", label=f"{count:,.0f}")
    _set_frequency_axis(axes, x)
    axes.set_xlabel(
        "training segments of the class"
        if training_counts is not None
        else "segments of the class evaluated (training segments are not known)"
    )
    axes.set_ylim(-5, 105)
    axes.set_ylabel("top-1 accuracy of the class, in percent")
    axes.grid(color="whitesmoke")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, labelspacing=1.1, fontsize=9)
    overall = f"{100 * correct.sum() / len(labels):.2f} % of {len(labels):,} segments"
    mean = f"{y.mean():.2f} % on average over {len(drawn)} classes"
    _set_title(axes, title, f"top-1 accuracy {overall}, {mean}")
    _name_points(axes, x, y, areas, [_shorten(names[i]) for i in drawn])
    save_figure(figure, path)


def _set_frequency_axis(axes: Any, frequency: NDArray[np.int64]) -> None:
    """Make the x-axis logarithmic from 1 on, with a place for classes that training never saw."""
    ticks = np.array([0, *(digit * 10**power for power in range(10) for digit in (1, 3))])
    low, high = ticks[ticks <= frequency.min()].max(), ticks[ticks >= frequency.max()].min()
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xlim(0.8 * low if low else -0.2, 1.25 * high)


def _name_points(
    axes: Any,
    x: NDArray[np.int64],
    y: NDArray[np.float64],
    areas: NDArray[np.float64],
    names: Sequence[str],
) -> None:
    """Write names beside points where nothing is in the way; the first points choose first."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # lays the axes out
    centres = axes.transData.transform(np.column_stack([x, y]))
    distances = np.sqrt(areas) / 2 + 2  # points
    reach = distances[:, None] * axes.figure.dpi / 72  # pixels
    taken = [Bbox(corners) for corners in np.stack([centres - reach, centres + reach], axis=1)]
    sides = (1, 0, "left"), (-1, 0, "right"), (0, 1, "center"), (0, -1, "center")
    aligned = {0: "center", 1: "bottom", -1: "top"}
    num_named = 0
    for position, distance, name in zip(zip(x, y, strict=True), distances, names, strict=True):
        for dx, dy, ha in sides:
            text = axes.annotate(
                name, position, (dx * distance, dy * distance), textcoords="offset points",
                ha=ha, va=aligned[dy], fontsize=9, in_layout=False,
            )  # fmt: skip
            box = text.get_window_extent()
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            if inside and not box.count_overlaps(taken):
                taken.append(box)
                num_named += 1
                break
            text.remove()
        if num_named == _MAX_NAMED_POINTS:
            break


def _set_title(axes: Any, title: str, facts: str) -> None:
    text = "\n".join(filter(None, [_escape(title), facts]))
    axes.set_title(text, loc="left", fontsize=11)


def _shorten(name: str) -> str:
    """Return a name of a class that leaves room for the picture."""
    return _escape(name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…")


def _escape(text: str) -> str:
    """Return text as matplotlib shows it unchanged: dollars would be formulas."""
    return text.replace("$", r"\$")


def _check_classes(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return labels and predictions as arrays, if they are those of the same segments."""
    arrays = {"labels": np.asarray(labels), "predictions": np.asarray(predictions)}
    for name, array in arrays.items():
        if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"{name} must be integers (S,), at least one, got {array.dtype} {array.shape}"
            )
        if array.min() < 0 or array.max() >= num_classes:
            raise ValueError(
                f"{name} must be ids of the {num_classes} classes named, got "
                f"{array.min()} to {array.max()}"
            )
    if len(set(map(len, arrays.values()))) > 1:
        raise ValueError(
            "labels and predictions must be those of the same segments, got "
            + " and ".join(str(array.shape) for array in arrays.values())
        )
    return arrays["labels"], arrays["predictions"]
