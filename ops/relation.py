"""Temporal relation heads: consensus by reasoning over ordered tuples of segments.

Source: Zhou et al., "Temporal Relational Reasoning in Videos", 2018 (arXiv:1711.08496).

Differences from the original:
    - `MultiScaleRelation` is deterministic at test time: it takes the exact mean over all relations
      of a scale instead of three drawn ones, unless asked for the draw.
    - Random relations come from torch's generator, which data loaders and `torch.manual_seed`
      control, rather than from NumPy's global one.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "CLASSIFIER_PAIRINGS",
    "RELATION_SAMPLINGS",
    "MultiScaleRelation",
    "TemporalRelation",
]

CLASSIFIER_PAIRINGS = ("published", "per-scale")
RELATION_SAMPLINGS = ("expectation", "random")

_RELATIONS_PER_SCALE = 3
"""How many relations of each scale but the largest are summed."""
_MAX_SEGMENTS = 20
"""2^T relations are listed; twenty segments have a million."""
_CHUNK = 2048
"""Relations whose activations are held at the same time."""


class TemporalRelation(nn.Module):
    """Single-scale relation: one perceptron over all segments' features in order.

    Args:
        num_features: width of a segment's features.
        num_segments: T.
        class_counts: number of classes of each task.
    """

    def __init__(self, num_features: int, num_segments: int, class_counts: Sequence[int]) -> None:
        super().__init__()
        bottleneck = 512
        self.pre_classifier = nn.Sequential(
            nn.ReLU(), nn.Linear(num_segments * num_features, bottleneck), nn.ReLU()
        )
        self.classifiers = nn.ModuleList(nn.Linear(bottleneck, count) for count in class_counts)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Score clips.

        Args:
            features: float (N, T, num_features).

        Returns:
            Logits (N, classes), a tensor for each task.
        """
        hidden = self.pre_classifier(features.flatten(1))
        return [classifier(hidden) for classifier in self.classifiers]


class MultiScaleRelation(nn.Module):
    """Sum of relations over T, T-1, ..., 2 segments.

    The one relation of scale T counts once; every other scale adds the logits of
    k = min(3, number of its relations) ordered tuples of segments. While training, and with
    `sampling="random"`, these are drawn anew at every call; otherwise their expectation over all
    draws is taken, k times the mean over all relations.

    Args:
        num_features: width of a segment's features.
        num_segments: T, from 2 to 20.
        class_counts: number of classes of each task.
        sampling: "expectation" or "random", what evaluation does.
        classifier_pairing: which classifiers serve which scale: "published" as the published
            EPIC-KITCHENS-55 weights were trained, "per-scale" as everybody else's.

    Raises:
        ValueError: if T is out of range, or for an unknown option.
    """

    def __init__(
        self,
        num_features: int,
        num_segments: int,
        class_counts: Sequence[int],
        *,
        sampling: str = "expectation",
        classifier_pairing: str = "published",
    ) -> None:
        super().__init__()
        if not 2 <= num_segments <= _MAX_SEGMENTS:
            raise ValueError(
                f"num_segments must be from 2 to {_MAX_SEGMENTS} for a multi-scale relation "
                f"(scales T, T-1, ..., 2; all 2^T tuples of segments are used), got {num_segments}"
            )
        if sampling not in RELATION_SAMPLINGS:
            raise ValueError(
                f"relation_sampling must be one of {RELATION_SAMPLINGS}, got {sampling!r}"
            )
        if classifier_pairing not in CLASSIFIER_PAIRINGS:
            raise ValueError(
                f"classifier_pairing must be one of {CLASSIFIER_PAIRINGS}, "
                f"got {classifier_pairing!r}"
            )
        self.num_segments = num_segments
        self.sampling = sampling
        self.classifier_pairing = classifier_pairing
        self.scales = list(range(num_segments, 1, -1))
        bottleneck = 256
        self.classifiers = nn.ModuleList(
            nn.ModuleList(nn.Linear(bottleneck, count) for count in class_counts)
            for _ in self.scales
        )
        self.fc_fusion_scales = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(scale * num_features, bottleneck), nn.ReLU())
            for scale in self.scales
        )
        # Data rather than a parameter: real even where the model is built on the meta device.
        default = torch.empty(0).device
        device = "cpu" if default.type == "meta" else default
        for scale in self.scales:
            relations = list(combinations(range(num_segments), scale))
            table = torch.tensor(relations, dtype=torch.int32, device=device)
            self.register_buffer(f"_relations_{scale}", table, persistent=False)

    def relations(self, scale: int) -> Tensor:
        """All relations of a scale: int32 (R, scale), segment indices in ascending order."""
        return cast(Tensor, getattr(self, f"_relations_{scale}"))

    def _chosen_relations(self, scale: int) -> Tensor:
        """Relations over which a call averages: all, or k drawn ones; int32 (R', scale)."""
        relations = self.relations(scale)
        if self.training or self.sampling == "random":
            drawn = torch.randperm(len(relations))[:_RELATIONS_PER_SCALE]
            return relations[drawn.to(relations.device)]
        return relations

    def _mean_hidden(self, index: int, segments: Tensor, relations: Tensor) -> Tensor:
        """Hidden activations of scale `index`, averaged over relations.

        The fusion layer is linear in the concatenated segments, hence a sum over positions of
        products that depend on one segment and one position each. There are T * scale of those,
        far fewer than relations, so they are computed once and then only gathered and added.

        Args:
            index: which scale.
            segments: rectified features (N, T, num_features).
            relations: int32 (R, scale).

        Returns:
            (N, bottleneck).
        """
        fusion = cast(nn.Linear, cast(nn.Sequential, self.fc_fusion_scales[index])[1])
        scale, (clips, count, width) = self.scales[index], segments.shape
        # (bottleneck * scale, num_features) x (num_features, N * T): in this order CPUs read the
        # weights, which are most of it, in half the time.
        joint = fusion.weight.reshape(-1, width) @ segments.reshape(-1, width).t()
        # One (N, T, bottleneck) for each position, added up in float32, as a matrix product is:
        # half precision would round after each of twenty positions and ninety chunks, whose small
        # shares it cannot add to a large total.
        terms = _at_least_float32(joint).view(-1, scale, clips, count).permute(1, 2, 3, 0)
        products = list(terms.contiguous())
        products[0] = products[0] + fusion.bias
        total = None
        for chunk in relations.split(_CHUNK):
            hidden = products[0].index_select(1, chunk[:, 0])
            for position in range(1, scale):
                hidden = hidden + products[position].index_select(1, chunk[:, position])
            # A mean rather than a sum, which float16 could not hold in the end.
            part = F.relu(hidden).mean(dim=1) * (len(chunk) / len(relations))
            total = part if total is None else total + part
        assert total is not None
        return total.to(joint.dtype)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Score clips.

        Args:
            features: float (N, T, num_features).

        Returns:
            Logits (N, classes), a tensor for each task.
        """
        segments = F.relu(features)
        logits: list[Tensor] = []
        for index, scale in enumerate(self.scales):
            hidden = self._mean_hidden(index, segments, self._chosen_relations(scale))
            # The classifiers are linear: k times that of the mean is the sum of k. The sum over
            # scales is float32 for the same reason as that over positions.
            count = min(_RELATIONS_PER_SCALE, len(self.relations(scale)))
            # Kept: off by one below the largest scale, as the published weights were trained; the
            # last classifiers are never used then (test_published_pairing_is_off_by_one).
            pairing = index if self.classifier_pairing == "per-scale" else max(index - 1, 0)
            classifiers = cast(nn.ModuleList, self.classifiers[pairing])
            scores = [count * _at_least_float32(classifier(hidden)) for classifier in classifiers]
            logits = [a + b for a, b in zip(logits, scores, strict=True)] if logits else scores
        return [scores.to(hidden.dtype) for scores in logits]

    def extra_repr(self) -> str:
        """Show the options that the parameters do not show."""
        return f"sampling={self.sampling!r}, classifier_pairing={self.classifier_pairing!r}"


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
