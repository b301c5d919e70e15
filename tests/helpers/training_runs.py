"""What tests of training share: clips in files, small models, recipes of a few steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data.dataset import ClipDataset
from data.segments import Segment
from data.synthetic_actions import ACTION_PAIRS
from engine.processes import Processes
from epic.annotations import read_annotations
from training.recipes import RECIPES, Recipe
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

__all__ = ["ALONE", "T", "clips", "quick_recipe", "small_model"]

ALONE = Processes(0, 1, torch.device("cpu"), 1)
T = 2
_SIZE = 32
_KINDS: dict[str, type[TSN]] = {"TSN": TSN, "TRN": TRN, "MTRN": MTRN, "TSM": TSM}
_NAMES = [name for pair in ACTION_PAIRS for name in pair]


def small_model(kind: str = "TSM", num_class: Any = 6, **options: Any) -> TSN:
    """Return a model of 32-pixel images with the weights of a seed."""
    torch.manual_seed(0)
    options = {"base_model": "mobilenetv2", "pretrained": None, "partial_bn": False} | options
    model = _KINDS[kind](num_class, T, "RGB", **options)
    model.preprocessing = replace(model.preprocessing, input_size=_SIZE, scale_size=_SIZE)
    return model


def quick_recipe(**options: Any) -> Recipe:
    """Return a recipe of two epochs and batches of four clips, without draws of the network."""
    quick = {"epochs": 2, "batch_size": 4, "warmup_epochs": 0, "drop_last": False}
    return replace(RECIPES["synthetic-actions"], **(quick | options))


def clips(folder: Path, subset: str = "train", *, two_tasks: bool = False) -> ClipDataset:
    """Return the clips of a folder that `data.synthetic_actions.make_actions` has filled.

    With two tasks, the verb is the class, and the noun whether it comes first in its pair.
    """

    def label(segment: Segment) -> Segment:
        number = _NAMES.index(str(segment.label))
        if two_tasks:
            return replace(segment, label=None, verb_class=number, noun_class=number % 2)
        return replace(segment, label_class=number)

    return ClipDataset(
        [label(segment) for segment in read_annotations(folder / f"{subset}.csv")],
        folder, modality="RGB", num_segments=T, short_side=_SIZE,
        mode="train" if subset == "train" else "test",
    )  # fmt: skip
