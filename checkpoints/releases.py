"""Weights of which no documented file says what they are for, this library's own among them.

    weights alone                 `model.state_dict()` of the models here
    TSN, TRN, MIT-TSM releases    {epoch, arch, state_dict, best_prec1[, optimizer]}, or the weights
                                  alone: `base_model.*`, `new_fc.*`, TRN's `consensus.*`
    files of Lightning            as the weights alone: their `hyper_parameters` are not read

Sources: tsn-pytorch, TRN-pytorch (arXiv:1711.08496) and temporal-shift-module (arXiv:1811.08383).

Backbone, modality, places of the shift and the segments of a TRN are read off the weights, which do
not tell the segments of a TSN or TSM. What else they do not tell is assumed, and reported.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from checkpoints.architecture import (
    infer_modality,
    infer_model_type,
    infer_num_class,
    infer_relation,
)
from checkpoints.config import ModelConfig
from checkpoints.converter import Converter, find_names
from checkpoints.errors import CheckpointError, list_names

__all__ = ["ReleaseConverter"]

_UNREADABLE = (
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


class ReleaseConverter(Converter):
    """Reads the releases of TSN, TRN and TSM, and weights alone."""

    read = frozenset({"state_dict", "arch", "epoch", "optimizer"})
    """Entries that are read; what Lightning writes beside them is reported as left out."""
    shift_direction: ClassVar[str] = "both"
    """Direction of a shift, which no weights tell."""

    @staticmethod
    def matches(contents: Mapping[Any, Any]) -> bool:
        """Return True: this is what is left."""
        return True

    def config(self) -> ModelConfig:
        """Return what the weights tell of their model, which may have TRN's names."""
        dropout, renamed = self.clean()
        model_type = infer_model_type(self.state)
        self.report.append(f"took the model as a {model_type.upper()}, by the names of its weights")
        segments, width = infer_relation(model_type, self.state)
        if segments is not None:
            self.report.append(f"read {segments} segments off the widths of the relation")
        modality, new_length = infer_modality(self.state)
        if modality != "RGB":
            self.report.append(
                f"read modality {modality} with new_length {new_length} off the first convolution"
            )
        shift = self.shift() if model_type == "tsm" else {}
        arch = self.backbone(self.fields.str("arch", None))
        per_scale = model_type == "mtrn" and renamed
        self.report_assumed(
            [
                f"the usual preprocessing of {arch}",
                *["consensus_type 'avg'"] * (model_type in ("tsn", "tsm")),
                *["shift_div 8", f"shift_direction {self.shift_direction!r}"]
                * (model_type == "tsm"),
                *["classifier_pairing 'published'"] * (model_type == "mtrn" and not per_scale),
                *["no temporal shift"] * (model_type == "tsn" and arch == "BNInception"),
            ]
        )
        return ModelConfig(
            model_type=model_type,
            num_class=infer_num_class(model_type, self.state),
            num_segments=self.segments(segments, model_type),
            modality=modality,
            arch=arch,
            new_length=new_length,
            dropout=dropout,
            img_feature_dim=width,
            classifier_pairing="per-scale" if per_scale else "published",
            shift_direction=self.shift_direction,
            **shift,
        )

    def clean(self) -> tuple[float | None, bool]:
        """Leave in `state` what a model here holds, under its names.

        Returns:
            The dropout, where the names tell it, and whether a relation had TRN's names.
        """
        self._require_readable()
        lightning = {"hyper_parameters", "pytorch-lightning_version"} & self.contents.keys()
        if lightning and (left_out := self.contents.keys() - self.read):
            self.report.append(f"left out Lightning's entries {list_names(left_out)}")
        dropout = self._drop_last_layer()
        self._squeeze_batch_norms()
        renamed = [
            self.rename(r"consensus\.classifier\.1\.", "consensus.pre_classifier.1."),
            self.rename(r"consensus\.classifier\.3\.", "consensus.classifiers.0."),
            self.rename(r"consensus\.fc_fusion_scales\.(\d+)\.3\.", r"consensus.classifiers.\1.0."),
        ]
        return dropout, any(renamed)

    def _require_readable(self) -> None:
        """Refuse weights that are not those of the models here, by the layout that they have."""
        for pattern, layout, reason in _UNREADABLE:
            for name in find_names(self.state, pattern)[:1]:
                match = re.match(pattern, name)
                raise CheckpointError(
                    f"the names of the weights (such as {match and match[0]}) are those of "
                    f"{layout}: {reason}"
                )
        if not find_names(self.state, r"base_model\."):
            raise CheckpointError(
                "the file does not say which model it is for: expected model_type, segment_count, "
                "modality and arch beside state_dict, or weights with the names of a TSN, TRN, "
                "MTRN or TSM (base_model.* and new_fc.*, fc_verb.* or consensus.*), got "
                f"{list_names(self.state)}"
            )

    def _drop_last_layer(self) -> float | None:
        """Drop the backbone's classifier; a model without dropout has its only head there."""
        last = r"base_model\.(?:fc|last_linear|classifier)\."
        extra = find_names(self.state, last)
        if not extra:
            return None
        if "new_fc.weight" in self.state:
            self.state = {k: tensor for k, tensor in self.state.items() if k not in extra}
            self.report.append(f"left out the backbone's own classifier: {list_names(extra)}")
            return None
        self.state = {re.sub(last, "new_fc.", k): tensor for k, tensor in self.state.items()}
        self.report.append(f"renamed {list_names(extra)} to new_fc: the model has no dropout")
        return 0.0

    def _squeeze_batch_norms(self) -> None:
        """Squeeze batch norms of [1, C], as the first versions of PyTorch had them, to [C]."""
        flat = {
            name: tensor[0]
            for name, tensor in self.state.items()
            if name.startswith("base_model.") and tensor.ndim == 2 and len(tensor) == 1
        }
        if flat:
            self.state |= flat
            self.report.append(f"squeezed {len(flat)} tensors of batch norms from [1, C] to [C]")
