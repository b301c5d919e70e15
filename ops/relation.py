"""Temporal relation heads: consensus by reasoning over ordered tuples of segments.

Source: Zhou et al., "Temporal Relational Reasoning in Videos", 2018 (arXiv:1711.08496).

Differences from the original:
    - `MultiScaleRelation` is deterministic at test time: it takes the exact mean over all relations
      of a scale instead of three drawn ones, unless asked for the draw.
    - Random relations come from torch's generator, which data loaders and `torch.manual_seed`
      control, rather than from NumPy's global one.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "CLASSIFIER_PAIRINGS",
    "MAX_SEGMENTS",
    "RELATION_SAMPLINGS",
    "MultiScaleRelation",
    "TemporalRelation",
]

CLASSIFIER_PAIRINGS = ("published", "per-scale")
RELATION_SAMPLINGS = ("expectation", "random")

_RELATIONS_PER_SCALE = 3
"""How many relations of each scale but the largest are summed."""
MAX_SEGMENTS = 20
"""Of a multi-scale relation, which lists 2^T relations: twenty segments have a million."""
_CHUNK = 512
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
        if not 2 <= num_segments <= MAX_SEGMENTS:
            raise ValueError(
                f"num_segments must be from 2 to {MAX_SEGMENTS} for a multi-scale relation "
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
            tables = zip(("lefts", "rights", "pairs"), _halves(num_segments, scale), strict=True)
            for name, rows in tables:
                table = torch.tensor(rows, dtype=torch.int32, device=device)
                self.register_buffer(f"_{name}_{scale}", table, persistent=False)

        self.train()

    def train(self, mode: bool = True) -> Self:
        """Put the relation in training or evaluation mode, and freeze classifiers of no scale."""
        if self.classifier_pairing == "published" and len(self.scales) > 1:
            # Kept: the last ones are not used, see `forward`. A parameter that waits for a
            # gradient that never comes stops DistributedDataParallel (test_ddp_trains).
            self.classifiers[-1].requires_grad_(False)
        return super().train(mode)

    def relations(self, scale: int) -> Tensor:
        """Return all relations of a scale: int32 (R, scale), segments in ascending order."""
        return _join(*self._relations(scale))

    def _relations(self, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a scale's relations: tables of their halves, and of which belong together."""
        lefts, rights, pairs = (
            cast(Tensor, getattr(self, f"_{name}_{scale}")) for name in ("lefts", "rights", "pairs")
        )
        return lefts, rights, pairs

    def _chosen_relations(self, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the relations over which a call averages, in halves: all, or k drawn ones."""
        lefts, rights, pairs = self._relations(scale)
        if self.training or self.sampling == "random":
            drawn = torch.randperm(len(pairs))[:_RELATIONS_PER_SCALE].to(pairs.device)
            left, right = pairs.index_select(0, drawn).unbind(1)
            lefts, rights = lefts.index_select(0, left), rights.index_select(0, right)
            pairs = torch.arange(len(drawn), device=pairs.device).unsqueeze(1).expand(-1, 2)
        return lefts, rights, pairs

    def _mean_hidden(
        self, index: int, segments: Tensor, relations: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Return hidden activations of scale `index`, averaged over relations.

        The fusion layer is linear in the concatenated segments, hence a sum over positions of
        products that depend on one segment and one position each. There are T * scale of those,
        far fewer than relations, so they are computed once and then only gathered and added: for
        the halves of relations first, of which there are few as well, then for each relation its
        two.

        Args:
            index: which scale.
            segments: rectified features (N, T, num_features).
            relations: as `_chosen_relations` returns them.

        Returns:
            (N, bottleneck).
        """
        fusion = cast(nn.Linear, cast(nn.Sequential, self.fc_fusion_scales[index])[1])
        scale, (_, count, width) = self.scales[index], segments.shape
        # (bottleneck * scale, num_features) x (num_features, N * T): in this order CPUs read the
        # weights, which are most of it, in half the time.
        joint = fusion.weight.reshape(-1, width) @ segments.reshape(-1, width).t()
        # One (N, T, bottleneck) for each position, added up in float32, as a matrix product is:
        # 16 bits would round after each of twenty positions and 361 chunks, and cannot hold the sum
        # of a large total and such small shares.
        terms = _at_least_float32(joint).unflatten(0, (-1, scale)).unflatten(2, (-1, count))
        products = list(terms.permute(1, 2, 3, 0).contiguous())
        products[0] = products[0] + fusion.bias
        lefts, rights, pairs = relations
        left = _add_up(products[: scale // 2], lefts)
        right = _add_up(products[scale // 2 :], rights)
        total = None
        for chunk in pairs.split(_CHUNK):
            hidden = _add_up([left, right], chunk)
            # A mean rather than a sum, which float16 could not hold in the end.
            part = F.relu(hidden).mean(dim=1) * (len(chunk) / len(pairs))
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
            count = min(_RELATIONS_PER_SCALE, comb(self.num_segments, scale))
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


def _halves(
    num_segments: int, scale: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], list[tuple[int, int]]]:
    """Split all ascending tuples of `scale` segments: beginnings, ends, and which make pairs.

    In ascending order, as are both halves: those that can follow one are the last of them.
    """
    cut = scale // 2
    lefts = list(combinations(range(num_segments - scale + cut), cut))
    rights = list(combinations(range(cut, num_segments), scale - cut))
    firsts = [right[0] for right in rights]
    pairs = [
        (index, follower)
        for index, left in enumerate(lefts)
        for follower in range(bisect_right(firsts, left[-1]), len(rights))
    ]
    return lefts, rights, pairs


def _join(lefts: Tensor, rights: Tensor, pairs: Tensor) -> Tensor:
    """Return the relations whose halves these are: int32 (R, scale)."""
    left, right = pairs.unbind(1)
    return torch.cat((lefts.index_select(0, left), rights.index_select(0, right)), dim=1)


def _add_up(terms: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Return, for `rows` (R, terms), sums (N, R, D) of one row of each term (N, any, D)."""
    total = terms[0].index_select(1, rows[:, 0])
    for position in range(1, len(terms)):
        total = total + terms[position].index_select(1, rows[:, position])
    return total


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
