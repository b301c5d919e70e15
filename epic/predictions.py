"""Predictions: the ranks of the labels among the scores of each task."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.segments import Segment
from epic.actions import TOP_K, best_actions
from epic.faults import raise_faults
from epic.labelled_scores import (
    Matrix,
    as_matrix,
    match_labels,
    row_blocks,
    unusable_rows,
)

__all__ = ["Predictions", "predict"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """Predictions of one task for S segments.

    Attributes:
        num_class: number of classes.
        labels: class of each segment, int64 (S,).
        ranks: place of that class by score, from 0, int64 (S,). Of actions, `TOP_K` where the label
            is not among the best.
        best: class with the highest score, int64 (S,).
    """

    num_class: int
    labels: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]

    def accuracy(self, k: int, chosen: Any = ...) -> float:
        """Return the fraction of the chosen segments whose label is among the k best classes."""
        return float(np.mean(self.ranks[chosen] < k))


def predict(
    scores: Mapping[str, Any],
    segments: Sequence[Segment],
    tasks: Iterable[str],
    allow_missing: bool,
    priors: Any = None,
) -> tuple[list[Segment], dict[str, Predictions]]:
    """Return the segments with scores and the predictions of each task, of actions where it can."""
    matched, matrices, labels = match_labels(scores, segments, tasks, allow_missing=allow_missing)
    predictions = {task: _rank(matrix, labels[task]) for task, matrix in matrices.items()}
    if {"verb", "noun"} <= matrices.keys():
        verb, noun = matrices["verb"], matrices["noun"]
        actions = labels["verb"] * noun.shape[1] + labels["noun"]
        if "action" not in scores:
            predictions["action"] = _rank_actions(verb, noun, actions, priors)
        elif priors is not None:
            raise ValueError("action_priors change computed scores: leave out scores['action']")
        else:
            matrix = as_matrix("action", scores["action"])
            expected = (len(matched), verb.shape[1] * noun.shape[1])
            if matrix.shape != expected:
                raise ValueError(
                    f"action must be of the shape (segments, verbs * nouns) = {expected}, got "
                    f"{tuple(matrix.shape)}"
                )
            unusable = [matched[row].id for row in unusable_rows(matrix)]
            raise_faults([("NaN, inf or no number in the action scores", unusable)])
            predictions["action"] = _rank(matrix, actions)
    return matched, predictions


def _rank(matrix: Matrix, labels: npt.NDArray[np.int64]) -> Predictions:
    """Return predictions from the scores of all classes; of equal ones, the lower comes first."""
    ranks, best = np.empty_like(labels), np.empty_like(labels)
    classes = np.arange(matrix.shape[1])
    for rows, scores in row_blocks(matrix):
        label = labels[rows, None]
        of_label = np.take_along_axis(scores, label, axis=1)
        before = (scores > of_label) | ((scores == of_label) & (classes < label))
        ranks[rows] = before.sum(axis=1)
        best[rows] = scores.argmax(axis=1)
    return Predictions(matrix.shape[1], labels, ranks, best)


def _rank_actions(
    verb: Matrix, noun: Matrix, labels: npt.NDArray[np.int64], priors: Any
) -> Predictions:
    """Return predictions of actions; a rank is TOP_K where the label is not among the best."""
    num_nouns = noun.shape[1]
    if any(map(_are_probabilities, (verb, noun))):
        _logger.warning(
            "verb or noun scores look like probabilities: actions are ranked by p(verb) + p(noun), "
            "as the official programs do with such scores, and not by the product; give logits"
        )
    ranks, best = np.empty_like(labels), np.empty_like(labels)
    for rows, (verbs, nouns, _) in best_actions(verb, noun, TOP_K, priors):
        actions = verbs * num_nouns + nouns
        is_label = actions == labels[rows, None]
        ranks[rows] = np.where(is_label.any(axis=1), is_label.argmax(axis=1), TOP_K)
        best[rows] = actions[:, 0]
    return Predictions(verb.shape[1] * num_nouns, labels, ranks, best)


def _are_probabilities(matrix: Matrix) -> bool:
    """Whether no score is negative and the scores of each segment sum to 1."""
    return all(
        scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=0.01)  # of bfloat16 too
        for _, scores in row_blocks(matrix)
    )
