"""Figures that several programs draw with the package matplotlib, and labels drawn into frames."""

import math
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import flow_to_image, make_grid

from checkpoints.files import atomic_write
from data.options import positive_integer
from data.preprocessing import FLOW_ZERO
from data.rgb import check_image
from predictor import Label, Prediction

__all__ = [
    "ClassifiedClip",
    "contact_sheet",
    "draw_labels",
    "draw_predictions",
    "new_figure",
    "save_figure",
]

_WIDTH = 12.0  # inches, as all lengths of figures are
_MAX_SHEET_HEIGHT = 3.0
_TITLE_HEIGHT = 0.3
_BAR_HEIGHT = 0.27
_MAX_COLUMNS = 8  # frames in a row

# Of labels in frames: blue, vermilion and green, which the colour-blind tell apart (Okabe and Ito),
# dark enough for white text; shares of the width, since names of actions are long.
_BAR_COLORS = {
    "verbs": (0, 94, 148),
    "nouns": (170, 75, 0),
    "actions": (0, 118, 86),
    "classes": (0, 94, 148),
}
_COLUMN_SHARES = {"verbs": 3, "nouns": 4, "actions": 6, "classes": 1}
_MIN_LABEL_WIDTH = 12  # on average, in font sizes


@dataclass(frozen=True)
class ClassifiedClip:
    """The frames of a clip that models saw, and what the models say.

    Attributes:
        title: what is written above the frames.
        frames: uint8 (T * frames per snippet, C, H, W); C is 3 for RGB, 2 for flow (u, v).
        num_segments: T.
        predictions: name of each model -> its prediction.
    """

    title: str
    frames: Tensor
    num_segments: int
    predictions: dict[str, Prediction]


def draw_predictions(
    clips: Sequence[ClassifiedClip], path: str | os.PathLike[str], *, caution: str = ""
) -> None:
    """Draw clips, each above bars of the most probable classes, and write a picture.

    Args:
        clips: what to draw, from top to bottom.
        path: destination, whose ending says which format it has.
        caution: written above everything, in red.

    Raises:
        ModuleNotFoundError: if matplotlib is not installed.
    """
    sheets = [contact_sheet(clip.frames, clip.num_segments) for clip in clips]
    heights: list[float] = []
    for clip, sheet in zip(clips, sheets, strict=True):
        _, h, w = sheet.shape
        heights.append(min(_WIDTH * h / w, _MAX_SHEET_HEIGHT) + _TITLE_HEIGHT)
        for prediction in clip.predictions.values():
            heights.append(_BAR_HEIGHT * (1 + max(map(len, vars(prediction).values()))))
    height = sum(heights) + _TITLE_HEIGHT * (len(clips) + bool(caution))
    figure = new_figure(_WIDTH, height)
    if caution:
        figure.suptitle(caution, color="firebrick", fontsize=11)
    grid = figure.add_gridspec(len(heights), 4, height_ratios=heights, width_ratios=(1, 2, 2, 3))
    row = 0
    for clip, sheet in zip(clips, sheets, strict=True):
        axes = figure.add_subplot(grid[row, :])
        axes.imshow(sheet.permute(1, 2, 0).cpu().numpy())  # (C, H, W) -> (H, W, C)
        axes.set_anchor("W")
        axes.set_title(clip.title, loc="left", fontsize=11)
        axes.set_axis_off()
        for name, prediction in clip.predictions.items():
            row += 1
            _draw_model(figure, [grid[row, column] for column in range(4)], name, prediction)
        row += 1
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Return an empty `matplotlib.figure.Figure` with constrained layout; sizes are in inches.

    Raises:
        ModuleNotFoundError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the picture needs the package matplotlib: pip install matplotlib"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure whole or not at all, in the format of the path's ending; PNG without one.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if matplotlib has no such format.
    """
    path = Path(path)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:] or "png", dpi=100)


def contact_sheet(frames: Tensor, num_segments: int) -> Tensor:
    """Return the first frame of each snippet, at most eight in a row, with grey borders.

    Args:
        frames: uint8 (T * frames per snippet, C, H, W), RGB or flow.
        num_segments: T.

    Returns:
        uint8 RGB (3, H', W'). In flow the colour is the direction of motion, and white is none.
    """
    first = to_rgb(frames[:: len(frames) // num_segments])
    rows = math.ceil(num_segments / _MAX_COLUMNS)
    columns = math.ceil(num_segments / rows)
    sheet: Tensor = make_grid(first, nrow=columns, padding=4, pad_value=225)
    return sheet


def to_rgb(frames: Tensor) -> Tensor:
    """Return frames, uint8 (..., C, H, W), as RGB; the colour of flow is its direction."""
    if frames.shape[-3] == 3:
        return frames
    colours: Tensor = flow_to_image(frames.float() - FLOW_ZERO)
    return colours


def draw_labels(image: Tensor, prediction: Prediction, *, lines: int = 3) -> Tensor:
    """Draw the most probable classes over the bottom of a frame.

    Verbs, nouns and actions stand side by side, in a narrow frame one below the other; the tiniest
    have no room for actions. The bar behind a name is as long as its probability, which is also
    written where the name leaves room. Text grows with the frame.

    Args:
        image: uint8 RGB (3, H, W); it stays as it is.
        prediction: what to draw.
        lines: how many classes of each kind at most; fewer are drawn where all would cover more
            than about a third of the frame.

    Returns:
        uint8 RGB (3, H, W) on the CPU.

    Raises:
        ValueError: if the image or `lines` is none of these.
        ModuleNotFoundError: if matplotlib, which has the font, is not installed.
    """
    check_image(image)
    lines = positive_integer("lines", lines)
    pixels = image.permute(1, 2, 0).cpu().numpy().copy()  # (3, H, W) -> (H, W, 3)
    kinds = {kind: labels for kind, labels in vars(prediction).items() if labels}
    if kinds:
        _draw_panel(pixels, kinds, lines)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _draw_panel(
    pixels: NDArray[np.uint8], kinds: Mapping[str, Sequence[Label]], lines: int
) -> None:
    """Draw labels over the bottom of a frame (H, W, 3)."""
    h, w, _ = pixels.shape
    size = max(8, round(min(h, w) / 22))  # of the font, in pixels
    pitch, gap = round(1.5 * size), max(1, size // 6)
    max_rows = max(1, round(h / 3 / pitch))
    side_by_side = w >= _MIN_LABEL_WIDTH * size * len(kinds)
    lines = min(lines, max_rows if side_by_side else max(1, max_rows // len(kinds)))
    columns = [
        [(_BAR_COLORS[kind], label) for label in labels[:lines]] for kind, labels in kinds.items()
    ]
    shares = [_COLUMN_SHARES[kind] for kind in kinds]
    if not side_by_side:
        columns, shares = [list(chain(*columns))[:max_rows]], [1]
    edges = [w * sum(shares[:column]) // sum(shares) for column in range(len(shares) + 1)]
    top = max(0, h - max(map(len, columns)) * pitch - gap)
    panel = Image.fromarray(pixels[top:])
    draw = ImageDraw.Draw(panel, "RGBA")  # colours with an opacity are blended
    draw.rectangle((0, 0, w, h), (0, 0, 0, 160))
    font = _load_font(size)
    for column, (start, end) in zip(columns, pairwise(edges), strict=True):
        left, right = start + gap, max(start + gap, end - gap)
        for row, (color, label) in enumerate(column):
            y = gap + row * pitch
            bar_end = left + label.probability * (right - left)
            draw.rectangle((left, y, bar_end, y + pitch - gap - 1), (*color, 220))
            middle = y + (pitch - gap) / 2
            name = _shorten(label.name, font, right - left - 2 * gap)
            draw.text((left + gap, middle), name, "white", font, "lm")
            percent = f"{100 * label.probability:.0f} %"
            if font.getlength(name + percent) <= right - left - 4 * gap:
                draw.text((right - gap, middle), percent, "white", font, "rm")
    pixels[top:] = np.asarray(panel)


def _shorten(name: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Return a name on one line, cut where it is wider than `width` pixels."""
    name = " ".join(name.split())
    if font.getlength(name) <= width:
        return name
    cuts = range(len(name))
    fitting = bisect_right(cuts, width, key=lambda cut: font.getlength(f"{name[:cut]}…"))
    return f"{name[: fitting - 1]}…" if fitting else ""


@lru_cache(maxsize=4)
def _load_font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of matplotlib; Pillow's own has no letters beyond ASCII."""
    try:
        from matplotlib import get_data_path
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "labels need a font of the package matplotlib: pip install matplotlib"
        ) from error
    path = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    # Not the library Raqm, which some installations lack: pictures are the same everywhere.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _draw_model(figure: Any, cells: Sequence[Any], name: str, prediction: Prediction) -> None:
    """Draw a row: the name of a model, and bars for each kind of class."""
    heading, *kinds = (figure.add_subplot(cell) for cell in cells)
    heading.text(0, 0.5, name.replace(" ", "\n", 1), va="center", fontsize=11)
    heading.set_axis_off()
    labels = {kind: labels for kind, labels in vars(prediction).items() if labels}
    for axes, kind in zip(kinds, labels, strict=False):
        _draw_bars(axes, kind, labels[kind])
    for axes in kinds:
        axes.set_axis_off()


def _draw_bars(axes: Any, kind: str, labels: Sequence[Label]) -> None:
    """Draw horizontal bars, the most probable class on top, with the text inside."""
    largest = max(labels[0].probability, 1e-9)
    for row, label in enumerate(labels):
        axes.barh(row, 1, color="whitesmoke")
        axes.barh(row, label.probability / largest, color="lightsteelblue")
        axes.text(0.015, row, label.name, va="center", fontsize=9)
        percent = f"{100 * label.probability:.3g} %"
        axes.text(0.985, row, percent, va="center", ha="right", fontsize=9)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.margins(y=0)
    axes.set_title(kind, loc="left", fontsize=9, color="dimgrey")
