"""Weights of which no documented file says what they are for, this library's own among them.

    weights alone                 `model.state_dict()` of the models here
    TSN, TRN, MIT-TSM releases    {epoch, arch, state_dict, best_prec1[, optimizer]}, or the weights
                                  alone: `base_model.*`, `new_fc.*`, TRN's `consensus.*`
    EPIC-KITCHENS-100 C1          a file of Lightning: `hyper_parameters`, and `state_dict`; one
                                  head for verbs and nouns
    other files of Lightning      as the weights alone: their `hyper_parameters` are not read

Sources: tsn-pytorch, TRN-pytorch (arXiv:1711.08496), temporal-shift-module (arXiv:1811.08383), and
the models of "Rescaling Egocentric Vision" (arXiv:2006.13256).

What is not recorded is read off the weights where they tell: the backbone, the modality, the places
of the shift, the segments of a TRN. They do not tell the segments of a TSN or TSM. What else they
do not tell is assumed, and reported: `shift_div` 8, consensus "avg", the published pairing of this
library's MTRN, the backbone's usual preprocessing, and that a BN-Inception does not shift.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from checkpoints.architecture import (
    class_counts,
    infer_backbone,
    infer_modality,
    infer_model_type,
    infer_relation,
    infer_shift,
)
from checkpoints.entries import (
    agreed_segments,
    clean_state_dict,
    flag,
    number,
    text,
    whole_number,
)
from checkpoints.files import CheckpointError
from checkpoints.hyper_parameters import entry, is_c1, preprocessing_of
from checkpoints.settings import MODEL_TYPES, ModelConfig
from checkpoints.wording import names_of

__all__ = ["understand_foreign"]

_VERBS, _NOUNS = 97, 300
"""Classes of EPIC-KITCHENS-100; C1 has one head for both, verbs first."""
_RENAMED = (
    (re.compile(r"consensus\.classifier\.1\."), "consensus.pre_classifier.1."),
    (re.compile(r"consensus\.classifier\.3\."), "consensus.classifiers.0."),
    (re.compile(r"consensus\.fc_fusion_scales\.(\d+)\.3\."), r"consensus.classifiers.\1.0."),
)
"""Names in TRN's relations, and here."""
_HEADS_OF = {
    "tsn": r"(new_fc)\.",
    "tsm": r"(new_fc)\.",
    "trn": r"(consensus\.classifiers\.)0\.",
    "mtrn": r"(consensus\.classifiers\.\d+\.)0\.",
}
"""Names of the heads for the first task, or the only one."""
_UNREADABLE = (
    (
        r"cls_head\.|backbone\.layer\d\.\d+\.conv\d\.conv\.",
        "an mmaction2 checkpoint",
        "its names and heads are not converted here; MMAction2 itself loads it",
    ),
    (
        r"(?:base_model\.)?features\.\d+\.conv\.0\.(?:net\.)?weight",
        "a MobileNetV2, as MIT's TSM has it",
        "this backbone is not built here",
    ),
    (
        r"(?!base_model\.)(?:[^.]+\.)+base_model\.",
        "a model that is part of another module",
        "remove what stands in front of base_model, or save the model's own state_dict()",
    ),
    (
        r"(?:fc|last_linear|classifier|heads?(?:\.head)?)(?:\.\d+)?\.weight$",
        "an image classifier",
        "it has no heads for clips; models start from ImageNet with pretrained='imagenet'",
    ),
)
"""Layouts that are not read: a name that only they have, what they are, and what to do."""


def understand_foreign(
    contents: Mapping[Any, Any], num_segments: int | None, report: list[str]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Understand weights of which no documented file says what they are for.

    Args:
        contents: a dictionary with the entry `state_dict`, in plain values.
        num_segments: T, as for `checkpoints.checkpoint.parse_checkpoint`.
        report: what was renamed, split, left out or assumed is added here, one message per change.

    Returns:
        What to build, and the weights under the model's own names.

    Raises:
        UnknownSegmentsError: (a CheckpointError) if neither the file nor the caller tells T.
        CheckpointError: if the file holds something else, or a model that cannot be built here.
    """
    state = clean_state_dict(contents["state_dict"], report)
    _require_readable(state)
    tree = contents.get("hyper_parameters")
    read = {"state_dict", "arch", "epoch", "optimizer", *["hyper_parameters"] * is_c1(tree)}
    of_lightning = tree is not None or "pytorch-lightning_version" in contents
    if of_lightning and (left_out := contents.keys() - read):
        report.append(f"left out Lightning's entries {names_of(left_out)}")
    state, dropout = _without_last_layer(state, report)
    names = state.keys()
    state = _renamed(state, report)
    if is_c1(tree):
        return _convert_c1(tree, state, num_segments, report)
    settings = _infer_settings(
        contents.get("arch"), state, num_segments, report, trn_names=state.keys() != names
    )
    return replace(settings, dropout=dropout), state


def _require_readable(state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of the models here, by the layout that they have."""
    for pattern, layout, reason in _UNREADABLE:
        for name in state:
            if match := re.match(pattern, name):
                raise CheckpointError(
                    f"the names of the weights (such as {match[0]}) are those of {layout}: {reason}"
                )
    if not any(name.startswith("base_model.") for name in state):
        raise CheckpointError(
            "the file does not say which model it is for: expected model_type, segment_count, "
            "modality and arch beside state_dict, or weights with the names of a TSN, TRN, MTRN or "
            f"TSM (base_model.* and new_fc.*, fc_verb.* or consensus.*), got {names_of(state)}"
        )


def _infer_settings(
    arch: Any,
    state: Mapping[str, Tensor],
    num_segments: int | None,
    report: list[str],
    *,
    trn_names: bool,
) -> ModelConfig:
    """Return what the weights tell of their model, which may have had TRN's names."""
    kind = infer_model_type(state)
    report.append(f"took the model as a {kind.upper()}, by the names of its weights")
    segments, width = infer_relation(kind, state)
    if segments is not None:
        report.append(f"read {segments} segments off the widths of the relation")
    modality, new_length = infer_modality(state, report)
    shift = infer_shift(state, report) if kind == "tsm" else {}
    arch = infer_backbone(state, None if arch is None else text("arch", arch), report)
    pairing = "per-scale" if kind == "mtrn" and trn_names else "published"
    assumed = [f"the usual preprocessing of {arch}"]
    if kind in ("tsn", "tsm"):
        assumed.append("consensus_type 'avg'")
    if kind == "tsm":
        assumed.append("shift_div 8")
    if kind == "mtrn" and not trn_names:
        assumed.append("classifier_pairing 'published'")
    if kind == "tsn" and arch == "BNInception":
        assumed.append("no temporal shift")
    _report_assumed(assumed, report)
    return ModelConfig(
        model_type=kind,
        num_class=class_counts(kind, state),
        num_segments=agreed_segments(segments, num_segments, kind, report),
        modality=modality,
        arch=arch,
        new_length=new_length,
        img_feature_dim=width,
        classifier_pairing=pairing,
        **shift,
    )


def _report_assumed(assumed: list[str], report: list[str]) -> None:
    if assumed:
        report.append(f"assumed what the file does not record: {', '.join(assumed)}")


def _convert_c1(
    tree: Any, state: dict[str, Tensor], num_segments: int | None, report: list[str]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return what C1's hyper-parameters say, checked by the weights, and these with two heads."""
    assumed: list[str] = []
    found = infer_model_type(state)
    model_type = text("model.type", entry(tree, "model.type", found.upper(), assumed))
    kind = model_type.lower()
    if kind not in MODEL_TYPES:
        raise CheckpointError(
            f"hyper_parameters: model.type must be TSN, TRN, MTRN or TSM, got {model_type!r}"
        )
    report.append(f"took the file as an EPIC-KITCHENS-100 C1 {kind.upper()}")
    recorded = entry(tree, "model.backbone", None)
    arch = infer_backbone(
        state, None if recorded is None else text("model.backbone", recorded), report
    )
    if found != kind and not (kind == "tsm" and arch == "BNInception"):
        raise CheckpointError(
            f"hyper_parameters say model.type {kind.upper()}, but the weights have the names of "
            f"a {found.upper()}"
        )
    of_weights, width = infer_relation(kind, state)
    segments = entry(tree, "data.frame_count", of_weights)
    if segments is not None:
        segments = whole_number("data.frame_count", segments)
    if of_weights not in (None, segments):
        raise CheckpointError(
            f"hyper_parameters say {segments} segments (data.frame_count), but the relation's "
            f"weights are for {of_weights}"
        )
    shift = _c1_shift(tree, arch, state, report, assumed) if kind == "tsm" else {}
    classes = class_counts(kind, state)
    if classes == _VERBS + _NOUNS:
        state = _split(kind, state, report)
        classes = (_VERBS, _NOUNS)
    else:
        report.append(
            f"left the head whole: it has {classes} classes, not {_VERBS} verbs and {_NOUNS} nouns"
        )
    modality, new_length = infer_modality(state, [])
    settings = ModelConfig(
        model_type=kind,
        num_class=classes,
        num_segments=agreed_segments(segments, num_segments, kind, report),
        modality=text("modality", entry(tree, "modality", modality, assumed)),
        arch=arch,
        new_length=whole_number(
            "data.segment_length", entry(tree, "data.segment_length", new_length, assumed)
        ),
        dropout=number("model.dropout", entry(tree, "model.dropout", 0.7, assumed)),
        img_feature_dim=width,
        classifier_pairing="per-scale" if kind == "mtrn" else "published",
        preprocessing=preprocessing_of(tree, report, assumed),
        **shift,
    )
    _report_assumed(assumed, report)
    return settings, state


def _c1_shift(
    tree: Any, arch: str, state: Mapping[str, Tensor], report: list[str], assumed: list[str]
) -> dict[str, Any]:
    """Options of C1's shift network, whose hyper-parameters must not contradict its weights."""
    # A BN-Inception leaves no trace of its shift, and has one place for it.
    shift = {"shift_place": "block"} if arch == "BNInception" else infer_shift(state, report)
    for name in ("non_local", "temporal_pool"):
        found = shift.get(name, False)
        said = flag(f"model.{name}", entry(tree, f"model.{name}", found))
        if said != found:
            raise CheckpointError(
                f"hyper_parameters say {name}={said}, but the weights' names say otherwise"
            )
    shift_div = entry(tree, "model.shift_div", 8, assumed)
    return {**shift, "shift_div": whole_number("model.shift_div", shift_div)}


def _without_last_layer(
    state: Mapping[str, Tensor], report: list[str]
) -> tuple[dict[str, Tensor], float | None]:
    """The weights without the backbone's classifier, and the dropout that this tells.

    A model without dropout has its only head there. [1, C] batch norms lose their first axis.
    """
    last = re.compile(r"base_model\.(?:fc|last_linear|classifier)\.")
    extra = [name for name in state if last.match(name)]
    dropout = None
    if "new_fc.weight" in state:
        kept = {name: tensor for name, tensor in state.items() if name not in extra}
        if extra:
            report.append(f"left out the backbone's own classifier: {names_of(extra)}")
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


def _renamed(state: Mapping[str, Tensor], report: list[str]) -> dict[str, Tensor]:
    """The weights with the head of a relation under this project's names."""
    renamed = dict(state)
    for pattern, name in _RENAMED:
        old = [key for key in renamed if pattern.match(key)]
        renamed = {pattern.sub(name, key): tensor for key, tensor in renamed.items()}
        if old:
            new = pattern.sub(name, old[0]).rpartition(".")[0]
            report.append(f"renamed {len(old)} weights like {old[0].rpartition('.')[0]} to {new}")
    return renamed


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
