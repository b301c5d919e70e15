"""Models from checkpoint files, and checkpoint files from models.

The format is documented in `checkpoints.documented`; those of other projects in
`checkpoints.releases`, `checkpoints.online_tsm`, `checkpoints.c1` and `checkpoints.mmaction`.

Differences from the original:
    - No code from a file runs, and no weight is initialised that the file then overwrites.
    - Class counts come from the weights, and preprocessing travels with them.
"""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from checkpoints.checkpoint import read_checkpoint
from checkpoints.config import MODEL_OPTIONS, Checkpoint, ModelConfig
from checkpoints.documented import to_dictionary
from checkpoints.errors import CheckpointError, key_to_str, show
from checkpoints.files import write_file
from checkpoints.values import to_plain
from data.options import class_counts, positive_integer
from ops.backbones import canonical_name
from ops.loading import init_empty
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

__all__ = [
    "MODELS",
    "build_from_checkpoint",
    "build_model",
    "get_config",
    "load_checkpoint",
    "read_documented",
    "save_checkpoint",
]

MODELS: dict[str, type[TSN]] = {"tsn": TSN, "trn": TRN, "mtrn": MTRN, "tsm": TSM}
"""Class of each type of model."""


def build_model(config: ModelConfig) -> TSN:
    """Build the model that a config describes, with fresh weights.

    Args:
        config: what to build.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: if the options contradict each other.
    """
    if config.model_type not in MODELS:
        raise ValueError(
            f"model_type must be one of {tuple(MODEL_OPTIONS)}, got {config.model_type!r}"
        )
    options: dict[str, Any] = {
        name: getattr(config, name) for name in MODEL_OPTIONS[config.model_type]
    }
    if config.dropout is not None:
        options["dropout"] = config.dropout
    model = MODELS[config.model_type](
        config.num_class,
        config.num_segments,
        config.modality,
        base_model=config.arch,
        new_length=config.new_length,
        before_softmax=config.before_softmax,
        partial_bn=config.partial_bn,
        pretrained=None,
        **options,
    )
    if config.preprocessing is not None:
        model.preprocessing = config.preprocessing
    model.class_names = config.class_names
    return model


def get_config(model: TSN) -> ModelConfig:
    """Return the config with which `build_model` builds such a model.

    Args:
        model: a TSN, TRN, MTRN or TSM.
    """
    model_type = model.variant.lower()
    options = {
        name: getattr(model, name) for name in MODEL_OPTIONS[model_type] if hasattr(model, name)
    }
    return ModelConfig(
        model_type=model_type,
        num_class=model.num_class,
        num_segments=model.num_segments,
        modality=model.modality,
        arch=model.arch,
        new_length=model.new_length,
        dropout=model.dropout,
        before_softmax=model.before_softmax,
        partial_bn=model.partial_bn,
        preprocessing=model.preprocessing,
        class_names=model.class_names,
        **options,
    )


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    num_segments: int | None = None,
    num_class: int | Sequence[int] | None = None,
    trust: bool = False,
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
        >>> torch.hub.load(".", "load_checkpoint", path, num_class=10, source="local").num_class
        10

    Args:
        path: a file in the format of `checkpoints.documented`, of the TSN, TRN, TSM, mmaction2 and
            EPIC-KITCHENS-100 C1 projects or of Lightning, or the weights alone, in either
            serialisation of torch or as safetensors. Which one it is shows in what it holds; its
            name does not matter.
        num_segments: T, for a file that does not record it: a TSN or TSM release, or its weights
            alone. A TSN or TSM whose file records another number is built anew for this one, since
            its weights do not depend on T; a TRN's or MTRN's do. `temporal_pool` needs an even one.
        num_class: number of classes, or a pair (verbs, nouns), of one's own: where the file has
            other counts, everything but the heads is loaded, and the heads start anew.
        trust: whether the file may run any code while it is read: only for files whose writer you
            trust as much as a program.

    Returns:
        The model in evaluation mode. Its attribute `load_report` says what was renamed, split,
        left out or assumed, one message per change.

    Raises:
        FileNotFoundError: if there is no such file.
        checkpoints.errors.CheckpointError: (a ValueError) if the file is not a checkpoint, could
            run code, holds weights that do not fit what it says of itself, or holds a TRN or MTRN
            of another `num_segments`.
        ValueError: for a number of segments or classes that cannot be.
    """
    counts = None if num_class is None else class_counts(num_class)
    return build_from_checkpoint(_read(path, num_segments, trust), path, counts)


def _read(path: str | os.PathLike[str], num_segments: int | None, trust: bool) -> Checkpoint:
    """Read a checkpoint file, after a check of what the caller says of it."""
    if num_segments is not None:
        num_segments = positive_integer("num_segments", num_segments)
    return read_checkpoint(path, num_segments=num_segments, trust=trust)


def build_from_checkpoint(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    num_class: int | tuple[int, int] | None = None,
) -> TSN:
    """Build the model of a checkpoint, which is not to be used any more.

    Args:
        checkpoint: as `checkpoints.checkpoint.read_checkpoint` returns it.
        path: where it comes from, for messages.
        num_class: as for `load_checkpoint`.

    Returns:
        The model in evaluation mode, as `load_checkpoint` returns it.

    Raises:
        checkpoints.errors.CheckpointError: if it describes a model that cannot be, or its weights
            do not fit.
    """
    config = checkpoint.config
    try:
        canonical_name(config.arch)  # may import pretrainedmodels, whose modules need memory
        with init_empty():  # the file has the weights
            model = build_model(
                replace(config, num_class=num_class or config.num_class, class_names=None)
            )
    except ValueError as error:
        raise CheckpointError(f"{path} describes a model that cannot be: {error}") from error
    model.load_weights(checkpoint, source=str(path))
    return model.eval()


def read_documented(
    path: str | os.PathLike[str], *, num_segments: int | None = None, trust: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Read a checkpoint file of any kind as a dictionary in the documented format.

    Args:
        path: as for `load_checkpoint`.
        num_segments: as for `load_checkpoint`.
        trust: as for `load_checkpoint`.

    Returns:
        The dictionary, with all other entries of the file and weights in its precision, and what
        differs from the file, one message per change. Nothing in it needs trust to be read.

    Raises:
        FileNotFoundError: if there is no such file.
        checkpoints.errors.CheckpointError: if `load_checkpoint` does not load the file.
    """
    checkpoint = _read(path, num_segments, trust)
    config = get_config(build_from_checkpoint(checkpoint, path))
    documented = to_dictionary(replace(checkpoint, config=config))
    changes = [
        *checkpoint.report,
        *_differences("entries", checkpoint.contents, documented),
        *_differences("training options", checkpoint.args, vars(documented["args"])),
    ]
    contents = {**checkpoint.contents, **documented}
    for name in [name for name in contents if name != "state_dict"]:
        try:
            contents[name] = to_plain(contents[name], key_to_str(name))
        except ValueError as error:
            del contents[name]
            changes.append(f"left out the entry {key_to_str(name)}: {error}")
    return contents, changes


def _differences(what: str, old: Mapping[Any, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what was added to a dictionary, and which plain values were changed."""
    added = ", ".join(name for name in new if name not in old)
    differences = [f"added the {what} {added}"] if added else []
    for name, value in new.items():
        if name not in old or not isinstance(value, str | int | float):
            continue
        same = isinstance(old[name], str | int | float) and old[name] == value
        if not same and show(old[name]) != show(value):
            differences.append(f"changed {name} from {show(old[name])} to {show(value)}")
    return differences


def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    epoch: int | None = None,
    args: Mapping[str, Any] | Namespace | None = None,
    optimizer: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
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
            `.safetensors` it gets that format, which the original does not read, and which holds no
            optimiser.
        epoch: number of the last epoch.
        args: training options to record: plain values, paths and NumPy scalars.
        optimizer: `state_dict()` of the optimiser to record.
        training: what else a training goes on from: plain values and tensors. `read_documented`
            returns it under this name.
        legacy: write the serialisation that PyTorch before 1.6 reads.

    Returns:
        The path.

    Raises:
        ValueError: if the model is of another kind or `inference_only`, if an option could not be
            read without running code, or if `legacy`, an optimiser, `training` or an option that
            JSON cannot hold is wanted of a safetensors file.
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
        config=get_config(inner),
        # From the CPU, so that machines without that accelerator can read the file.
        state_dict={name: tensor.cpu() for name, tensor in inner.state_dict().items()},
        epoch=None if epoch is None else int(epoch),
        args=vars(args) if isinstance(args, Namespace) else dict(args or {}),
        optimizer=None if optimizer is None else dict(optimizer),
        training=None if training is None else dict(training),
    )
    return write_file(to_dictionary(checkpoint), path, legacy=legacy)
