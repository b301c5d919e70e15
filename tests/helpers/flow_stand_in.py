"""Clips of one grey level a frame, and flow that says which two frames it is of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.flow import FlowConfig
from helpers.numbered_images import save

EXACT = FlowConfig(bound=127.5, size=8)
"""Grey levels of flow are then those of the two frames."""


class BothFrames:
    """A flow method: u is the first frame and v the second one, less the grey level of no motion.

    With a bound of 127.5 the flow images show the frames themselves.
    """

    name = "both frames"

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        self.calls.append((int(first[0, 0]), int(second[0, 0])))
        return np.stack([first, second], -1).astype(np.float32) - 127.5


def save_frames(folder: Path, levels: Sequence[int]) -> Path:
    """A folder of RGB images, 12 x 10, each of one grey level."""
    for number, level in enumerate(levels, 1):
        save(folder, f"frame_{number:010d}.jpg", level)
    return folder
