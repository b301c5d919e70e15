"""Synthetic actions: clips whose classes differ in the order of their frames alone.

An object moves right or left, grows or shrinks, opens or closes. Each clip has a twin, the same
frames backwards, of the other class of the pair. Order and nothing else tells twins apart:

- A model without a sense of order, as TSN (arXiv:1608.00859), gives twins the same scores. It can
  learn the pair, which every frame shows, and is right in half of the clips at best.
- A single frame does not tell, even by its place in the clip: actions go round (what leaves the
  picture on the right comes in on the left, what is fully grown starts small), and start anywhere.
- Every frame is an image file of its own, the same bytes in both twins: sizes, numbers of frames
  and traces of compression are the same.
"""

import csv
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.options import one_of, positive_integer

__all__ = ["ACTION_PAIRS", "draw_action", "make_actions"]

ACTION_PAIRS = (("move right", "move left"), ("grow", "shrink"), ("open", "close"))
"""The classes. Played backwards, a clip of one class is a clip of the other of its pair."""

_FRAME_COUNT = 12  # evaluation with 4 or 8 segments then takes the same frames of both twins
_SIZE = 64  # pixels
_NO_GAP = -0.5  # pixels; half a pixel of an edge is blurred


def draw_action(action: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a clip of one of the classes that come first in their pairs; `clip[::-1]` is its twin.

    Background, colour, shape, size, place, speed and start are random.

    Args:
        action: "move right", "grow" or "open".
        generator: random generator.

    Returns:
        uint8 RGB (12, 64, 64, 3).

    Raises:
        ValueError: for another action.
    """
    action = one_of("action", action, [forwards for forwards, _ in ACTION_PAIRS])
    draw = generator.uniform
    texture = (draw(0, 100, 3) + draw(0, 40, (5, 5, 3))).astype(np.uint8)
    scene = np.array(Image.fromarray(texture).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC))
    object_colour = draw(160, 255, 3)
    radius, aspect, roundness = draw(8, 11), draw(0.7, 1), draw(0.9, 5)
    centre_x, centre_y = draw(29, 35, 2)

    # A third of a round, at most, from one of 4 sampled frames to the next: the way is clear.
    phase = (draw() + draw(0.035, 0.065) * np.arange(_FRAME_COUNT)[:, None, None]) % 1
    size, gap = np.full_like(phase, radius), np.full_like(phase, _NO_GAP)
    if action == "move right":
        centre_x = phase * _SIZE
        ground = round(centre_y + radius / aspect)
        scene[ground : ground + 3] = object_colour
    elif action == "grow":
        size = 5 * 3.6**phase
    else:
        gap = 1 + 17 * phase

    # A superellipse, which is a diamond, a disc or nearly a square, in two halves, each `gap` from
    # the centre. What leaves the picture on one side is drawn on the other.
    y, x = np.mgrid[:_SIZE, :_SIZE] + 0.5
    x = np.abs((x - centre_x + _SIZE / 2) % _SIZE - _SIZE / 2) - gap
    y = np.abs(y - centre_y)
    distance = (x.clip(0) / aspect) ** roundness + (y * aspect) ** roundness
    outline = (size - distance ** (1 / roundness) + 0.5).clip(0, 1)
    opacity = (outline * (x + 0.5).clip(0, 1))[..., None]
    clip: NDArray[np.uint8] = np.round(scene + opacity * (object_colour - scene)).astype(np.uint8)
    return clip


def make_actions(
    folder: str | os.PathLike[str],
    *,
    train_count: int = 100,
    validation_count: int = 25,
    seed: int = 0,
) -> Path:
    """Write clips for training and validation, which share no scene.

    `train.csv` and `validation.csv` have the columns `path` (from the folder) and `label` that
    `epic.annotations.read_annotations` reads; a clip is a folder of 12 JPEG images of 64 x 64
    pixels. The defaults make 9,000 images, 15 MB, in seconds. Older files of the same names are
    replaced.

    Args:
        folder: destination, which is made where it is missing.
        train_count: number of training clips of each of the six classes.
        validation_count: number of validation clips of each class.
        seed: the same seed and counts give the same clips.

    Returns:
        The folder.

    Raises:
        ValueError: if a count is no positive integer.

    Example:
        >>> from epic.annotations import read_annotations
        >>> folder = make_actions("actions", train_count=2, validation_count=1)
        >>> [segment.label for segment in read_annotations(folder / "validation.csv")]
        ['move right', 'move left', 'grow', 'shrink', 'open', 'close']
    """
    folder = Path(folder)
    counts = {
        "train": positive_integer("train_count", train_count),
        "validation": positive_integer("validation_count", validation_count),
    }
    generator = np.random.default_rng(seed)
    for subset, count in counts.items():
        rows = [("path", "label")]
        for index in range(count):
            for forwards, backwards in ACTION_PAIRS:
                clip = draw_action(forwards, generator)
                for label, frames in ((forwards, clip), (backwards, clip[::-1])):
                    path = f"{subset}/{label.replace(' ', '-')}-{index:03d}"
                    _write_frames(folder / path, frames)
                    rows.append((path, label))
        with open(folder / f"{subset}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return folder


def _write_frames(folder: Path, frames: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"frame_{number:010d}.jpg", quality=90)
