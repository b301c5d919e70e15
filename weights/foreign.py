"""Checkpoints of other projects, under this project's names.

    TSN, TRN, MIT-TSM releases    {epoch, arch, state_dict, best_prec1[, optimizer]}, or the weights
                                  alone: `base_model.*`, `new_fc.*`, TRN's `consensus.*`
    EPIC-KITCHENS-100 C1          a file of Lightning: `hyper_parameters`, and `state_dict` with
                                  names `model.*`; one head for verbs and nouns

Sources: tsn-pytorch, TRN-pytorch (arXiv:1711.08496), temporal-shift-module (arXiv:1811.08383), and
the models of "Rescaling Egocentric Vision" (arXiv:2006.13256).

What a release does not record is read off its weights where they tell: the backbone, the modality,
the places of the shift, the segments of a TRN. They do not tell the segments of a TSN or TSM, nor
`shift_div`, which is taken to be 8, nor that a BN-Inception shifts at all: without
`hyper_parameters`, it is read as a TSN.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from weights.architecture import (
    backbone_of,
    kind_of_model,
    matrix,
    modality_of,
    relation_of,
    shift_of,
)
from weights.entries import agreed_segments, flag, number, text, weights_of, whole_number
from weights.files import CheckpointError
from weights.hyper_parameters import entry, preprocessing_of
from weights.settings import ModelSettings
from weights.wording import names_of

__all__ = ["is_foreign", "understand_foreign"]

_VERBS, _NOUNS = 97, 300
"""Classes of EPIC-KITCHENS-100; C1 has one head for both, verbs first."""
_HEADS = re.compile(
    r"(?:new_fc|base_model\.(?:fc|last_linear)|consensus\.classifier\.\d+"
    r"|consensus\.fc_fusion_scales\.\d+\.\d+)\."
)
_OWN_HEADS = ("fc_verb.", "fc_noun.", "consensus.classifiers.", "consensus.pre_classifier.")
_RENAMED = {
    "trn": (
        (re.compile(r"consensus\.classifier\.1\."), "consensus.pre_classifier.1."),
        (re.compile(r"consensus\.classifier\.3\."), "consensus.classifiers.0."),
    ),
    "mtrn": (
        (re.compile(r"consensus\.fc_fusion_scales\.(\d+)\.3\."), r"consensus.classifiers.\1.0."),
    ),
}
_HEADS_OF = {
    "tsn": r"(new_fc)\.",
    "tsm": r"(new_fc)\.",
    "trn": r"(consensus\.classifiers\.)0\.",
    "mtrn": r"(consensus\.classifiers\.\d+\.)0\.",
}
"""Names of the heads for the first task, or the only one."""
_PROJECTS = {"tsn": "TSN", "trn": "TRN", "mtrn": "TRN", "tsm": "TSM"}


def is_foreign(contents: Mapping[Any, Any]) -> bool:
    """Whether a dictionary has the layout of another project's checkpoint.

    Args:
        contents: a dictionary with the entry `state_dict`.
    """
    weights = contents.get("state_dict")
    if not isinstance(weights, Mapping):
        return False
    if "hyper_parameters" in contents:
        return True
    names = [str(name).removeprefix("module.") for name in weights]
    return (
        any(name.startswith("base_model.") for name in names)
        and any(_HEADS.match(name) for name in names)
        and not any(name.startswith(_OWN_HEADS) for name in names)
    )


def understand_foreign(
    contents: Mapping[Any, Any], num_segments: int | None = None
) -> tuple[ModelSettings, dict[str, Tensor], tuple[str, ...]]:
    """Understand the checkpoint of another project.

    Args:
        contents: what `is_foreign` accepts, in plain values.
        num_segments: T, for a file that does not tell it.

    Returns:
        What to build, the weights under the model's own names, and what was renamed, split, left
        out or assumed, a sentence each.

    Raises:
        UnknownSegmentsError: (a CheckpointError) if neither the file nor the caller tells T.
        CheckpointError: if the file holds something else, or a model that cannot be built here.
    """
    report: list[str] = []
    state = weights_of(contents["state_dict"], report)
    tree = contents.get("hyper_parameters")
    if tree is None:
        return _release(contents.get("arch"), state, num_segments, report)
    left_out = [
        name
        for name in contents
        if name not in ("state_dict", "hyper_parameters", "epoch", "optimizer")
    ]
    if left_out:
        report.append(f"left out Lightning's entries {names_of(left_out)}")
    return _lightning(tree, state, num_segments, report)


def _release(
    arch: Any, state: dict[str, Tensor], num_segments: int | None, report: list[str]
) -> tuple[ModelSettings, dict[str, Tensor], tuple[str, ...]]:
    """A TSN, TRN or TSM release: nearly everything is read off the weights."""
    state, dropout = _without_last_layer(state, report)
    kind = kind_of_model(state)
    report.insert(0, f"took the file as a release of the {_PROJECTS[kind]} project, by its names")
    segments, width = relation_of(kind, state)
    if segments is not None:
        report.append(f"read {segments} segments off the widths of the relation")
    modality, new_length = modality_of(state, report)
    shift = shift_of(state, report) if kind == "tsm" else {}
    if kind == "tsm":
        report.append("took shift_div as 8, which the file does not record")
    arch = backbone_of(state, None if arch is None else text("arch", arch), report)
    state = _renamed(kind, state, report)
    settings = ModelSettings(
        model_type=kind,
        num_class=_classes(kind, state),
        num_segments=agreed_segments(segments, num_segments),
        modality=modality,
        arch=arch,
        new_length=new_length,
        dropout=dropout,
        img_feature_dim=width,
        classifier_pairing="per-scale" if kind == "mtrn" else "published",
        **shift,
    )
    return settings, state, tuple(report)


def _lightning(
    tree: Any, state: dict[str, Tensor], num_segments: int | None, report: list[str]
) -> tuple[ModelSettings, dict[str, Tensor], tuple[str, ...]]:
    """A file of EPIC-KITCHENS-100's C1: what its hyper-parameters say, checked by its weights."""
    kind = text("model.type", entry(tree, "model.type")).lower()
    if kind not in _PROJECTS:
        raise CheckpointError(
            f"hyper_parameters: model.type must be TSN, TRN, MTRN or TSM, "
            f"got {entry(tree, 'model.type')!r}"
        )
    report.insert(0, f"took the file as an EPIC-KITCHENS-100 C1 {kind.upper()} of Lightning")
    state, _ = _without_last_layer(_of_model(state, report), report)
    arch = backbone_of(state, text("model.backbone", entry(tree, "model.backbone")), report)
    found = kind_of_model(state)
    if found != kind and not (kind == "tsm" and arch == "BNInception"):
        raise CheckpointError(
            f"hyper_parameters say model.type {kind.upper()}, but the weights have the names of "
            f"a {found.upper()}"
        )
    segments = whole_number("data.frame_count", entry(tree, "data.frame_count"))
    of_weights, width = relation_of(kind, state)
    if of_weights not in (None, segments):
        raise CheckpointError(
            f"hyper_parameters say {segments} segments (data.frame_count), but the relation's "
            f"weights are for {of_weights}"
        )
    shift = _lightning_shift(tree, arch, state, report) if kind == "tsm" else {}
    state = _renamed(kind, state, report)
    classes: int | tuple[int, int] = _classes(kind, state)
    if classes == _VERBS + _NOUNS:
        state = _split(kind, state, report)
        classes = (_VERBS, _NOUNS)
    else:
        report.append(
            f"left the head whole: it has {classes} classes, not {_VERBS} verbs and {_NOUNS} nouns"
        )
    settings = ModelSettings(
        model_type=kind,
        num_class=classes,
        num_segments=agreed_segments(segments, num_segments),
        modality=text("modality", entry(tree, "modality")),
        arch=arch,
        new_length=whole_number("data.segment_length", entry(tree, "data.segment_length")),
        dropout=number("model.dropout", entry(tree, "model.dropout")),
        img_feature_dim=width,
        classifier_pairing="per-scale" if kind == "mtrn" else "published",
        preprocessing=preprocessing_of(tree, report),
        **shift,
    )
    return settings, state, tuple(report)


def _of_model(state: Mapping[str, Tensor], report: list[str]) -> dict[str, Tensor]:
    """The weights of the network among those of a Lightning module, without its prefix."""
    prefix = "model."
    others = [name for name in state if not name.startswith(prefix)]
    if len(others) == len(state):
        raise CheckpointError(f"no weight's name starts with {prefix!r}, got {names_of(others)}")
    if others:
        report.append(f"left out weights that are not the model's: {names_of(others)}")
    report.append(f"removed the prefix {prefix!r} from {len(state) - len(others)} names")
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _lightning_shift(
    tree: Any, arch: str, state: Mapping[str, Tensor], report: list[str]
) -> dict[str, Any]:
    """Options of C1's shift network, whose hyper-parameters must not contradict its weights."""
    # A BN-Inception leaves no trace of its shift, and has one place for it.
    shift = {"shift_place": "block"} if arch == "BNInception" else shift_of(state, report)
    for name in ("non_local", "temporal_pool"):
        said = flag(f"model.{name}", entry(tree, f"model.{name}", False))
        if said != shift.get(name, False):
            raise CheckpointError(
                f"hyper_parameters say {name}={said}, but the weights' names say otherwise"
            )
    shift_div = whole_number("model.shift_div", entry(tree, "model.shift_div", 8))
    return {**shift, "shift_div": shift_div}


def _without_last_layer(
    state: Mapping[str, Tensor], report: list[str]
) -> tuple[dict[str, Tensor], float | None]:
    """The weights without the image network's classifier, and the dropout that this tells.

    A model without dropout has its only head there. [1, C] batch norms lose their first axis.
    """
    last = re.compile(r"base_model\.(?:fc|last_linear)\.")
    extra = [name for name in state if last.match(name)]
    dropout = None
    if "new_fc.weight" in state:
        kept = {name: tensor for name, tensor in state.items() if name not in extra}
        if extra:
            report.append(f"left out the image network's own classifier: {names_of(extra)}")
    else:
        kept = {last.sub("new_fc.", name): tensor for name, tensor in state.items()}
        if extra:
            dropout = 0.0
            report.append(f"renamed {names_of(extra)} to new_fc: the model has no dropout")
    flat = {
        name: tensor[0]
        for name, tensor in kept.items()
        if name.startswith("base_model.") and tensor.ndim == 2 and len(tensor) == 1
    }
    if flat:
        report.append(f"squeezed {len(flat)} tensors of batch norms from [1, C] to [C]")
    return {**kept, **flat}, dropout


def _renamed(kind: str, state: Mapping[str, Tensor], report: list[str]) -> dict[str, Tensor]:
    """The weights with the head of a relation under this project's names."""
    renamed = dict(state)
    for pattern, name in _RENAMED.get(kind, ()):
        old = [key for key in renamed if pattern.match(key)]
        renamed = {pattern.sub(name, key): tensor for key, tensor in renamed.items()}
        if old:
            new = pattern.sub(name, old[0]).rpartition(".")[0]
            report.append(f"renamed {len(old)} weights like {old[0].rpartition('.')[0]} to {new}")
    return renamed


def _classes(kind: str, state: Mapping[str, Tensor]) -> int:
    """Number of classes, from the shape of the head."""
    heads = {"trn": "consensus.classifiers.0", "mtrn": "consensus.classifiers.0.0"}
    return len(matrix(state, f"{heads.get(kind, 'new_fc')}.weight"))


def _split(kind: str, state: Mapping[str, Tensor], report: list[str]) -> dict[str, Tensor]:
    """The weights with C1's heads for 397 classes as one for verbs and one for nouns each."""
    head = re.compile(_HEADS_OF[kind])
    divided: dict[str, Tensor] = {}
    count = 0
    for name, tensor in state.items():
        match = head.match(name)
        if match is None or tensor.shape[:1] != (_VERBS + _NOUNS,):
            divided[name] = tensor
            continue
        tasks = ("fc_verb", "fc_noun") if match[1] == "new_fc" else (f"{match[1]}0", f"{match[1]}1")
        leaf = name[match.end() :]
        for task, part in zip(tasks, tensor.split((_VERBS, _NOUNS)), strict=True):
            divided[f"{task}.{leaf}"] = part
        count += leaf == "weight"
    report.append(
        f"split {count} head{'s' * (count != 1)} of {_VERBS + _NOUNS} classes into {_VERBS} verbs "
        f"and {_NOUNS} nouns"
    )
    return divided
