"""Lists that the challenges' metrics are restricted to, and how often classes occur.

EPIC-KITCHENS-55: many-shot verbs, nouns and actions. EPIC-KITCHENS-100: tail verbs and nouns, and
the participants of the validation set who are not in the training set. The official files are
licensed CC BY-NC 4.0, and are never shipped with this library.

Sources: https://github.com/epic-kitchens/annotations (EPIC-KITCHENS-55) and
https://github.com/epic-kitchens/epic-kitchens-100-annotations (EPIC-KITCHENS-100).

Differences from the original: the official program for EPIC-KITCHENS-100 takes the test set's
unseen participants by default, none of whom is in the validation set, so that it prints no accuracy
of them there. Here the list is the validation set's.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.options import first_few, one_of
from data.segments import Segment
from epic.datasets import OF_PUBLISHED_WEIGHTS, find_official_file
from epic.faults import repeated
from epic.tables import read_table

__all__ = ["CLASS_LISTS", "ClassList", "count_actions", "fetch_class_lists", "read_class_list"]

_logger = logging.getLogger(__name__)

_55 = "https://raw.githubusercontent.com/epic-kitchens/annotations/master"
_100 = "https://raw.githubusercontent.com/epic-kitchens/epic-kitchens-100-annotations/master"


@dataclass(frozen=True)
class ClassList:
    """An official file with a list.

    Attributes:
        url: where the CSV file is.
        column: the column with the list; others are ignored.
    """

    url: str
    column: str


CLASS_LISTS: dict[str, dict[str, ClassList]] = {
    "epic-kitchens-55": {
        "many_shot_verbs": ClassList(f"{_55}/EPIC_many_shot_verbs.csv", "verb_class"),
        "many_shot_nouns": ClassList(f"{_55}/EPIC_many_shot_nouns.csv", "noun_class"),
        "many_shot_actions": ClassList(f"{_55}/EPIC_many_shot_actions.csv", "action_class"),
    },
    "epic-kitchens-100": {
        "tail_verbs": ClassList(f"{_100}/EPIC_100_tail_verbs.csv", "verb"),
        "tail_nouns": ClassList(f"{_100}/EPIC_100_tail_nouns.csv", "noun"),
        "unseen_participants": ClassList(
            f"{_100}/EPIC_100_unseen_participant_ids_validation.csv", "participant_id"
        ),
    },
}
"""The lists of each dataset, by the names of the arguments of `epic.metrics` that take them."""


def fetch_class_lists(dataset: str) -> dict[str, tuple[Any, ...]]:
    """Return the lists of a dataset; its three official CSV files are downloaded once.

    They are kept, and used without a network, where `epic.classes.fetch_class_names` keeps its own.

    Example:
        epic_100_metrics(scores, segments, **fetch_class_lists("epic-kitchens-100"))

    Args:
        dataset: "epic-kitchens-55" or "epic-kitchens-100", in any case; "epic-kitchens", as
            `pretrained=` has it, is the first.

    Returns:
        Argument of the dataset's metrics -> what `read_class_list` gives.

    Raises:
        ValueError: the dataset is unknown, or a file does not hold its list.
        weights.download.DownloadError: a file could not be fetched; says which one to put where.
    """
    dataset = OF_PUBLISHED_WEIGHTS.get(str(dataset).lower(), dataset)
    lists = {}
    for name, official in CLASS_LISTS[one_of("dataset", dataset, CLASS_LISTS)].items():
        path = find_official_file(official.url)
        try:  # no hash is published; a log-in page, for instance, may have come instead
            lists[name] = read_class_list(name, path)
        except ValueError as error:
            raise ValueError(f"{error}; delete the file to have it downloaded again") from error
    _logger.info("class lists of %s from %s (licensed CC BY-NC 4.0)", dataset, path.parent)
    return lists


def read_class_list(name: str, path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Read one of the official lists from a CSV file.

    Args:
        name: "many_shot_verbs", "many_shot_nouns" or "many_shot_actions" (EPIC-KITCHENS-55),
            "tail_verbs", "tail_nouns" or "unseen_participants" (EPIC-KITCHENS-100).
        path: UTF-8 file with the column of `CLASS_LISTS`; other columns are ignored.

    Returns:
        Classes (int), pairs of a verb and a noun class, or ids of participants, as in the file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the name is unknown, or the file is not such a table; lists the wrong lines.
    """
    columns = {name: each.column for lists in CLASS_LISTS.values() for name, each in lists.items()}
    column = columns[one_of("name", name, columns)]
    table = read_table(Path(path), f"{name}: {path}")
    if column not in table.columns:
        raise ValueError(f"{name}: {path} must have the column {column}, found: {table.found}")
    place = table.columns.index(column)
    texts = [(line, cells[place] if place < len(cells) else "") for line, cells in table.rows]
    parse, example = _FORMATS.get(column, (_parse_class, "a class such as 3"))
    values = [parse(text) for _, text in texts]
    wrong = [text for text, value in zip(texts, values, strict=True) if value is None]
    if wrong or not values:
        lines = first_few(
            (f"line {line} has {text[:50]!r}" for line, text in wrong), separator="; "
        )
        raise ValueError(
            f"{name}: {path} must have {example} in each row of {column}, but "
            f"{lines or 'there are no rows'}"
        )
    if several := repeated(text for _, text in texts):
        raise ValueError(
            f"{name}: {path} must have {first_few(several)} once only: is it another table?"
        )
    return tuple(values)


def count_actions(segments: Iterable[Segment], num_class: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return how many segments there are of each verb with each noun.

    Counts of the training set serve as `action_priors`. Their sums are the counts of verbs,
    `counts.sum(1)`, and nouns, `counts.sum(0)`; the many-shot ones have more than 100.

    Args:
        segments: have a verb class and a noun class.
        num_class: numbers of verb classes V and noun classes N.

    Returns:
        Counts (V, N).

    Raises:
        ValueError: a segment has no classes, or others than 0 to V - 1 and 0 to N - 1.
    """
    counts = np.zeros(num_class, dtype=np.int64)
    verbs, nouns = map(range, num_class)
    for (verb, noun), count in Counter((s.verb_class, s.noun_class) for s in segments).items():
        if verb not in verbs or noun not in nouns:
            raise ValueError(
                f"segments must have a verb class and a noun class below {num_class}, "
                f"{count} have {verb} and {noun}"
            )
        counts[verb, noun] = count
    return counts


def _parse_class(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _parse_action(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"\((\d+), *(\d+)\)", text)
    return (int(match[1]), int(match[2])) if match else None


_FORMATS: dict[str, tuple[Callable[[str], Any], str]] = {
    "action_class": (_parse_action, "a pair such as (12, 78)"),
    "participant_id": (lambda text: text or None, "an id such as P18"),
}
