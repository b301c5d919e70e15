"""Smoothing of scores over time."""

import pytest
import torch
from torch import Tensor

from engine.smoothing import make_smoothing

SCORES = torch.tensor([[0.0, 4.0], [2.0, 0.0], [4.0, 2.0], [6.0, 6.0]])


def smoothed(text: str, *tasks: Tensor) -> list[Tensor]:
    smoothing = make_smoothing(text)
    rows = [smoothing(scores) for scores in zip(*tasks, strict=True)]
    return [torch.stack(task) for task in zip(*rows, strict=True)]


def test_means_of_the_last_scores_of_each_task() -> None:
    first, second = smoothed("mean:2", SCORES, -SCORES)
    assert first.tolist() == [[0, 4], [1, 2], [3, 1], [5, 4]]
    assert torch.equal(second, -first)


def test_exponential_means_have_a_span() -> None:
    # alpha = 2 / (3 + 1)
    (found,) = smoothed("exponential:3", SCORES)
    assert found.tolist() == [[0, 4], [1, 2], [2.5, 2], [4.25, 4]]


@pytest.mark.parametrize("kind", ["mean", "exponential"])
def test_one_is_none(kind: str) -> None:
    assert torch.equal(smoothed(f"{kind}:1", SCORES)[0], SCORES)


@pytest.mark.parametrize("kind", ["mean", "exponential"])
def test_a_change_comes_later_by_half_the_length(kind: str) -> None:
    steps = torch.ones(200, 1)
    steps[:9] = 0
    (found,) = smoothed(f"{kind}:9", steps)
    assert float((1 - found[9:]).sum()) == pytest.approx((9 - 1) / 2, rel=1e-4)


@pytest.mark.parametrize("text", ["median:3", "mean", "mean:0", "mean:-1", "mean:2.5", "mean:", ""])
def test_other_smoothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be mean:N or exponential:N with a number N from 1"):
        make_smoothing(text)
