"""Scores of actions, from the scores of verbs and nouns.

As on the server of the EPIC-KITCHENS challenges, and in the official programs but for the softmax
of EPIC-KITCHENS-100's, see `epic.metrics`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from data.options import positive_integer
from epic.faults import raise_faults
from epic.labelled_scores import Matrix, as_matrix, row_blocks, unusable_rows

__all__ = ["TOP_K", "Actions", "action_scores", "best_actions"]

TOP_K = 100
"""Verbs and nouns that the official programs make actions of, and actions that they keep."""

Actions = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Verb classes, noun classes and scores, each (segments, actions), best first."""


def action_scores(verb: Any, noun: Any, top_k: int = TOP_K, priors: Any = None) -> Actions:
    """Return the best actions of each segment, best first, as the challenge's server has them.

    Of each segment the `top_k` best verbs and nouns are kept. Their softmax, in float64, is over
    those kept; the score of an action is the product. Of equal scores, that of the better verb
    comes first.

    Args:
        verb: logits (S, V), array or tensor of any real dtype. -inf rules a class out.
        noun: logits (S, N).
        top_k: how many verbs, nouns and then actions to keep.
        priors: non-negative (V, N), multiplied with the products before the best are kept; such as
            the counts of actions in training.

    Returns:
        Verb classes, noun classes and scores, each (S, top_k), or fewer where V and N are small.

    Raises:
        ValueError: shapes do not fit, or a row holds NaN or +inf, or -inf alone.
    """
    verb, noun = as_matrix("verb", verb), as_matrix("noun", noun)
    if len(verb) != len(noun) or not len(verb):
        raise ValueError(
            f"verb and noun must have a row for each segment, got {len(verb)} and {len(noun)} rows"
        )
    raise_faults(
        (f"rows of {name} with NaN, inf or no number", unusable_rows(matrix).tolist())
        for name, matrix in (("verb", verb), ("noun", noun))
    )
    blocks = best_actions(verb, noun, positive_integer("top_k", top_k), priors)
    verbs, nouns, scores = zip(*(actions for _, actions in blocks), strict=True)
    return np.concatenate(verbs), np.concatenate(nouns), np.concatenate(scores)


def best_actions(
    verb: Matrix, noun: Matrix, top_k: int, priors: Any = None
) -> Iterator[tuple[slice, Actions]]:
    """Yield rows and their `action_scores`, some at a time.

    Raises:
        ValueError: priors are negative, no numbers, or of another shape.
    """
    log_priors = None if priors is None else _log(priors, (verb.shape[1], noun.shape[1]))
    for (rows, verbs), (_, nouns) in zip(row_blocks(verb), row_blocks(noun), strict=True):
        yield rows, _combine(_best(verbs, top_k), _best(nouns, top_k), top_k, log_priors)


def _log(priors: Any, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    weights: npt.NDArray[np.float64] = np.asarray(priors, dtype=np.float64)
    if weights.shape != shape or not np.all((weights >= 0) & (weights < np.inf)):
        raise ValueError(
            "action priors must be finite, not negative, and of the shape (verbs, nouns) = "
            f"{shape}, got the shape {weights.shape}"
        )
    with np.errstate(divide="ignore"):  # log(0) is -inf, as it should be
        return np.asarray(np.log(weights))


def _best(
    scores: npt.NDArray[np.float64], top_k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the best classes of each row, and by how much their scores are below the best."""
    classes = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    kept = np.take_along_axis(scores, classes, axis=1)
    return classes, kept - kept[:, :1]


def _combine(
    verb: tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]],
    noun: tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]],
    top_k: int,
    log_priors: npt.NDArray[np.float64] | None,
) -> Actions:
    """Return the best pairs of the kept verbs and nouns."""
    (verbs, verb_scores), (nouns, noun_scores) = verb, noun
    i, j = np.indices((verbs.shape[1], nouns.shape[1])).reshape(2, -1)
    if log_priors is None:
        # Without priors, (i + 1)(j + 1) - 1 pairs are at least as good as the pair of verb i and
        # noun j: those of a verb and a noun that are both as good. Of 10,000 pairs, 482 are left.
        possible = (i + 1) * (j + 1) <= top_k
        i, j = i[possible], j[possible]
    # Sums rather than products, which could underflow to 0 and lose their order.
    logs = verb_scores[:, i] + noun_scores[:, j]
    if log_priors is not None:
        logs += log_priors[verbs[:, i], nouns[:, j]]
    best = np.argsort(-logs, axis=1, kind="stable")[:, :top_k]
    scale = np.exp(verb_scores).sum(axis=1) * np.exp(noun_scores).sum(axis=1)
    return (
        np.take_along_axis(verbs, i[best], axis=1),
        np.take_along_axis(nouns, j[best], axis=1),
        np.exp(np.take_along_axis(logs, best, axis=1)) / scale[:, None],
    )
