"""What a checkpoint file says: what it takes to build its model, and the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from data.options import ClassNames
from data.preprocessing import Preprocessing

__all__ = ["MODEL_OPTIONS", "Checkpoint", "ModelConfig"]

MODEL_OPTIONS: dict[str, tuple[str, ...]] = {
    "tsn": ("consensus_type",),
    "trn": ("img_feature_dim",),
    "mtrn": ("img_feature_dim", "classifier_pairing"),
    "tsm": ("consensus_type", "shift_div", "shift_place", "shift_every",
            "shift_direction", "temporal_pool", "non_local"),
}  # fmt: skip
"""Types of models, and the options that each has beyond those that all have."""


@dataclass(frozen=True)
class ModelConfig:
    """What it takes to build a model, apart from its weights; names as in the constructors.

    Options of other model types keep their defaults. `dropout` and `preprocessing` are None where a
    file does not record them: the model's own hold. `class_names` are (verbs, nouns), or with one
    task a tuple of names; None where they are not known.
    """

    model_type: str
    num_class: int | tuple[int, int]
    num_segments: int
    modality: str
    arch: str
    new_length: int
    dropout: float | None = None
    before_softmax: bool = True
    partial_bn: bool = True
    consensus_type: str = "avg"
    img_feature_dim: int = 256
    classifier_pairing: str = "published"
    shift_div: int = 8
    shift_place: str = "blockres"
    shift_every: int = 1
    shift_direction: str = "both"
    temporal_pool: bool = False
    non_local: bool = False
    preprocessing: Preprocessing | None = None
    class_names: ClassNames | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file in the terms of this library.

    Attributes:
        config: what to build.
        state_dict: the weights, under the model's own names.
        epoch: number of the last epoch.
        args: training options as plain values.
        optimizer: state of the optimiser.
        training: what else a training goes on from.
        report: what was renamed, split, left out or assumed, one message per change.
        contents: the dictionary as the file holds it; empty where there is no file.
    """

    config: ModelConfig
    state_dict: dict[str, Tensor]
    epoch: int | None = None
    args: dict[str, Any] = field(default_factory=dict)
    optimizer: Any = None
    training: dict[str, Any] | None = None
    report: tuple[str, ...] = ()
    contents: Mapping[Any, Any] = field(default_factory=dict, repr=False)
