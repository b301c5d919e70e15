"""Temporal relation networks: TSN whose consensus reasons over ordered segments.

Source: Zhou et al., "Temporal Relational Reasoning in Videos", 2018 (arXiv:1711.08496).

Differences from the original: see `ops.relation`.
"""

import os
from collections.abc import Sequence
from typing import cast

from torch import nn

from data.options import one_of
from ops.relation import CLASSIFIER_PAIRINGS, RELATION_SAMPLINGS, MultiScaleRelation
from tsn import TSN

__all__ = ["MTRN", "TRN"]


class TRN(TSN):
    """Single-scale temporal relation network.

    Example:
        >>> import torch
        >>> model = torch.hub.load(
        ...     ".", "TRN", (125, 352), 8, "RGB", base_model="resnet50", pretrained=None,
        ...     source="local",
        ... ).eval()
        >>> verbs, nouns = model(torch.randn(1, 8 * 3, 224, 224))
        >>> verbs.shape, nouns.shape
        (torch.Size([1, 125]), torch.Size([1, 352]))

    Published weights (`pretrained="epic-kitchens"`): 8 segments, 125 verbs and 352 nouns, with
    base_model "resnet50" or "BNInception" and modality "RGB" or "Flow".

    Paper: arXiv:1711.08496.

    Args:
        num_class: as for `tsn.TSN`, and so on for every argument but these.
        num_segments: T, whose order the relation learns.
        modality: "RGB", "Flow" or "RGBDiff".
        base_model: name of the backbone.
        new_length: L, frames of a snippet.
        before_softmax: must be true; relational heads have no scores of single segments.
        dropout: probability with which features are dropped while training.
        img_feature_dim: width to which features are reduced before they are related.
        partial_bn: freeze every 2-D batch norm of the backbone but the first.
        pretrained: "epic-kitchens", "imagenet", None, or the path of a
            checkpoint file.

    Raises:
        ValueError: as `tsn.TSN`.
    """

    def __init__(
        self,
        num_class: int | Sequence[int],
        num_segments: int,
        modality: str,
        base_model: str = "resnet50",
        new_length: int | None = None,
        before_softmax: bool = True,
        dropout: float = 0.7,
        img_feature_dim: int = 256,
        partial_bn: bool = True,
        pretrained: str | os.PathLike[str] | None = "imagenet",
    ) -> None:
        super().__init__(
            num_class,
            num_segments,
            modality,
            base_model=base_model,
            new_length=new_length,
            consensus_type="TRN",
            before_softmax=before_softmax,
            dropout=dropout,
            img_feature_dim=img_feature_dim,
            partial_bn=partial_bn,
            pretrained=pretrained,
        )


class MTRN(TSN):
    """Multi-scale temporal relation network.

    Example:
        >>> import torch
        >>> model = torch.hub.load(
        ...     ".", "MTRN", (125, 352), 8, "RGB", base_model="resnet50", pretrained=None,
        ...     source="local",
        ... ).eval()
        >>> verbs, nouns = model(torch.randn(1, 8 * 3, 224, 224))
        >>> verbs.shape, nouns.shape
        (torch.Size([1, 125]), torch.Size([1, 352]))

    Published weights: 8 segments, modality "RGB" or "Flow". `pretrained="epic-kitchens"` has 125
    verbs and 352 nouns, with base_model "resnet50" or "BNInception"; "epic-kitchens-100" has 97 and
    300, with "resnet50".

    Paper: arXiv:1711.08496.

    Args:
        num_class: as for `tsn.TSN`, and so on for every argument but these.
        num_segments: T, from 2 to 20.
        modality: "RGB", "Flow" or "RGBDiff".
        base_model: name of the backbone.
        new_length: L, frames of a snippet.
        before_softmax: must be true; relational heads have no scores of single segments.
        dropout: probability with which features are dropped while training.
        img_feature_dim: width to which features are reduced before they are related.
        partial_bn: freeze every 2-D batch norm of the backbone but the first.
        pretrained: "epic-kitchens", "epic-kitchens-100", "imagenet", None, or the path of a
            checkpoint file.
        relation_sampling: what evaluation does: "expectation" takes the exact mean over all
            relations, the same at every call; "random" draws three of each scale from torch's
            generator, as the original does. Training always draws.
        classifier_pairing: "published" pairs scales and classifiers as the published weights
            were trained, "per-scale" as the TRN, mmaction2 and EPIC-KITCHENS-100 projects do; with
            `pretrained="epic-kitchens-100"` the published weights are per-scale ones.

    Raises:
        ValueError: as `tsn.TSN`, and for fewer than two segments.
    """

    def __init__(
        self,
        num_class: int | Sequence[int],
        num_segments: int,
        modality: str,
        base_model: str = "resnet50",
        new_length: int | None = None,
        before_softmax: bool = True,
        dropout: float = 0.7,
        img_feature_dim: int = 256,
        partial_bn: bool = True,
        pretrained: str | os.PathLike[str] | None = "imagenet",
        *,
        relation_sampling: str = "expectation",
        classifier_pairing: str = "published",
    ) -> None:
        sampling = one_of("relation_sampling", relation_sampling, RELATION_SAMPLINGS)
        if classifier_pairing == "published" and pretrained == "epic-kitchens-100":
            classifier_pairing = "per-scale"
        # Wanted while the base class builds the network.
        self._pairing = one_of("classifier_pairing", classifier_pairing, CLASSIFIER_PAIRINGS)
        super().__init__(
            num_class,
            num_segments,
            modality,
            base_model=base_model,
            new_length=new_length,
            consensus_type="TRNMultiscale",
            before_softmax=before_softmax,
            dropout=dropout,
            img_feature_dim=img_feature_dim,
            partial_bn=partial_bn,
            pretrained=pretrained,
        )
        self.relation_sampling = sampling

    @property
    def relation_sampling(self) -> str:
        """What evaluation does, "expectation" or "random"; may be set at any time."""
        return cast(MultiScaleRelation, self.consensus).sampling

    @relation_sampling.setter
    def relation_sampling(self, value: str) -> None:
        relation = cast(MultiScaleRelation, self.consensus)
        relation.sampling = one_of("relation_sampling", value, RELATION_SAMPLINGS)

    def _make_relation(self) -> nn.Module:
        return MultiScaleRelation(
            self.img_feature_dim,
            self.num_segments,
            self._class_counts,
            classifier_pairing=self._pairing,
        )
