"""Files of EPIC-KITCHENS-100's C1 models: Lightning's, with a tree of hyper-parameters.

One head holds the classes of verbs and nouns, and is split. What is of training is not read.

Source: the models of "Rescaling Egocentric Vision" (arXiv:2006.13256).
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from checkpoints.architecture import (
    infer_modality,
    infer_model_type,
    infer_num_class,
    infer_relation,
)
from checkpoints.config import MODEL_OPTIONS, ModelConfig
from checkpoints.converter import make_preprocessing
from checkpoints.errors import CheckpointError
from checkpoints.fields import Fields
from checkpoints.releases import ReleaseConverter
from data.preprocessing import Preprocessing

__all__ = ["C1Converter"]

_VERBS, _NOUNS = 97, 300
"""Classes of EPIC-KITCHENS-100; C1 has one head for both, verbs first."""
_PREPROCESSING = "data.preprocessing"


def _tree(contents: Mapping[Any, Any]) -> Fields:
    return Fields(contents.get("hyper_parameters"), "hyper_parameters: ")


class C1Converter(ReleaseConverter):
    """Reads files of EPIC-KITCHENS-100's C1."""

    read = ReleaseConverter.read | {"hyper_parameters"}

    @staticmethod
    def matches(contents: Mapping[Any, Any]) -> bool:
        """Return whether hyper-parameters are those of C1, rather than some other program's."""
        known = (_PREPROCESSING, "data.frame_count", "data.segment_length", "model.backbone")
        return any(_tree(contents).get(name) is not None for name in known)

    def config(self) -> ModelConfig:
        """Return what the hyper-parameters say, checked by the weights."""
        tree = self.tree = _tree(self.contents)
        self.clean()
        found = infer_model_type(self.state)
        model_type = tree.str("model.type", found.upper()).lower()
        if model_type not in MODEL_OPTIONS:
            raise CheckpointError(
                f"hyper_parameters: model.type must be TSN, TRN, MTRN or TSM, got "
                f"{tree.get('model.type')!r}"
            )
        self.report.append(f"took the file as an EPIC-KITCHENS-100 C1 {model_type.upper()}")
        arch = self.backbone(tree.str("model.backbone", None))
        if found != model_type and not (model_type == "tsm" and arch == "BNInception"):
            raise CheckpointError(
                f"hyper_parameters say model.type {model_type.upper()}, but the weights have the "
                f"names of a {found.upper()}"
            )
        of_weights, width = infer_relation(model_type, self.state)
        segments = tree.int("data.frame_count", None)
        if of_weights is None or segments is None:
            segments = segments or of_weights
        elif segments != of_weights:
            raise CheckpointError(
                f"hyper_parameters say {segments} segments (data.frame_count), but the relation's "
                f"weights are for {of_weights}"
            )
        shift = self._checked_shift(arch) if model_type == "tsm" else {}
        self._split_heads(model_type)
        modality, new_length = infer_modality(self.state)
        config = ModelConfig(
            model_type=model_type,
            num_class=infer_num_class(model_type, self.state),
            num_segments=self.segments(segments, model_type),
            modality=tree.str("modality", modality),
            arch=arch,
            new_length=tree.int("data.segment_length", new_length),
            dropout=tree.float("model.dropout", 0.7),
            img_feature_dim=width,
            classifier_pairing="per-scale" if model_type == "mtrn" else "published",
            preprocessing=self._preprocessing(),
            **shift,
        )
        self.report_assumed(tree.assumed)
        return config

    def _checked_shift(self, arch: str) -> dict[str, Any]:
        """Return the options of a shift network, whose weights must not contradict the file."""
        # A BN-Inception leaves no trace of its shift, and has one place for it.
        shift = {"shift_place": "block"} if arch == "BNInception" else self.shift()
        for name in ("non_local", "temporal_pool"):
            found = shift.get(name, False)
            said = self.tree.bool(f"model.{name}", None)
            if said not in (None, found):
                raise CheckpointError(
                    f"hyper_parameters say {name}={said}, but the weights' names say otherwise"
                )
        return {**shift, "shift_div": self.tree.int("model.shift_div", 8)}

    def _split_heads(self, model_type: str) -> None:
        """Split each head of 397 classes into one for verbs and one for nouns."""
        classes = infer_num_class(model_type, self.state)
        if classes != _VERBS + _NOUNS:
            self.report.append(
                f"left the head whole: it has {classes} classes, not {_VERBS} verbs and {_NOUNS} "
                f"nouns"
            )
            return
        relational = model_type in ("trn", "mtrn")
        head = r"(consensus\.classifiers\.(?:\d+\.)?)0\.(?=\w+$)" if relational else r"(new_fc\.)"
        state: dict[str, Tensor] = {}
        for name, tensor in self.state.items():
            match = re.match(head, name)
            if match is None or tensor.shape[:1] != (_VERBS + _NOUNS,):
                state[name] = tensor
                continue
            tasks = (f"{match[1]}0.", f"{match[1]}1.") if relational else ("fc_verb.", "fc_noun.")
            parts = tensor.split((_VERBS, _NOUNS))
            state |= {t + name[match.end() :]: p for t, p in zip(tasks, parts, strict=True)}
        count = (len(state) - len(self.state)) // 2  # each has a weight and a bias
        self.state = state
        self.report.append(
            f"split {count} head{'s' * (count != 1)} of {_VERBS + _NOUNS} classes into {_VERBS} "
            f"verbs and {_NOUNS} nouns"
        )

    def _preprocessing(self) -> Preprocessing:
        """Return the input that the weights were trained with.

        For RGB, C1's std equals its mean. That looks like a slip, but is what its networks know.
        """
        tree, place = self.tree, _PREPROCESSING
        mean = tree.floats(f"{place}.mean")
        std = tree.floats(f"{place}.std")
        bgr = tree.bool(f"{place}.bgr", False)
        rescale = tree.bool(f"{place}.rescale", max(mean) <= 1)
        preprocessing = make_preprocessing(
            f"hyper_parameters: {place}",
            mean=mean,
            std=std,
            input_space="BGR" if bgr else "RGB",
            input_range=(0.0, 1.0 if rescale else 255.0),
            input_size=tree.int(f"{place}.input_size", 224),
            scale_size=tree.int(f"{place}.scale_size", 256),
        )
        self.report.append(
            f"took the preprocessing from the file: mean {preprocessing.mean}, std "
            f"{preprocessing.std}"
        )
        return preprocessing
