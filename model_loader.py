"""Models from checkpoint files, and checkpoint files from models.

The format is documented in `checkpoints.checkpoint`, those of other projects in
`checkpoints.foreign`.

Differences from the original:
    - No code from a file runs, and no weight is initialised that the file then overwrites.
    - Class counts come from the weights, and preprocessing travels with them.
"""

import logging
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from checkpoints.assign import init_empty, load_weights
from checkpoints.checkpoint import (
    MODEL_TYPES,
    Checkpoint,
    ModelConfig,
    read_checkpoint,
    require_plain,
    to_dictionary,
)
from checkpoints.files import CheckpointError
from checkpoints.formats import format_for, write_any
from checkpoints.plain import plain_values
from checkpoints.wording import key_text
from data.options import positive_integer
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

__all__ = ["build_model", "get_config", "load_checkpoint", "read_documented", "save_checkpoint"]

_logger = logging.getLogger(__name__)

_CLASSES: dict[str, type[TSN]] = {"tsn": TSN, "trn": TRN, "mtrn": MTRN, "tsm": TSM}
_OPTIONS = {
    "tsn": ("consensus_type",),
    "trn": ("img_feature_dim",),
    "mtrn": ("img_feature_dim", "classifier_pairing"),
    "tsm": (
        "consensus_type",
        "shift_div",
        "shift_place",
        "shift_every",
        "temporal_pool",
        "non_local",
    ),
}
"""Options that a model type has beyond those that all have."""


def build_model(settings: ModelConfig) -> TSN:
    """Build the model that settings describe, with fresh weights.

    Args:
        settings: what to build.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: if the settings contradict each other.
    """
    if settings.model_type not in _CLASSES:
        raise ValueError(f"model_type must be one of {MODEL_TYPES}, got {settings.model_type!r}")
    options: dict[str, Any] = {
        name: getattr(settings, name) for name in _OPTIONS[settings.model_type]
    }
    if settings.dropout is not None:
        options["dropout"] = settings.dropout
    model = _CLASSES[settings.model_type](
        settings.num_class,
        settings.num_segments,
        settings.modality,
        base_model=settings.arch,
        new_length=settings.new_length,
        before_softmax=settings.before_softmax,
        pretrained=None,
        **options,
    )
    if settings.preprocessing is not None:
        model.preprocessing = settings.preprocessing
    return model


def get_config(model: TSN) -> ModelConfig:
    """The settings with which `build_model` builds such a model.

    Args:
        model: a TSN, TRN, MTRN or TSM.

    Returns:
        Its settings.
    """
    model_type = model.variant.lower()
    options = {name: getattr(model, name) for name in _OPTIONS[model_type] if hasattr(model, name)}
    return ModelConfig(
        model_type=model_type,
        num_class=model.num_class,
        num_segments=model.num_segments,
        modality=model.modality,
        arch=model.arch,
        new_length=model.new_length,
        dropout=model.dropout,
        before_softmax=model.before_softmax,
        preprocessing=model.preprocessing,
        **options,
    )


def load_checkpoint(
    path: str | os.PathLike[str], *, num_segments: int | None = None, trust: bool = False
) -> TSN:
    """Load a model from a checkpoint file.

    No network is needed, no code from the file is run, and whatever device the weights were saved
    from, they arrive on the CPU.

    Example:
        >>> import tempfile
        >>> import torch
        >>> model = torch.hub.load(
        ...     ".", "TSN", (125, 352), 8, "RGB", base_model="resnet18", pretrained=None,
        ...     source="local",
        ... )
        >>> path = f"{tempfile.mkdtemp()}/tsn.pth.tar"
        >>> path = torch.hub.load(".", "save_checkpoint", model, path, source="local")
        >>> torch.hub.load(".", "load_checkpoint", path, source="local").num_class
        (125, 352)

    Args:
        path: a file in the format of `checkpoints.checkpoint`, of the TSN, TRN, TSM and
            EPIC-KITCHENS-100 C1 projects or of Lightning, or the weights alone, in either
            serialisation of torch or as safetensors. Which one it is shows in what it holds; its
            name does not matter.
        num_segments: T, for a file that does not record it: a TSN or TSM release, or its weights
            alone. A TSN or TSM whose file records another number is built anew for this one, since
            its weights do not depend on T; a TRN's or MTRN's do. `temporal_pool` needs an even one.
        trust: whether the file may run any code while it is read: only for files whose writer you
            trust as much as a program.

    Returns:
        The model in evaluation mode. Its attribute `load_report` says what was renamed, split,
        left out or assumed, one message per change.

    Raises:
        FileNotFoundError: if there is no such file.
        checkpoints.files.CheckpointError: (a ValueError) if the file is not a checkpoint, could
            run code, holds weights that do not fit what it says of itself, or holds a TRN or MTRN
            of another `num_segments`.
    """
    return _model_of(_read(path, num_segments, trust), path)


def _read(path: str | os.PathLike[str], num_segments: int | None, trust: bool) -> Checkpoint:
    """Read a checkpoint file, after a check of what the caller says of it."""
    if num_segments is not None:
        num_segments = positive_integer("num_segments", num_segments)
    return read_checkpoint(path, num_segments=num_segments, trust=trust)


def _model_of(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> TSN:
    """The model of a checkpoint, in evaluation mode, with its weights where they are."""
    try:
        with init_empty():  # which the file has
            model = build_model(checkpoint.settings)
    except ValueError as error:
        raise CheckpointError(f"{path} describes a model that cannot be: {error}") from error
    load_weights(model, checkpoint.state_dict, source=str(path))
    model.load_report = checkpoint.report
    return model.eval()


def read_documented(
    path: str | os.PathLike[str], *, num_segments: int | None = None, trust: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The dictionary in a checkpoint file of any kind, in the documented format.

    Args:
        path: as for `load_checkpoint`.
        num_segments: as for `load_checkpoint`.
        trust: as for `load_checkpoint`.

    Returns:
        The dictionary, with all other entries of the file and weights in its precision, and what
        differs from the file, a sentence each. Nothing in it needs trust to be read.

    Raises:
        FileNotFoundError: if there is no such file.
        checkpoints.files.CheckpointError: if `load_checkpoint` does not load the file.
    """
    checkpoint = _read(path, num_segments, trust)
    settings = get_config(_model_of(checkpoint, path))
    documented = to_dictionary(replace(checkpoint, settings=settings))
    changes = [
        *checkpoint.report,
        *_differences("entries", checkpoint.contents, documented),
        *_differences("training options", checkpoint.args, vars(documented["args"])),
    ]
    contents = {**checkpoint.contents, **documented}
    for name in [name for name in contents if name != "state_dict"]:
        contents[name] = plain_values(contents[name])
        try:
            require_plain(key_text(name), contents[name])
        except ValueError as error:
            del contents[name]
            changes.append(f"left out the entry {key_text(name)}: {error}")
    return contents, changes


def _differences(what: str, old: Mapping[Any, Any], new: Mapping[str, Any]) -> list[str]:
    """What was added to a dictionary, and which plain values were changed."""
    added = ", ".join(name for name in new if name not in old)
    differences = [f"added the {what} {added}"] if added else []
    for name, value in new.items():
        if name in old and isinstance(value, str | int | float) and old[name] != value:
            differences.append(f"changed {name} from {old[name]!r} to {value!r}")
    return differences


def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    epoch: int | None = None,
    args: Mapping[str, Any] | Namespace | None = None,
    optimizer: Mapping[str, Any] | None = None,
    legacy: bool = False,
) -> Path:
    """Write a model to a checkpoint file that `load_checkpoint` reads, and the original too.

    Example:
        >>> import tempfile
        >>> import torch
        >>> model = torch.hub.load(
        ...     ".", "TSN", (125, 352), 8, "RGB", base_model="resnet18", pretrained=None,
        ...     source="local",
        ... )
        >>> path = f"{tempfile.mkdtemp()}/tsn.pth.tar"
        >>> torch.hub.load(".", "save_checkpoint", model, path, epoch=1, source="local").name
        'tsn.pth.tar'

    Args:
        model: a TSN, TRN, MTRN or TSM, or one wrapped in DataParallel, DistributedDataParallel,
            AveragedModel or by torch.compile.
        path: destination; an existing file is replaced, at once and whole. With the suffix
            `.safetensors` it gets that format, which the original does not read.
        epoch: number of the last epoch.
        args: training options to record: plain values, paths and NumPy scalars.
        optimizer: `state_dict()` of the optimiser to record.
        legacy: write the serialisation that PyTorch before 1.6 reads.

    Returns:
        The path.

    Raises:
        ValueError: if the model is of another kind or `inference_only`, if an option could not be
            read without running code, or if `legacy` is wanted of a safetensors file.
        FileNotFoundError: if the folder does not exist.
        ModuleNotFoundError: if the package safetensors is needed and not installed.
    """
    inner: Any = model
    # Not isinstance: a model from torch.hub is of the same class in another package.
    while not hasattr(type(inner), "inference_only"):
        wrapped = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
        if not isinstance(wrapped, nn.Module):
            raise ValueError(f"model must be a TSN, TRN, MTRN or TSM, got {type(inner).__name__}")
        inner = wrapped
    if inner.inference_only:
        raise ValueError(
            "model must not be optimised for inference, which leaves no batch norms to save: save "
            "the one that it was made from"
        )
    if optimizer is not None and not isinstance(optimizer, Mapping):
        raise ValueError(f"optimizer must be its state_dict(), got {type(optimizer).__name__}")
    checkpoint = Checkpoint(
        settings=get_config(inner),
        # From the CPU, so that machines without that accelerator can read the file.
        state_dict={name: tensor.cpu() for name, tensor in inner.state_dict().items()},
        epoch=None if epoch is None else int(epoch),
        args=vars(args) if isinstance(args, Namespace) else dict(args or {}),
        optimizer=None if optimizer is None else dict(optimizer),
    )
    path = Path(path)
    left_out = write_any(to_dictionary(checkpoint), path, format_for(path, legacy=legacy))
    for sentence in left_out:
        _logger.warning("%s: %s", path, sentence)
    return path
