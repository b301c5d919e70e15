"""Figures of trainings, with the package matplotlib: losses and accuracies by epoch."""

import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pictures import new_figure, save_figure

__all__ = ["draw_curves", "draw_training_comparison"]

_HEIGHT = 4.5  # inches, as all lengths of figures are
_FONT_SIZE = 9  # points, of 1/72 inch
_MAX_MARKED_EPOCHS = 30

# The colour-blind tell these apart (Okabe and Ito).
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_RUN_COLORS = _ORANGE, _BLUE, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000"
_TASK_COLORS = {"label": _BLUE, "verb": _BLUE, "noun": _ORANGE, "action": _GREEN}
"""Task -> its colour. The last task of a run is the one whose accuracy counts."""

_Rows: TypeAlias = Sequence[Mapping[str, float | None]]
_Column: TypeAlias = NDArray[np.float64]


def draw_curves(rows: _Rows, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw losses, learning rates and validation accuracies of a run, and write a picture.

    The best epoch is marked: the first with the highest top-1 accuracy of actions, or of labels.

    Args:
        rows: the epochs, in order: "epoch" from 1 on, "lr", "training_loss" and, of those with a
            validation, "validation_loss" and accuracies in percent: "verb_top1", "verb_top5",
            "noun_top1", "noun_top5", "action_top1" or "label_top1", "label_top5". What is None or
            absent is not drawn.
        path: destination, whose ending says which format it has.
        title: written above.

    Raises:
        ValueError: if there are no rows, or matplotlib has no such format.
        OSError: if the file cannot be written.
        ModuleNotFoundError: if matplotlib is not installed.
    """
    if not rows:
        raise ValueError("rows must be those of at least one epoch, got none")
    epochs = _to_array(rows, "epoch")
    accuracies = _top1_accuracies(rows)
    figure = new_figure(11 if accuracies else 6.5, _HEIGHT)
    columns = ["loss", "accuracy"] if accuracies else ["loss"]
    panels = figure.subplot_mosaic([columns, ["lr", *columns[1:]]], height_ratios=[5, 1])

    _draw_losses(panels["loss"], panels["lr"], epochs, rows)
    facts = f"epoch {epochs[-1]:.0f}: training loss {_to_array(rows, 'training_loss')[-1]:.4g}"
    if accuracies:
        _draw_accuracies(panels["accuracy"], epochs, rows, accuracies)
        *_, counted = accuracies.values()
        best = np.nanargmax(counted)
        for axes in panels.values():
            axes.axvline(
                epochs[best], color="grey", linewidth=0.8, linestyle=":", zorder=1, clip_on=False
            )
        panels["accuracy"].text(
            epochs[best], 1, "best", transform=panels["accuracy"].get_xaxis_transform(),
            ha="center", va="bottom", color="dimgrey", fontsize=_FONT_SIZE,
        )  # fmt: skip
        reached = ", ".join(f"{task} {values[best]:.1f} %" for task, values in accuracies.items())
        facts = f"best epoch {epochs[best]:.0f} of {epochs[-1]:.0f}: {reached}"
    for axes in panels.values():
        _set_epoch_axis(axes, epochs[0], epochs[-1])
    panels["loss"].tick_params(labelbottom=False)
    panels["loss"].set_xlabel("")
    _finish(figure, path, title, facts)


def draw_training_comparison(
    runs: Mapping[str, _Rows],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    without_order: float | None = None,
) -> None:
    """Draw the top-1 validation accuracy of several models by epoch, and write a picture.

    Args:
        runs: name of each model -> rows of its epochs, as `draw_curves` takes them. Accuracies are
            those of actions, or of labels.
        path: destination, whose ending says which format it has.
        title: written above.
        without_order: percent, the highest accuracy of a model that does not know in which order
            the frames are; drawn as a thin line.

    Raises:
        ValueError: if there are no runs, one has no accuracy, or matplotlib has no such format.
        OSError: if the file cannot be written.
        ModuleNotFoundError: if matplotlib is not installed.
    """
    if not runs:
        raise ValueError("runs must have at least one model, got none")
    figure = new_figure(8, _HEIGHT)
    axes = figure.add_subplot()
    longest = 1.0
    for (name, rows), color in zip(runs.items(), cycle(_RUN_COLORS), strict=False):
        accuracies = _top1_accuracies(rows)
        if not accuracies:
            raise ValueError(f"runs must have validation accuracies, got none of {name!r}")
        epochs = _to_array(rows, "epoch")
        *_, values = accuracies.values()
        last = values[np.isfinite(values)][-1]
        _draw_curve(axes, epochs, values, f"{name} {last:.1f} %", color)
        longest = max(longest, epochs[-1])
    if without_order is not None:
        label = f"best without order: {without_order:g} %"
        ends = [0, longest], [without_order] * 2
        axes.plot(*ends, color="dimgrey", linewidth=0.8, label=label, zorder=1)
    _set_accuracy_axis(axes)
    _set_epoch_axis(axes, 1, longest)
    _finish(figure, path, title)


def _draw_losses(axes: Any, strip: Any, epochs: _Column, rows: _Rows) -> None:
    """Draw losses, each at the end of its epoch, and below them the learning rate until then."""
    for name, color in (("training", _BLUE), ("validation", _ORANGE)):
        _draw_curve(axes, epochs, _to_array(rows, f"{name}_loss"), name, color)
    axes.set_ylabel("loss")
    edges = np.append(epochs[0] - 1, epochs)
    strip.stairs(_to_array(rows, "lr"), edges, fill=True, color="silver")
    strip.set_ylabel("learning\nrate")
    strip.locator_params(axis="y", nbins=2)
    strip.yaxis.set_major_formatter("{x:g}")


def _draw_accuracies(
    axes: Any, epochs: _Column, rows: _Rows, accuracies: Mapping[str, _Column]
) -> None:
    for task, values in accuracies.items():
        color = _TASK_COLORS[task]
        _draw_curve(axes, epochs, values, task, color)
        _draw_curve(axes, epochs, _to_array(rows, f"{task}_top5"), f"{task} top-5", color, "--")
    _set_accuracy_axis(axes)


def _top1_accuracies(rows: _Rows) -> dict[str, _Column]:
    """Return the accuracies of each task that has any, by epoch."""
    tasks = {task: _to_array(rows, f"{task}_top1") for task in _TASK_COLORS}
    return {task: values for task, values in tasks.items() if np.isfinite(values).any()}


def _to_array(rows: _Rows, name: str) -> _Column:
    """Return a column of the rows, with NaN where there is no value."""
    return np.array([row.get(name) for row in rows], dtype=np.float64)  # None becomes NaN


def _draw_curve(
    axes: Any, epochs: _Column, values: _Column, label: str, color: str, linestyle: str = "-"
) -> None:
    known = np.isfinite(values)
    if known.any():
        axes.plot(
            epochs[known], values[known], linestyle, color=color, label=label, linewidth=1.4,
            marker="o" if len(epochs) <= _MAX_MARKED_EPOCHS else "", markersize=3, clip_on=False,
            alpha=1 if linestyle == "-" else 0.6,
        )  # fmt: skip


def _set_accuracy_axis(axes: Any) -> None:
    axes.set_ylim(0, 100)
    axes.set_ylabel("validation accuracy, in percent")


def _set_epoch_axis(axes: Any, first: float, last: float) -> None:
    axes.set_xlim(first - 1, last)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_xlabel("epoch")
    axes.grid(color="whitesmoke")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Any, path: str | os.PathLike[str], *lines: str) -> None:
    """Write the title, name the curves at their ends, and write the picture."""
    title = "\n".join(filter(None, lines))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    figure.draw_without_rendering()  # lays the axes out
    for axes in figure.axes:
        _name_curves(axes)
    save_figure(figure, path)


def _name_curves(axes: Any) -> None:
    """Write the names of curves to the right of the axes, as near to their ends as they fit."""
    lines = [line for line in axes.lines if not line.get_label().startswith("_")]
    ends = np.array([line.get_xydata()[-1] for line in lines]).reshape(-1, 2)
    places = axes.transAxes.inverted().transform(axes.transData.transform(ends))[:, 1]
    gap = 1.3 * _FONT_SIZE * axes.figure.dpi / 72 / axes.bbox.height
    leader = {"arrowstyle": "-", "linewidth": 0.6, "relpos": (0, 0.5)}
    for line, end, place in zip(lines, ends, _spread(places, gap), strict=True):
        axes.annotate(
            line.get_label(), end, (1.03, place), xycoords="data", textcoords="axes fraction",
            va="center", color=line.get_color(), fontsize=_FONT_SIZE, annotation_clip=False,
            parse_math=False, arrowprops=leader | {"color": line.get_color()},
        )  # fmt: skip


def _spread(places: _Column, gap: float) -> _Column:
    """Return places from 0 to 1 that are `gap` apart or more, as near as possible to those given.

    They keep their order; of equal ones the first comes highest.
    """
    count = len(places)
    order = np.lexsort((-np.arange(count), places))
    steps = gap * np.arange(count)
    wanted = places[order] - steps
    # What remains is to find the nearest ascending sequence: isotonic regression.
    found = [
        max(min(wanted[j : k + 1].mean() for k in range(i, count)) for j in range(i + 1))
        for i in range(count)
    ]
    spread = np.empty(count)
    spread[order] = np.clip(found, 0, max(0, 1 - steps[-1:].sum())) + steps
    return spread
