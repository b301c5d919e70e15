"""Metrics of scores: the official ones where a model has the classes of an EPIC-KITCHENS."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.segments import Segment
from epic.class_lists import CLASS_LISTS, count_actions, read_class_list
from epic.datasets import DATASETS, find_dataset, find_official_file
from epic.metrics import accuracy, epic_55_metrics, epic_100_metrics
from weights.download import DownloadError

__all__ = ["is_labelled", "measure", "official_lists", "select_scores"]

_METRICS: dict[str | None, Callable[..., Any]] = {
    None: accuracy,
    "epic-kitchens-55": epic_55_metrics,
    "epic-kitchens-100": epic_100_metrics,
}
_MANY_SHOT = 100  # more training segments than that


def is_labelled(segments: Sequence[Segment], scores: Mapping[str, Any]) -> bool:
    """Return whether any of the segments has a label of a task that there are scores of."""
    tasks = [f"{task}_class" for task in ("verb", "noun", "label") if task in scores]
    return any(getattr(segment, task) is not None for segment in segments for task in tasks)


def select_scores(scores: Mapping[str, Any], ids: Collection[str]) -> dict[str, Any]:
    """Return the scores of these segments, in the order of the scores."""
    wanted = set(ids)
    rows = [row for row, name in enumerate(scores["ids"]) if name in wanted]
    names = scores.keys() & {"ids", "video_ids"}
    lists = {key: [scores[key][row] for row in rows] for key in names}
    return {**lists, **{key: scores[key][rows] for key in scores if key not in lists}}


def official_lists(
    dataset: str | None, training: Sequence[Segment] = (), folders: Collection[Path] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return the lists that a dataset's metrics take, and the names of files that are missing.

    Args:
        dataset: its name, or None.
        training: segments trained on, which tell EPIC-KITCHENS-55's many-shot classes; without
            them, the official lists do.
        folders: where official lists are looked for before they are downloaded.

    Raises:
        ValueError: if a file is not the list that its name promises.
    """
    if dataset == "epic-kitchens-55" and training:
        return _many_shot_lists(training), []
    lists: dict[str, Any] = {}
    missing = []
    for name, official in CLASS_LISTS[dataset].items() if dataset else ():
        try:
            lists[name] = read_class_list(name, find_official_file(official.url, folders))
        except DownloadError:
            lists[name] = ()
            missing.append(official.url.rpartition("/")[2])
    return lists, missing


def measure(
    scores: Mapping[str, Any],
    segments: Sequence[Segment],
    num_class: int | tuple[int, int],
    lists: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the metrics of scores.

    Args:
        scores: of these segments or some of them, as `epic.scores.Scores`.
        segments: the labelled segments.
        num_class: the model's, which tells the dataset.
        lists: as `official_lists` returns them; subsets of a list that is empty are left out.

    Returns:
        What `epic_100_metrics`, `epic_55_metrics` or, for other classes, `accuracy` returns.

    Raises:
        ValueError: if scores and segments do not fit each other.
    """
    metrics = _METRICS[find_dataset(num_class)]
    result: dict[str, Any] = metrics(scores, segments, **lists, allow_missing=True)
    return result


def _many_shot_lists(training: Sequence[Segment]) -> dict[str, Any]:
    """Return the classes that occur often, and the actions of two such classes that occur."""
    counts = count_actions(training, DATASETS["epic-kitchens-55"].num_class)
    many_verbs, many_nouns = (counts.sum(axis) > _MANY_SHOT for axis in (1, 0))
    actions = np.argwhere((counts > 0) & many_verbs[:, None] & many_nouns)
    return {
        "many_shot_verbs": np.flatnonzero(many_verbs).tolist(),
        "many_shot_nouns": np.flatnonzero(many_nouns).tolist(),
        "many_shot_actions": [(int(verb), int(noun)) for verb, noun in actions],
    }
