"""Classes over the time of a video: what happens when, at a glance, with the package matplotlib."""

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.options import first_few
from data.rgb import check_image
from data.thumbnails import Thumbnails
from data.time_averages import TimeAverages
from pictures import new_figure, save_figure

__all__ = ["Timeline"]

_MAX_ROWS = 8
_THUMBNAIL_HEIGHT, _TEXT_WIDTH, _GAP = 90, 48, 4  # pixels, of 1/100 inch
_MAX_NAME_LENGTH = 28

_WIDTH = 13.0  # inches, as all lengths of figures are
_ROW_HEIGHT, _TITLE_HEIGHT, _STRIP_HEIGHT, _LEGEND_HEIGHT = 0.21, 0.3, 0.42, 1.2

# The colour-blind tell these apart (Okabe and Ito).
_WINNER = "#D55E00"
_COLORS = "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
_DARK = "#009E73", "#0072B2", "#D55E00"  # under white text
_OTHERS, _NOTHING = "#BBBBBB", "#F4F4F4"

_TICK_STEPS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60 * step for step in (1, 2, 5, 10, 15, 30)),
    *(3600 * 2**power for power in range(30)),
)  # seconds
_MAX_TICKS = 12

_Columns: TypeAlias = NDArray[np.float64]
_Span: TypeAlias = tuple[float, float]  # start and length in seconds


class Timeline:
    """A picture of a video's classes over time, which takes the same memory whatever the length.

    Along the top run thumbnails. Below, for each task, rows of a heat map show the probabilities of
    the classes that win for longest, and of the best of all others; an orange line marks the most
    probable class of each moment. At the bottom runs a strip of the best actions. Those that last
    longest have colours, and all have names where these fit.

    Example:
        >>> import torch
        >>> timeline = Timeline({"verbs": ["take", "put"], "nouns": ["cup", "pan", "lid"]})
        >>> timeline.add(0, 1.5, [torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.7, 0.1])])
        >>> timeline.draw("timeline.png", title="P01_01")

    Args:
        titles_and_names: title of each task, such as "verbs" -> the names of its classes, by id.

    Raises:
        ValueError: if there is no task, or one without classes.
    """

    def __init__(self, titles_and_names: Mapping[str, Sequence[str]]) -> None:
        if not titles_and_names or not all(titles_and_names.values()):
            raise ValueError(
                f"titles_and_names must have the title of at least one task, and names of its "
                f"classes, got {titles_and_names!r}"
            )
        self._titles = list(titles_and_names)
        self._names = [list(map(_shorten, names)) for names in titles_and_names.values()]
        self._averages = TimeAverages([len(names) for names in self._names])
        self._thumbnails = Thumbnails(_THUMBNAIL_HEIGHT)

    def add(self, start: float, stop: float, probabilities: Sequence[Tensor]) -> None:
        """Add the probabilities of a part of the video.

        Where parts overlap, their mean is drawn; where none is, nothing. What is marked as most
        probable is so in one of the parts, that which lasts longest there.

        Args:
            start: seconds from the beginning of the video.
            stop: the same, of the part's end.
            probabilities: floating point (classes,) from 0 to 1, a tensor for each task.

        Raises:
            ValueError: if the times are not in order, or the tensors do not fit the names.
        """
        shapes = [tuple(tensor.shape) for tensor in probabilities]
        expected = [(len(names),) for names in self._names]
        if shapes != expected:
            raise ValueError(
                f"probabilities must be tensors {first_few(expected)}, one for each task, got "
                f"{first_few(shapes) or 'none'}"
            )
        vectors = [tensor.detach().cpu().double().numpy() for tensor in probabilities]
        self._averages.add(start, stop, vectors)

    def add_thumbnail(self, seconds: float, image: Tensor) -> None:
        """Offer a frame for the thumbnails: as many as you like, in the order of their times.

        Args:
            seconds: from the beginning of the video.
            image: uint8 RGB (3, H, W).

        Raises:
            ValueError: if the image is another.
        """
        check_image(image)
        self._thumbnails.add(seconds, image)

    def draw(self, path: str | os.PathLike[str], *, title: str, caution: str = "") -> None:
        """Draw what was added so far, and write a picture.

        Args:
            path: destination, whose ending says which format it has.
            title: written above, such as the name of the video.
            caution: written above everything, in red.

        Raises:
            ValueError: if nothing was added, or matplotlib has no such format.
            OSError: if the file cannot be written.
            ModuleNotFoundError: if matplotlib is not installed.
        """
        start, stop = self._averages.start, self._averages.stop
        if start > stop:
            raise ValueError("the timeline is empty: add the probabilities of a part first")
        edges, covered, tasks, winners = self._averages.columns()
        heights = [
            _THUMBNAIL_HEIGHT / 100 if self._thumbnails.kept else 0.01,
            *(_ROW_HEIGHT * min(len(names), _MAX_ROWS + 1) for names in self._names),
            _STRIP_HEIGHT,
        ]
        titles = _TITLE_HEIGHT * (len(heights) + bool(caution))
        figure = new_figure(_WIDTH, sum(heights) + titles + _LEGEND_HEIGHT)
        from matplotlib.ticker import MaxNLocator  # which new_figure asked for

        if caution:
            figure.suptitle(caution, color="firebrick", fontsize=11)
        top, *middle, bottom = figure.subplots(len(heights), height_ratios=heights)
        top.set_title(title, loc="left", fontsize=11, parse_math=False)
        top.set_axis_off()
        largest = max(task.max() for task in tasks)
        levels = MaxNLocator(min(4, sum(map(len, self._names)))).tick_values(0, largest)
        for axes, names, task, best in zip(middle, self._names, tasks, winners.T, strict=True):
            image = _draw_heat_map(axes, names, task, best, covered, edges)
            image.set_clim(0, levels[-1])
        figure.colorbar(
            image, ax=middle, ticks=levels, aspect=sum(heights[1:-1]) / 0.12, pad=0.01,
            label="probability",
        )  # fmt: skip
        middle[0].legend(
            [middle[0].collections[-1]], ["most probable class"], loc="lower right",
            bbox_to_anchor=(1, 1), borderaxespad=0.2, frameon=False, fontsize=9,
        )  # fmt: skip
        runs = _draw_strip(bottom, self._names, winners.T, covered, edges)
        strip_title = "best actions" if len(tasks) > 1 else "best classes"
        for axes, heading in zip([*middle, bottom], [*self._titles, strip_title], strict=True):
            axes.set_title(heading, loc="left", fontsize=9, color="dimgrey", parse_math=False)
            axes.set_xlim(start, stop)
            axes.set_facecolor(_NOTHING)
        _set_time_ticks(bottom, start, stop)
        figure.draw_without_rendering()  # lays the axes out
        figure.set_layout_engine("none")  # it takes as long as drawing
        _name_runs(bottom, runs)
        _draw_thumbnails(top, self._thumbnails, start, stop)
        save_figure(figure, path)


def _draw_thumbnails(axes: Any, thumbnails: Thumbnails, start: float, stop: float) -> None:
    """Draw every n-th thumbnail above its time, n as small as they have room with.

    The one of the beginning begins there, and that of the end ends there.
    """
    kept = [thumbnail for thumbnail in thumbnails.kept if start <= thumbnail[0] <= stop]
    if not kept:
        return
    # Widths and places are parts of the time axis.
    places = (np.array([seconds for seconds, _ in kept]) - start) / (stop - start)
    pixels = max(_TEXT_WIDTH, *(image.shape[1] for _, image in kept))
    natural = (pixels + _GAP) / axes.bbox.width
    for step in range(1, len(kept) + 1):
        distance = np.diff(places[::step]).min(initial=1)
        width = min(natural, distance / (1 + distance))  # the nearest ones touch, if need be
        if width >= 0.75 * natural:
            break
    width -= _GAP / axes.bbox.width
    axes.vlines(places[::step], -0.08, 0, color="dimgrey", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for (seconds, image), place in zip(kept[::step], places[::step], strict=True):
        inset = axes.inset_axes((place * (1 - width), 0, width, 1), anchor="S")
        inset.imshow(image)
        inset.set_axis_off()
        inset.text(
            0.03, 0.04, _format_time(seconds, stop - start < 60), transform=inset.transAxes,
            fontsize=7, color="white",
            bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1.5},
        )  # fmt: skip


def _draw_heat_map(
    axes: Any,
    names: Sequence[str],
    probabilities: _Columns,
    winners: NDArray[np.int64],
    covered: _Columns,
    edges: _Columns,
) -> Any:
    """Draw a row for each of the leading classes, and one for the best of the others."""
    known = winners >= 0
    wins = np.bincount(winners[known], covered[known], len(names))  # seconds
    ranking = np.lexsort((-(covered @ probabilities), -wins))  # ties by mean probability
    leading, others = ranking[:_MAX_ROWS], ranking[_MAX_ROWS:]
    rows, labels = probabilities[:, leading].T, [names[i] for i in leading]
    if len(others):
        rows = np.vstack([rows, probabilities[:, others].max(axis=1)])
        labels.append(f"best of {len(others)} others")
    image = axes.pcolormesh(
        edges, np.arange(len(rows) + 1), np.where(known, rows, np.nan), cmap="Blues",
        rasterized=True,
    )  # fmt: skip
    row_of = np.full(len(names) + 1, len(leading))
    row_of[leading] = np.arange(len(leading))
    row_of[-1] = -1  # of winner -1
    for row, spans in _runs(row_of[winners], edges).items():
        if row >= 0:
            axes.broken_barh(spans, (row + 0.76, 0.2), color=_WINNER, linewidth=0)
    axes.set_ylim(len(rows), 0)
    axes.set_yticks(np.arange(len(rows)) + 0.5, labels, fontsize=9, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    return image


def _draw_strip(
    axes: Any,
    names: Sequence[Sequence[str]],
    winners: NDArray[np.int64],
    covered: _Columns,
    edges: _Columns,
) -> list[tuple[str, str, list[_Span]]]:
    """Draw a bar for each run of an action, and a legend of those that last longest.

    Returns:
        Name, colour and spans of each action.
    """
    actions, places = np.unique(winners, axis=1, return_inverse=True)
    places = places.reshape(-1)  # NumPy 2.0 returns (1, columns)
    shares = np.bincount(places, covered) / covered.sum()
    order = np.argsort(-shares, kind="stable")[: np.count_nonzero(shares)].tolist()
    texts = {
        action: [task[i] for task, i in zip(names, actions[:, action], strict=True)]
        for action in order
    }
    colors = dict(zip(order, _COLORS, strict=False))
    spans = _runs(places, edges)
    runs = [
        ("\n".join(texts[action]), colors.get(action, _OTHERS), spans[action]) for action in order
    ]
    handles = [axes.broken_barh(bars, (0, 1), color=color, linewidth=0) for _, color, bars in runs]
    labels = [f"{' '.join(texts[action])}  {_to_percent(shares[action])}" for action in colors]
    if others := order[len(colors) :]:
        labels.append(f"{len(others)} others  {_to_percent(shares[others].sum())}")
    legend = axes.legend(
        handles[: len(labels)], labels, loc="upper left", bbox_to_anchor=(0, -1), ncols=4,
        frameon=False, fontsize=9, borderaxespad=0,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    return runs


def _name_runs(axes: Any, runs: Sequence[tuple[str, str, list[_Span]]]) -> None:
    """Write the names of actions in their bars, where they fit."""
    pixels_per_second = axes.bbox.width / np.ptp(axes.get_xlim())
    for name, color, spans in runs:
        for start, length in spans:
            width = length * pixels_per_second
            if width < 12:  # as any name is
                continue
            text = axes.text(
                start + length / 2, 0.48, name, ha="center", va="center", fontsize=8,
                color="white" if color in _DARK else "black", in_layout=False, parse_math=False,
            )  # fmt: skip
            if text.get_window_extent().width > width - 4:
                text.remove()


def _set_time_ticks(axes: Any, start: float, stop: float) -> None:
    step = next(step for step in _TICK_STEPS if (stop - start) / step <= _MAX_TICKS)
    ticks = np.arange(math.ceil(start / step), stop / step + 1e-6) * step
    axes.set_xticks(ticks, [_format_time(tick, step < 1) for tick in ticks], fontsize=9)
    axes.set_xlabel("time (h:min:s)" if stop >= 3600 else "time (min:s)", fontsize=9)


def _format_time(seconds: float, tenths: bool = False) -> str:
    """Return minutes and seconds, and hours where there are any, such as "1:02:03"."""
    minutes, rest = divmod(round(seconds, 1) if tenths else int(seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:04.1f}" if tenths else f"{rest:02.0f}"
    return f"{hours}:{minutes:02}:{text}" if hours else f"{minutes}:{text}"


def _to_percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _runs(values: NDArray[np.int64], edges: _Columns) -> dict[int, list[_Span]]:
    """Return the spans of time in which a value stays the same, for each value."""
    spans: dict[int, list[_Span]] = {}
    changes = np.flatnonzero(np.diff(values)) + 1
    for first, end in pairwise([0, *changes, len(values)]):
        spans.setdefault(int(values[first]), []).append((edges[first], edges[end] - edges[first]))
    return spans


def _shorten(name: str) -> str:
    """Return a name on one line that leaves room for the picture."""
    name = " ".join(name.split())
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…"
