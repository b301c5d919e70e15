"""Segmental consensus: how the scores of a clip's segments become the clip's scores.

Source: Wang et al., "Temporal Segment Networks", 2016 (arXiv:1608.00859), section 3.1. Relational
consensus, which looks at features rather than scores, is in `ops.relation`.
"""

from torch import Tensor, nn

__all__ = ["CONSENSUS_TYPES", "AverageConsensus", "IdentityConsensus", "MaxConsensus"]


class AverageConsensus(nn.Module):
    """Mean over segments: (N, T, classes) to (N, classes)."""

    def forward(self, scores: Tensor) -> Tensor:
        """Average `scores` (N, T, classes) over T."""
        return scores.mean(dim=1)


class MaxConsensus(nn.Module):
    """Maximum over segments, class by class: (N, T, classes) to (N, classes)."""

    def forward(self, scores: Tensor) -> Tensor:
        """Take the largest of `scores` (N, T, classes) over T."""
        return scores.amax(dim=1)


class IdentityConsensus(nn.Module):
    """No consensus: every segment keeps its scores, (N, T, classes)."""

    def forward(self, scores: Tensor) -> Tensor:
        """Return `scores` (N, T, classes) as they are."""
        return scores


CONSENSUS_TYPES: dict[str, type[nn.Module]] = {
    "avg": AverageConsensus,
    "max": MaxConsensus,
    "identity": IdentityConsensus,
}
"""Name of every consensus without parameters."""
