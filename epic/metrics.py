"""Metrics of the EPIC-KITCHENS recognition challenges, from the scores of a labelled split.

On finite scores without ties they equal what the official programs print: EPIC-KITCHENS-55's
library (https://github.com/epic-kitchens/epic-kitchens-55-lib, `compute_metrics`) and
EPIC-KITCHENS-100's `evaluate.py` (https://github.com/epic-kitchens/C1-Action-Recognition).

`scores` is a mapping; its arrays are NumPy arrays or tensors of any real dtype:

- `ids`: the ids of S segments, in any order;
- `verb` (S, V) and `noun` (S, N): logits; of several crops, their mean. Probabilities get a warning
  and, as from the official programs, another result: a second softmax ranks actions by
  p(verb) + p(noun) instead of the product;
- `action` (S, V * N), optional: scores instead of the computed ones, column verb * N + noun;
- `label` (S, C): scores of data with one task, for `accuracy`.

`segments`, in any order, are `data.segments.Segment` or objects with the attributes needed: `id`,
`verb_class` and `noun_class`, or `label_class`; `participant` for EPIC-KITCHENS-100.

Differences from the original:

- Each segment has its own softmax, in float64, as on the challenge's server. `evaluate.py` takes
  one over all segments, in the precision of the scores: of float32 logits that lie some 100 below
  the file's highest, the products become 0, and the action accuracies that it prints are too low.
- Of equal scores, the lower class comes first; the official programs have no defined order.
- NaN, and ids that are repeated, missing or unknown, are errors.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from data.segments import Segment
from epic.predictions import Predictions, predict

__all__ = ["accuracy", "epic_55_metrics", "epic_100_metrics"]


def epic_55_metrics(
    scores: Mapping[str, Any],
    segments: Sequence[Segment],
    *,
    many_shot_verbs: Collection[int],
    many_shot_nouns: Collection[int],
    many_shot_actions: Collection[tuple[int, int]] | Collection[int],
    action_priors: Any = None,
    allow_missing: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return accuracy, precision and recall of EPIC-KITCHENS-55, as fractions.

    Precision and recall are of the best class of each segment, averaged over the many-shot classes
    that occur among the labels. The precision of a class that is never predicted is 0.

    Example:
        >>> import torch, types
        >>> segments = [types.SimpleNamespace(id="7", verb_class=1, noun_class=2)]
        >>> scores = {"ids": ["7"], "verb": torch.randn(1, 125), "noun": torch.randn(1, 352)}
        >>> metrics = torch.hub.load(
        ...     ".", "epic_55_metrics", scores, segments, many_shot_verbs=[0, 1],
        ...     many_shot_nouns=[2], many_shot_actions=[(1, 2)], source="local",
        ... )
        >>> metrics["accuracy"]
        {'verb': [..., ...], 'noun': [..., ...], 'action': [..., ...]}

    Args:
        scores: logits, as `epic.metrics` describes them.
        segments: the labelled segments of the split.
        many_shot_verbs: verb classes. `epic.class_lists` has these three lists.
        many_shot_nouns: noun classes.
        many_shot_actions: pairs (verb, noun), or numbers verb * N + noun, where N is 352.
        action_priors: see `action_scores`.
        allow_missing: whether segments may lack scores; the metrics are then of the others.

    Returns:
        `{"accuracy": {"verb": [top-1, top-5], "noun": ..., "action": ...}, "precision": {"verb":
        mean, "noun": mean, "action": mean, "verb_per_class": {"0": precision, ...}}, "recall":
        ...}`, the last as precision. The mean of no classes is NaN.

    Raises:
        ValueError: the arguments do not fit each other; lists all that is wrong with the scores.
    """
    _, tasks = predict(scores, segments, ("verb", "noun"), allow_missing, action_priors)
    num_verbs, num_nouns = tasks["verb"].num_class, tasks["noun"].num_class
    many_shot = {
        "verb": _class_ids("many_shot_verbs", many_shot_verbs, num_verbs),
        "noun": _class_ids("many_shot_nouns", many_shot_nouns, num_nouns),
        "action": _action_ids("many_shot_actions", many_shot_actions, num_verbs, num_nouns),
    }
    precision: dict[str, Any] = {}
    recall: dict[str, Any] = {}
    for name, task in tasks.items():
        classes = np.intersect1d(task.labels, many_shot[name])
        correct, predicted, labelled = (
            np.bincount(of, minlength=task.num_class)[classes]
            for of in (task.labels[task.ranks == 0], task.best, task.labels)
        )
        for means, values in (
            (precision, correct / np.maximum(predicted, 1)),
            (recall, correct / labelled),
        ):
            means[name] = float(values.mean()) if len(values) else math.nan
            if name == "verb":
                means["verb_per_class"] = dict(zip(map(str, classes), values.tolist(), strict=True))
    return {"accuracy": _top_1_and_5(tasks), "precision": precision, "recall": recall}


def epic_100_metrics(
    scores: Mapping[str, Any],
    segments: Sequence[Segment],
    *,
    tail_verbs: Collection[int],
    tail_nouns: Collection[int],
    unseen_participants: Collection[str],
    allow_missing: bool = False,
) -> dict[str, float]:
    """Return the 12 accuracies of EPIC-KITCHENS-100, in percent.

    Example:
        >>> import torch, types
        >>> segments = [
        ...     types.SimpleNamespace(id="P01_11_0", participant="P01", verb_class=1, noun_class=2)
        ... ]
        >>> scores = {"ids": ["P01_11_0"], "verb": torch.randn(1, 97), "noun": torch.randn(1, 300)}
        >>> metrics = torch.hub.load(
        ...     ".", "epic_100_metrics", scores, segments, tail_verbs=[1], tail_nouns=[3],
        ...     unseen_participants=["P18", "P32"], source="local",
        ... )
        >>> sorted(metrics)[:2]
        ['all_action_accuracy_at_1', 'all_action_accuracy_at_5']

    Args:
        scores: logits, as `epic.metrics` describes them.
        segments: the labelled segments of the split.
        tail_verbs: verb classes. `epic.class_lists` has these three lists.
        tail_nouns: noun classes. A segment is of a tail action if its verb or its noun is tail.
        unseen_participants: who is not in the training set, such as P18 and P32 in validation.
        allow_missing: whether segments may lack scores; the metrics are then of the others.

    Returns:
        `{all,tail,unseen}_{verb,noun,action}_accuracy_at_1` and `all_..._accuracy_at_5`. Those of
        subsets without a segment are left out.

    Raises:
        ValueError: the arguments do not fit each other; lists all that is wrong with the scores.
    """
    matched, tasks = predict(scores, segments, ("verb", "noun"), allow_missing)
    if isinstance(unseen_participants, str):
        raise ValueError(f"unseen_participants must be several, got {unseen_participants!r}")
    unseen = np.array([segment.participant in unseen_participants for segment in matched])
    verbs = _class_ids("tail_verbs", tail_verbs, tasks["verb"].num_class)
    nouns = _class_ids("tail_nouns", tail_nouns, tasks["noun"].num_class)
    tail = {
        "verb": np.isin(tasks["verb"].labels, verbs),
        "noun": np.isin(tasks["noun"].labels, nouns),
    }
    tail["action"] = tail["verb"] | tail["noun"]
    metrics = {}
    for name, task in tasks.items():
        for k in (1, 5):
            metrics[f"all_{name}_accuracy_at_{k}"] = 100 * task.accuracy(k)
        for subset, chosen in (("tail", tail[name]), ("unseen", unseen)):
            if chosen.any():
                metrics[f"{subset}_{name}_accuracy_at_1"] = 100 * task.accuracy(1, chosen)
    return metrics


def accuracy(
    scores: Mapping[str, Any], segments: Sequence[Segment], *, allow_missing: bool = False
) -> dict[str, list[float]]:
    """Return [top-1, top-5] accuracy, as fractions, of each task that has scores.

    Args:
        scores: logits, as `epic.metrics` describes them: `verb`, `noun` or both, or `label`.
        segments: the labelled segments of the split.
        allow_missing: whether segments may lack scores; the accuracy is then of the others.

    Returns:
        By "verb", "noun", "label"; with verbs and nouns also by "action".

    Raises:
        ValueError: there are no scores; lists all that is wrong with them.
    """
    tasks = [task for task in ("verb", "noun", "label") if task in scores]
    if not tasks:
        raise ValueError(f"scores must have verb, noun or label, they have {', '.join(scores)}")
    return _top_1_and_5(predict(scores, segments, tasks, allow_missing)[1])


def _top_1_and_5(tasks: Mapping[str, Predictions]) -> dict[str, list[float]]:
    return {name: [task.accuracy(1), task.accuracy(5)] for name, task in tasks.items()}


def _class_ids(argument: str, classes: Iterable[Any], num_class: int) -> npt.NDArray[np.int64]:
    """Return a list of classes as an array, or raise ValueError."""
    classes = list(classes)
    wrong = [
        each
        for each in classes
        if not isinstance(each, SupportsIndex) or not 0 <= index(each) < num_class
    ]
    if wrong:
        raise ValueError(f"{argument} must be classes from 0 to {num_class - 1}, got {wrong[:5]}")
    return np.array([index(each) for each in classes], dtype=np.int64)


def _action_ids(
    argument: str, actions: Iterable[Any], num_verbs: int, num_nouns: int
) -> npt.NDArray[np.int64]:
    """Return actions, pairs or numbers already, as numbers verb * N + noun, or raise ValueError."""
    try:
        pairs = [divmod(each, num_nouns) if np.ndim(each) == 0 else each for each in actions]
        verbs, nouns = zip(*pairs, strict=True) if pairs else ((), ())
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} must be pairs (verb, noun), or numbers") from error
    verb_ids = _class_ids(f"verbs of {argument}", verbs, num_verbs)
    return verb_ids * num_nouns + _class_ids(f"nouns of {argument}", nouns, num_nouns)
