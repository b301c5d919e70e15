"""Smoothing of scores over time by means, which no baseline of EPIC-KITCHENS does."""

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["ExponentialMean", "MovingMean", "Scores", "make_smoothing"]

Scores: TypeAlias = tuple[Tensor, ...]
"""float32 (classes,) for each task."""


class MovingMean:
    """The mean of the last scores.

    It follows a change after half its length, on average.

    Args:
        length: how many scores are averaged, fewer at the beginning.
    """

    def __init__(self, length: int) -> None:
        self._last: deque[Scores] = deque(maxlen=length)

    def __call__(self, scores: Scores) -> Scores:
        """Return the mean of these scores and those before."""
        self._last.append(scores)
        return tuple(torch.stack(task).mean(0) for task in zip(*self._last, strict=True))


class ExponentialMean:
    """The mean of all scores, of which the latest weigh most.

    Args:
        span: N; the latest scores have the weight 2 / (N + 1), and those before the rest, which is
            as old on average as in a moving mean of N.
    """

    def __init__(self, span: int) -> None:
        self._weight = 2 / (span + 1)
        self._mean: Scores | None = None

    def __call__(self, scores: Scores) -> Scores:
        """Return the mean of these scores and those before."""
        before = self._mean or scores
        self._mean = tuple(
            torch.lerp(old, new, self._weight) for old, new in zip(before, scores, strict=True)
        )
        return self._mean


_KINDS: dict[str, Callable[[int], Callable[[Scores], Scores]]] = {
    "mean": MovingMean,
    "exponential": ExponentialMean,
}


def make_smoothing(text: str) -> Callable[[Scores], Scores]:
    """Return the smoothing that a text such as "mean:4" or "exponential:4" names.

    Raises:
        ValueError: for another text.
    """
    kind, _, length = text.partition(":")
    if kind not in _KINDS or not length.isdecimal() or int(length) < 1:
        raise ValueError(
            f"smoothing must be mean:N or exponential:N with a number N from 1 on, got {text!r}"
        )
    return _KINDS[kind](int(length))
