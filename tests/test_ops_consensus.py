"""Consensus over segments, on numbers small enough to check by eye."""

import pytest
import torch

from ops.consensus import (
    CONSENSUS_TYPES,
    AverageConsensus,
    IdentityConsensus,
    MaxConsensus,
)

pytestmark = pytest.mark.essential

# Two clips of two segments, three classes.
SCORES = torch.tensor([[[1.0, -2, 3], [5, -4, 3]], [[0, 0, 7], [2, 8, -1]]])


def test_average() -> None:
    assert AverageConsensus()(SCORES).tolist() == [[3, -3, 3], [1, 4, 3]]


def test_maximum_is_taken_class_by_class() -> None:
    assert MaxConsensus()(SCORES).tolist() == [[5, -2, 3], [2, 8, 7]]


def test_identity_keeps_the_segments() -> None:
    assert IdentityConsensus()(SCORES).equal(SCORES)


def test_names() -> None:
    known = {"avg": AverageConsensus, "max": MaxConsensus, "identity": IdentityConsensus}
    assert known == CONSENSUS_TYPES


@pytest.mark.parametrize("name", CONSENSUS_TYPES)
def test_gradients_and_no_state(name: str) -> None:
    scores = SCORES.double().clone().requires_grad_()
    consensus = CONSENSUS_TYPES[name]()
    assert not consensus.state_dict()
    assert torch.autograd.gradcheck(consensus, (scores + torch.arange(12.0).view(2, 2, 3) / 7,))
