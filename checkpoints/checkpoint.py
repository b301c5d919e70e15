"""Checkpoints: what a file says of its model, and the format in which models are written.

The documented format is a dictionary written by `torch.save`:

    model_type      "tsn", "trn", "mtrn", "tsm" or "tsm-nl" (TSM with non-local blocks)
    epoch           number of the last epoch, or None
    segment_count   T
    modality        "RGB", "Flow" or "RGBDiff"
    arch            name of the backbone
    state_dict      the weights
    args            argparse.Namespace of the training options; flow_length and dropout are read
    consensus_type  tsn
    img_feature_dim trn, mtrn
    shift_place, shift_div, temporal_pool, non_local    tsm
    optimizer       optional

and, optionally, what version 1 of this library adds: `format_version`, `new_length`, `dropout`,
`before_softmax`, `shift_every`, `classifier_pairing` and `preprocessing`. Class counts are read
from the weights.

Older files are understood as well: an `img_feature_dim` that only `args` holds, model_type "tsn"
with consensus_type "TRN" or "TRNMultiscale", and "tsm" with `non_local`. So are weights alone, and
checkpoints of other projects, which `checkpoints.foreign` lists. In any of them, names may have the
prefixes of wrappers (`checkpoints.entries.clean_state_dict`), and the weights may lie under another
usual name in the place of `state_dict`: those of `_WEIGHTS`.
"""

import os
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from checkpoints.architecture import class_counts, input_channels
from checkpoints.entries import (
    UnknownSegmentsError,
    agreed_segments,
    clean_state_dict,
    flag,
    number,
    numbers,
    text,
    whole_number,
)
from checkpoints.files import CheckpointError
from checkpoints.foreign import understand_foreign
from checkpoints.formats import read_any
from checkpoints.plain import plain_values
from checkpoints.settings import MODEL_TYPES, ModelConfig
from checkpoints.wording import key_text, kind_of, names_of, shown
from data.preprocessing import Preprocessing

__all__ = [
    "MODEL_TYPES",
    "Checkpoint",
    "ModelConfig",
    "UnknownSegmentsError",
    "parse_checkpoint",
    "read_checkpoint",
    "require_plain",
    "to_dictionary",
]

_FORMAT_VERSION = 1
_WEIGHTS = (
    *("model_state_dict", "model", "module", "net", "weights"),
    *("ema", "ema_state_dict", "state_dict_ema"),
)
"""Names that the entry `state_dict` has in files of other programs, the likeliest first."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, understood.

    Attributes:
        settings: what to build.
        state_dict: the weights, under the model's own names.
        epoch: number of the last epoch, where the file tells.
        args: training options as plain values, empty where the file has none.
        optimizer: state of the optimiser, where the file has one.
        report: what was renamed or read otherwise than the file says it, a sentence each.
        contents: the dictionary as the file holds it; empty where there is no file.
    """

    settings: ModelConfig
    state_dict: dict[str, Tensor]
    epoch: int | None = None
    args: dict[str, Any] = field(default_factory=dict)
    optimizer: Any = None
    report: tuple[str, ...] = ()
    contents: Mapping[Any, Any] = field(default_factory=dict, repr=False)


def read_checkpoint(
    path: str | os.PathLike[str], *, num_segments: int | None = None, trust: bool = False
) -> Checkpoint:
    """Read and understand a checkpoint file.

    Args:
        path: the file.
        num_segments: as for `parse_checkpoint`.
        trust: as for `read_any`.

    Returns:
        The checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        UnknownSegmentsError: (a CheckpointError) if neither the file nor the caller tells T.
        CheckpointError: if the file is no checkpoint or not a known one.
    """
    contents = read_any(path, trust=trust)
    try:
        return parse_checkpoint(contents, num_segments=num_segments)
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error


def parse_checkpoint(contents: Any, *, num_segments: int | None = None) -> Checkpoint:
    """Understand what `read_any` returned.

    Args:
        contents: the object in the file.
        num_segments: T, for a file that does not record it, or to build a TSN or TSM for another
            number than the file records.

    Returns:
        The checkpoint.

    Raises:
        UnknownSegmentsError: (a CheckpointError) if neither the file nor the caller tells T.
        CheckpointError: if this is neither the documented format nor a known project's, or if it
            holds a TRN or MTRN of another number of segments.
    """
    report: list[str] = []
    contents = _with_state_dict(contents, report)
    if isinstance(contents, nn.Module):
        raise CheckpointError(
            f"a whole model ({kind_of(contents)}), not a checkpoint: read it with "
            f"torch.load(path, weights_only=False), and write it with save_checkpoint(model, path)"
        )
    if not isinstance(contents, Mapping) or "state_dict" not in contents:
        held = f" with {names_of(contents)}" if isinstance(contents, Mapping) and contents else ""
        raise CheckpointError(
            f"not a checkpoint, nor weights alone: expected a dictionary with state_dict, got "
            f"{kind_of(contents)}{held}"
        )
    if "model_type" not in contents:
        return _foreign(contents, num_segments, report)
    state = clean_state_dict(contents["state_dict"], report, strict=True)
    args = _plain_args(contents.get("args"))
    settings = _settings(contents, args, state, num_segments, report)
    version = contents.get("format_version")
    if version is not None and whole_number("format_version", version) != _FORMAT_VERSION:
        report.append(
            f"read format_version {shown(version)} as {_FORMAT_VERSION}, the one known here"
        )
    epoch = contents.get("epoch")
    return Checkpoint(
        settings=settings,
        state_dict=state,
        epoch=None if epoch is None else whole_number("epoch", epoch),
        args=args,
        optimizer=contents.get("optimizer"),
        report=tuple(report),
        contents=contents,
    )


def _with_state_dict(contents: Any, report: list[str]) -> Any:
    """Return what a file holds with its weights under `state_dict`, where they lie elsewhere."""
    if not isinstance(contents, Mapping) or "state_dict" in contents:
        return contents
    if _holds_weights(contents):
        return {"state_dict": contents}
    found = [name for name in _WEIGHTS if _holds_weights(contents.get(name))]
    if not found:
        return contents
    others = f", not from {', '.join(found[1:])}" if found[1:] else ""
    report.append(f"took the weights from the entry {found[0]!r}{others}")
    rest = {name: value for name, value in contents.items() if name != found[0]}
    return {"state_dict": contents[found[0]], **rest}


def _holds_weights(entry: Any) -> bool:
    """Whether this is a dictionary of tensors and nothing else."""
    return (
        isinstance(entry, Mapping)
        and bool(entry)
        and all(isinstance(value, Tensor) for value in entry.values())
    )


def _foreign(
    contents: Mapping[Any, Any], num_segments: int | None, report: list[str]
) -> Checkpoint:
    """A checkpoint that is not in the documented format, under this project's names."""
    weights = ("state_dict", "optimizer", "optimizer_states")
    contents = {
        name: value if name in weights else plain_values(value) for name, value in contents.items()
    }
    settings, state = understand_foreign(contents, num_segments, report)
    epoch = contents.get("epoch")
    return Checkpoint(
        settings=settings,
        state_dict=state,
        epoch=None if epoch is None else whole_number("epoch", epoch),
        optimizer=contents.get("optimizer"),
        report=tuple(report),
        contents=contents,
    )


def _plain_args(args: Any) -> dict[str, Any]:
    """Training options, whether a file holds them as a Namespace or as a dictionary."""
    if isinstance(args, Namespace):
        args = vars(args)
    if not isinstance(args, Mapping):
        return {}
    options = plain_values(args)
    return {key_text(name): value for name, value in options.items()}


_PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes, Namespace, Tensor,
                torch.Size, torch.dtype, torch.device)  # fmt: skip


def require_plain(name: str, value: Any) -> None:
    """Refuse to write what `read_any` would refuse to read.

    Args:
        name: what to call the value.
        value: in plain dictionaries and lists.

    Raises:
        ValueError: if it holds anything but plain values and dense tensors.
    """
    waiting, seen = [(name, value)], set()
    while waiting:
        place, item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            waiting += [(f"{place}[{shown(key)}]", part) for key, part in item.items()]
        elif type(item) in (list, tuple, set):
            waiting += [(f"an item of {place}", part) for part in item]
        elif type(item) not in _PLAIN_TYPES or (
            isinstance(item, Tensor) and (item.layout != torch.strided or item.is_quantized)
        ):
            raise ValueError(
                f"{place} must be a plain value (a number, a string, a path, a list or dictionary "
                f"of these), which can be read without running code, got {shown(item)}"
            )


def _settings(
    contents: Mapping[str, Any],
    args: Mapping[str, Any],
    state: Mapping[str, Tensor],
    num_segments: int | None,
    report: list[str],
) -> ModelConfig:
    """What the file says of its model, checked against its weights where they tell."""

    def entry(name: str, default: Any = None) -> Any:
        """A value of the file: its own entry, or else the training option of that name."""
        value = contents.get(name)
        value = args.get(name) if value is None else value
        return default if value is None else value

    def required(name: str) -> Any:
        if contents.get(name) is None:
            raise CheckpointError(f"the entry {name!r} is missing, got {names_of(contents)}")
        return contents[name]

    model_type = text("model_type", required("model_type")).lower()
    consensus = text("consensus_type", entry("consensus_type", "avg"))
    non_local = flag("non_local", entry("non_local", False))
    if model_type == "tsm-nl":
        model_type, non_local = "tsm", True
    elif model_type == "tsn" and consensus.lower() in ("trn", "trnmultiscale"):
        model_type = "trn" if consensus.lower() == "trn" else "mtrn"
        report.append(f"took model_type 'tsn' with consensus_type {consensus!r} as {model_type!r}")
    elif model_type == "tsm" and non_local:
        report.append("took model_type 'tsm' with non_local as 'tsm-nl'")
    if model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"model_type must be one of {(*MODEL_TYPES, 'tsm-nl')}, got "
            f"{shown(contents['model_type'])}"
        )
    recorded = contents.get("segment_count")
    segments = agreed_segments(
        None if recorded is None else whole_number("segment_count", recorded),
        num_segments,
        model_type,
        report,
    )
    modality = text("modality", required("modality"))
    preprocessing = contents.get("preprocessing")
    dropout = entry("dropout")
    relational = model_type in ("trn", "mtrn")
    shifting = model_type == "tsm"
    if relational and contents.get("img_feature_dim") is None and "img_feature_dim" in args:
        report.append("took img_feature_dim from the training options")
    return ModelConfig(
        model_type=model_type,
        num_class=class_counts(model_type, state),
        num_segments=segments,
        modality=modality,
        arch=text("arch", required("arch")),
        new_length=_new_length(modality, entry("new_length", args.get("flow_length")), state),
        dropout=None if dropout is None else number("dropout", dropout),
        before_softmax=flag("before_softmax", contents.get("before_softmax", True)),
        consensus_type="avg" if relational else consensus,
        img_feature_dim=whole_number(
            "img_feature_dim", entry("img_feature_dim", 256) if relational else 256
        ),
        classifier_pairing=text(
            "classifier_pairing", contents.get("classifier_pairing", "published")
        ),
        shift_div=whole_number("shift_div", entry("shift_div", 8) if shifting else 8),
        shift_place=text("shift_place", entry("shift_place", "blockres"))
        if shifting
        else "blockres",
        shift_every=whole_number("shift_every", contents.get("shift_every", 1)),
        temporal_pool=shifting and flag("temporal_pool", entry("temporal_pool", False)),
        non_local=non_local and shifting,
        preprocessing=None if preprocessing is None else _preprocessing(preprocessing),
    )


def _preprocessing(entry: Any) -> Preprocessing:
    """The preprocessing that a file records."""
    place = "preprocessing"
    names = [field.name for field in fields(Preprocessing)]
    if not isinstance(entry, Mapping) or set(entry) != set(names):
        found = names_of(entry) if isinstance(entry, Mapping) else kind_of(entry)
        raise CheckpointError(f"{place} must have the entries {', '.join(names)}, got {found}")
    mean, std, low_high = (
        numbers(f"{place}.{name}", entry[name]) for name in ("mean", "std", "input_range")
    )
    try:
        return Preprocessing(
            mean=mean,
            std=std,
            input_space=text(f"{place}.input_space", entry["input_space"]),
            input_range=(low_high[0], low_high[-1]),
            input_size=whole_number(f"{place}.input_size", entry["input_size"]),
            scale_size=whole_number(f"{place}.scale_size", entry["scale_size"]),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{place} makes no sense: {error}") from error


def _new_length(modality: str, recorded: Any, state: Mapping[str, Tensor]) -> int:
    """Frames of a snippet: what the file records, or what the first convolution takes."""
    if modality.lower() == "rgb":
        return 1
    if recorded is not None:
        return whole_number("flow_length", recorded)
    channels = input_channels(state)
    if not channels:
        raise CheckpointError("the weights have no convolution")
    return channels // (2 if modality.lower() == "flow" else 3)


def to_dictionary(checkpoint: Checkpoint) -> dict[str, Any]:
    """The documented format, as this module's docstring lists it.

    What the original reads stands where the original expects it: `args` always is a Namespace
    with `flow_length` and `dropout`. Paths and NumPy scalars in it become plain values.

    Args:
        checkpoint: what to write.

    Returns:
        A dictionary for `write_any`.

    Raises:
        ValueError: if `checkpoint.args` holds something that could not be read without running
            code, such as a function.
    """
    settings = checkpoint.settings
    args = Namespace()
    vars(args).update(_plain_args(checkpoint.args))
    require_plain("args", vars(args))
    # For RGB nobody reads it: what was recorded stays.
    if settings.modality.lower() != "rgb" or "flow_length" not in args:
        args.flow_length = settings.new_length
    if settings.dropout is not None:
        args.dropout = settings.dropout
    contents: dict[str, Any] = {
        "format_version": _FORMAT_VERSION,
        "model_type": "tsm-nl" if settings.non_local else settings.model_type,
        "epoch": checkpoint.epoch,
        "segment_count": settings.num_segments,
        "modality": settings.modality,
        "arch": settings.arch,
        "args": args,
        "new_length": settings.new_length,
        "before_softmax": settings.before_softmax,
        "state_dict": OrderedDict(checkpoint.state_dict),
    }
    if settings.dropout is not None:
        contents["dropout"] = settings.dropout
    if settings.model_type in ("tsn", "tsm"):
        contents["consensus_type"] = settings.consensus_type
    if settings.model_type in ("trn", "mtrn"):
        contents["img_feature_dim"] = settings.img_feature_dim
    if settings.model_type == "mtrn":
        contents["classifier_pairing"] = settings.classifier_pairing
    if settings.model_type == "tsm":
        for name in ("shift_div", "shift_place", "shift_every", "temporal_pool", "non_local"):
            contents[name] = getattr(settings, name)
    if settings.preprocessing is not None:
        contents["preprocessing"] = asdict(settings.preprocessing)
    if checkpoint.optimizer is not None:
        contents["optimizer"] = checkpoint.optimizer
    return contents
