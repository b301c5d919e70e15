"""Checkpoints: what a file says of its model, and the format in which models are written.

The documented format is a dictionary written by `torch.save`:

    model_type      "tsn", "trn", "mtrn", "tsm" or "tsm-nl" (TSM with non-local blocks)
    epoch           number of the last epoch, or None
    segment_count   T
    modality        "RGB", "Flow" or "RGBDiff"
    arch            name of the image network
    state_dict      the weights
    args            argparse.Namespace of the training options; flow_length and dropout are read
    consensus_type  tsn
    img_feature_dim trn, mtrn
    shift_place, shift_div, temporal_pool, non_local    tsm
    optimizer       optional

and, optionally, what version 1 of this library adds: `format_version`, `new_length`, `dropout`,
`before_softmax`, `shift_every`, `classifier_pairing` and `preprocessing`. Class counts are read
from the weights.

Older files are understood as well: keys prefixed with `module.`, an `img_feature_dim` that only
`args` holds, model_type "tsn" with consensus_type "TRN" or "TRNMultiscale", and "tsm" with
`non_local`.
"""

import os
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from weights.files import CheckpointError, read_file
from weights.preprocessing import Preprocessing

__all__ = [
    "MODEL_TYPES",
    "Checkpoint",
    "ModelSettings",
    "assign_weights",
    "parse_checkpoint",
    "read_checkpoint",
    "to_dictionary",
]

MODEL_TYPES = ("tsn", "trn", "mtrn", "tsm")
_FORMAT_VERSION = 1
_SHOWN = 5
"""How many names an error lists before it says how many more there are."""


@dataclass(frozen=True)
class ModelSettings:
    """What it takes to build a model, apart from its weights; names as in the constructors.

    `model_type` is one of `MODEL_TYPES`; options of other model types keep their defaults.
    `dropout` and `preprocessing` are None where a file does not tell: the model's own hold then.
    """

    model_type: str
    num_class: int | tuple[int, int]
    num_segments: int
    modality: str
    arch: str
    new_length: int
    dropout: float | None = None
    before_softmax: bool = True
    consensus_type: str = "avg"
    img_feature_dim: int = 256
    classifier_pairing: str = "published"
    shift_div: int = 8
    shift_place: str = "blockres"
    shift_every: int = 1
    temporal_pool: bool = False
    non_local: bool = False
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, understood.

    Attributes:
        settings: what to build.
        state_dict: the weights, under the model's own names.
        epoch: number of the last epoch, where the file tells.
        args: training options as plain values, empty where the file has none.
        optimizer: state of the optimiser, where the file has one.
        report: what was renamed or left out while reading, a sentence each.
    """

    settings: ModelSettings
    state_dict: dict[str, Tensor]
    epoch: int | None = None
    args: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    report: tuple[str, ...] = ()


def read_checkpoint(
    path: str | os.PathLike[str], *, num_segments: int | None = None, trust: bool = False
) -> Checkpoint:
    """Read and understand a checkpoint file.

    Args:
        path: the file.
        num_segments: T, for a file that does not record it.
        trust: as for `read_file`.

    Returns:
        The checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is no checkpoint or not a documented one.
    """
    try:
        return parse_checkpoint(read_file(path, trust=trust), num_segments=num_segments)
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from error


def parse_checkpoint(contents: Any, *, num_segments: int | None = None) -> Checkpoint:
    """Understand what `read_file` returned.

    Args:
        contents: the object in the file.
        num_segments: T, for a file that does not record it.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: if this is not the documented format.
    """
    if not isinstance(contents, Mapping) or "state_dict" not in contents:
        held = sorted(map(str, contents)) if isinstance(contents, Mapping) else type(contents)
        raise CheckpointError(
            f"not a checkpoint: expected a dictionary with state_dict, got {held}"
        )
    if "model_type" not in contents:
        raise CheckpointError(
            f"the file does not say which model it is for: expected model_type and the other "
            f"entries of this project's format, got {sorted(map(str, contents))}"
        )
    report: list[str] = []
    state = _state_dict(contents["state_dict"], report)
    args = _plain_args(contents.get("args"))
    settings = _settings(contents, args, state, num_segments)
    epoch = contents.get("epoch")
    optimizer = contents.get("optimizer")
    return Checkpoint(
        settings=settings,
        state_dict=state,
        epoch=None if epoch is None else int(epoch),
        args=args,
        optimizer=optimizer if isinstance(optimizer, dict) else None,
        report=tuple(report),
    )


def _state_dict(weights: Any, report: list[str]) -> dict[str, Tensor]:
    """The weights under the model's own names."""
    if not isinstance(weights, Mapping) or not weights:
        raise CheckpointError(f"state_dict must be a dictionary of tensors, got {_kind(weights)}")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"state_dict must hold tensors under names, got {_kind(value)} under {name!r}"
            )
    prefix = "module."
    if all(name.startswith(prefix) for name in weights):
        report.append(f"removed the prefix {prefix!r} from all {len(weights)} names")
        return {name.removeprefix(prefix): value for name, value in weights.items()}
    return dict(weights)


def _kind(value: object) -> str:
    return f"an empty {type(value).__name__}" if value == {} else type(value).__name__


def _plain_args(args: Any) -> dict[str, Any]:
    """Training options, whether a file holds them as a Namespace or as a dictionary."""
    if isinstance(args, Namespace):
        args = vars(args)
    return {str(name): value for name, value in args.items()} if isinstance(args, Mapping) else {}


def _settings(
    contents: Mapping[str, Any],
    args: Mapping[str, Any],
    state: Mapping[str, Tensor],
    num_segments: int | None,
) -> ModelSettings:
    """What the file says of its model, checked against its weights where they tell."""

    def entry(name: str, default: Any = None) -> Any:
        """A value of the file: its own entry, or else the training option of that name."""
        value = contents.get(name)
        value = args.get(name) if value is None else value
        return default if value is None else value

    def required(name: str) -> Any:
        if contents.get(name) is None:
            raise CheckpointError(
                f"the entry {name!r} is missing, got {sorted(map(str, contents))}"
            )
        return contents[name]

    model_type = str(required("model_type")).lower()
    consensus = str(entry("consensus_type", "avg"))
    non_local = bool(entry("non_local", False))
    if model_type == "tsm-nl":
        model_type, non_local = "tsm", True
    elif model_type == "tsn":
        model_type = {"trn": "trn", "trnmultiscale": "mtrn"}.get(consensus.lower(), "tsn")
    if model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"model_type must be one of {(*MODEL_TYPES, 'tsm-nl')}, got {contents['model_type']!r}"
        )
    segments = contents.get("segment_count", num_segments)
    if segments is None:
        raise CheckpointError("the file does not record its number of segments: pass num_segments")
    if num_segments is not None and int(segments) != num_segments:
        raise CheckpointError(
            f"num_segments is only for files that do not record it: this one says {segments}, "
            f"got {num_segments}"
        )
    modality = str(required("modality"))
    preprocessing = contents.get("preprocessing")
    dropout = entry("dropout")
    relational = model_type in ("trn", "mtrn")
    shifting = model_type == "tsm"
    return ModelSettings(
        model_type=model_type,
        num_class=_class_counts(model_type, state),
        num_segments=int(segments),
        modality=modality,
        arch=str(required("arch")),
        new_length=_new_length(modality, entry("new_length", args.get("flow_length")), state),
        dropout=None if dropout is None else float(dropout),
        before_softmax=bool(contents.get("before_softmax", True)),
        consensus_type="avg" if relational else consensus,
        img_feature_dim=int(entry("img_feature_dim", 256)) if relational else 256,
        classifier_pairing=str(contents.get("classifier_pairing", "published")),
        shift_div=int(entry("shift_div", 8)) if shifting else 8,
        shift_place=str(entry("shift_place", "blockres")) if shifting else "blockres",
        shift_every=int(contents.get("shift_every", 1)),
        temporal_pool=bool(entry("temporal_pool", False)) and shifting,
        non_local=non_local and shifting,
        preprocessing=None if preprocessing is None else _preprocessing(preprocessing),
    )


def _preprocessing(entry: Any) -> Preprocessing:
    """The preprocessing that a file records."""
    try:
        values = dict(entry)
        for name in ("mean", "std", "input_range"):
            values[name] = tuple(float(value) for value in values[name])
        return Preprocessing(**values)
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"the entry 'preprocessing' makes no sense: {error}") from error


def _class_counts(model_type: str, state: Mapping[str, Tensor]) -> int | tuple[int, int]:
    """Numbers of classes, from the shapes of the heads."""
    prefix = {"trn": "consensus.classifiers.", "mtrn": "consensus.classifiers.0."}.get(model_type)
    if prefix is None:
        candidates = [("fc_verb.weight", "fc_noun.weight"), ("new_fc.weight",)]
    else:
        candidates = [(f"{prefix}0.weight", f"{prefix}1.weight"), (f"{prefix}0.weight",)]
    for names in candidates:
        if all(name in state and state[name].ndim == 2 for name in names):
            counts = tuple(state[name].shape[0] for name in names)
            return (counts[0], counts[1]) if len(counts) == 2 else counts[0]
    expected = " or ".join(" and ".join(names) for names in candidates)
    raise CheckpointError(
        f"the weights have no head that fits model_type {model_type!r}: expected {expected}"
    )


def _new_length(modality: str, recorded: Any, state: Mapping[str, Tensor]) -> int:
    """Frames of a snippet: what the file records, or what the first convolution takes."""
    if modality.lower() == "rgb":
        return 1
    if recorded is not None:
        return int(recorded)
    first = next((value for value in state.values() if value.ndim == 4), None)
    if first is None:
        raise CheckpointError("the weights have no convolution")
    return int(first.shape[1]) // (2 if modality.lower() == "flow" else 3)


def to_dictionary(checkpoint: Checkpoint) -> dict[str, Any]:
    """The documented format, as this module's docstring lists it.

    What the original reads stands where the original expects it: `args` always is a Namespace
    with `flow_length` and `dropout`.

    Args:
        checkpoint: what to write.

    Returns:
        A dictionary for `write_file`.
    """
    settings = checkpoint.settings
    args = dict(checkpoint.args)
    args["flow_length"] = settings.new_length
    if settings.dropout is not None:
        args["dropout"] = settings.dropout
    contents: dict[str, Any] = {
        "format_version": _FORMAT_VERSION,
        "model_type": "tsm-nl" if settings.non_local else settings.model_type,
        "epoch": checkpoint.epoch,
        "segment_count": settings.num_segments,
        "modality": settings.modality,
        "arch": settings.arch,
        "args": Namespace(**args),
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


def assign_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    absent: tuple[str, ...] = (),
) -> None:
    """Give a model its weights without copying them.

    Args:
        model: usually on the meta device; its parameters are replaced.
        state: weights under the model's names. Floating-point tensors of another precision are
            converted to the model's.
        source: where the weights come from, for the error.
        absent: prefixes of names that `state` need not have.

    Raises:
        CheckpointError: if names or shapes differ, with a summary of which.
    """
    wanted = model.state_dict()
    # Files written before PyTorch 0.4.1 do not count batches; batch norm starts at zero then.
    missing = [
        name
        for name in wanted
        if name not in state
        and not name.startswith(absent)
        and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in wanted]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {_summary(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the weights of {source} do not fit a {type(model).__name__} of its settings; "
            f"{'; '.join(problems)}"
        )
    converted = {}
    for name, tensor in state.items():
        dtype = wanted[name].dtype
        converted[name] = tensor if tensor.dtype == dtype else tensor.to(dtype)
    model.load_state_dict(converted, strict=False, assign=True)


def _summary(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
