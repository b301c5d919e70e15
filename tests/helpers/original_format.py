"""Checkpoint files as the original project writes them, and as its readers open them."""

import copy
import functools
import io
import pathlib
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from helpers.small_models import randomised
from model_loader import get_config
from tools.options import find_format
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

VARIANTS: dict[str, Any] = {
    "tsn": (TSN, {"consensus_type": "max"}),
    "trn": (TRN, {"img_feature_dim": 32}),
    "mtrn": (MTRN, {"img_feature_dim": 32}),
    "tsm": (TSM, {"shift_div": 4, "shift_place": "block"}),
    "tsm-nl": (TSM, {"non_local": True, "temporal_pool": True}),
}
"""model_type, as the format has it: class, and options that differ from the defaults."""


def make(model_type: str, modality: str = "RGB", num_class: Any = (5, 7), **options: Any) -> TSN:
    """A small model with random weights: four segments, ResNet-18, five classes and seven."""
    return copy.deepcopy(_make(model_type, modality, num_class, **options))


@functools.cache
def _make(model_type: str, modality: str, num_class: Any, **options: Any) -> TSN:
    kind, own_options = VARIANTS[model_type]
    options = {"base_model": "resnet18", "dropout": 0.4, **own_options, **options}
    if modality != "RGB":
        options.setdefault("new_length", 2)
    return randomised(kind(num_class, 4, modality, pretrained=None, **options))


def outputs(model: TSN) -> list[Tensor]:
    """What a model makes of a fixed clip: a tensor for each task."""
    channels = (
        model.num_segments * model.frames_per_snippet * (2 if model.modality == "Flow" else 3)
    )
    inputs = torch.randn(1, channels, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result = model(inputs)
    return list(result) if isinstance(result, tuple) else [result]


def assert_same(model: TSN, other: TSN) -> None:
    """Two models give the same outputs and would be built alike."""
    assert get_config(model) == get_config(other)
    for ours, theirs in zip(outputs(model), outputs(other), strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def training_options(**options: Any) -> Namespace:
    """An `args` with the kinds of values that published files hold."""
    return Namespace(
        **{
            "flow_length": 2,
            "dropout": 0.4,
            "learning_rate": np.float64(1e-3),
            "batch_size": np.int64(64),
            "partial_bn": np.bool_(True),
            "run": np.str_("günther"),
            "train_list": Path("/data/train.pkl"),
            "lr_steps": [20, 40],
            "crop": (224, Path("crops")),
            "resume": None,
            **options,
        }
    )


def original(model: TSN, model_type: str, /, **entries: Any) -> dict[str, Any]:
    """The original's dictionary for a model, and nothing that this project adds.

    An entry given as None is left out.
    """
    config = get_config(model)
    names = {
        "tsn": ("consensus_type",),
        "trn": ("img_feature_dim",),
        "mtrn": ("img_feature_dim",),
        "tsm": ("shift_place", "shift_div", "temporal_pool", "non_local"),
        "tsm-nl": ("shift_place", "shift_div", "temporal_pool", "non_local"),
    }[model_type]
    contents = {
        "model_type": model_type,
        "epoch": 80,
        "segment_count": config.num_segments,
        "modality": config.modality,
        "state_dict": model.state_dict(),
        "arch": config.arch,
        "args": training_options(),
        **{name: getattr(config, name) for name in names},
        **entries,
    }
    return {name: value for name, value in contents.items() if value is not None}


def prefixed(state: Mapping[str, Tensor]) -> "OrderedDict[str, Tensor]":
    """Weights as a model that was wrapped in DataParallel saves them."""
    return OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())


def write(contents: Any, path: Path, *, legacy: bool = True, device: str = "cpu") -> Path:
    """Write a file as `torch.save` does, legacy as the original's by default.

    Args:
        contents: what to write.
        path: where.
        legacy: which serialisation.
        device: where the file claims that its tensors were.
    """
    with mock.patch("torch.serialization.location_tag", return_value=device):
        torch.save(contents, path, _use_new_zipfile_serialization=not legacy)
    assert is_legacy(path) == legacy
    return path


def write_renamed(contents: Any, path: Path, old: str, new: str) -> Path:
    """Write a legacy file in which a global has another name, as other versions write it."""
    buffer = io.BytesIO()
    torch.save(contents, buffer, _use_new_zipfile_serialization=False)
    old_bytes, new_bytes = (f"c{name}\n".encode() for name in (old, new))
    assert old_bytes in buffer.getvalue(), f"{old!r} is not in the file"
    path.write_bytes(buffer.getvalue().replace(old_bytes, new_bytes))
    return path


def is_legacy(path: Path) -> bool:
    """Whether a file has the serialisation of PyTorch before 1.6."""
    return find_format(path) == "legacy"


class Global:
    """Pickles as a call of any function or class, without calling it now."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


WINDOWS_PATH = Global(pathlib.WindowsPath, "C:\\", "data")
