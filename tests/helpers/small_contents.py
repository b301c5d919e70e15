"""The least that a documented checkpoint file holds."""

from typing import Any

import torch
from torch import Tensor

from helpers.original_format import training_options


def weights(
    *, classes: tuple[int, ...] = (5, 7), head: str = "tsn", channels: int = 3
) -> dict[str, Tensor]:
    """The few weights that a config is read from."""
    names = {
        "tsn": ["fc_verb", "fc_noun"] if len(classes) == 2 else ["new_fc"],
        "trn": [f"consensus.classifiers.{task}" for task in range(len(classes))],
        "mtrn": [f"consensus.classifiers.0.{task}" for task in range(len(classes))],
    }[head]
    state = {"base_model.conv1.weight": torch.zeros(4, channels, 3, 3)}
    if head != "tsn":
        state["new_fc.weight"] = torch.zeros(16, 8)
    state.update({f"{n}.weight": torch.zeros(c, 8) for n, c in zip(names, classes, strict=True)})
    return state


def contents(model_type: str = "tsn", *, without: tuple[str, ...] = (), **entries: Any) -> Any:
    head = model_type if model_type in ("trn", "mtrn") else "tsn"
    complete = {
        "model_type": model_type,
        "epoch": 80,
        "segment_count": 8,
        "modality": "RGB",
        "arch": "resnet50",
        "args": training_options(),
        "state_dict": weights(head=head),
        **entries,
    }
    return {name: value for name, value in complete.items() if name not in without}
