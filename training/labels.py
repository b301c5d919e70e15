"""Labels: which classes a training has, from its annotation files, and their ids in segments."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data.options import ClassNames, check_class_names, class_counts, first_few, names_by_task
from data.segments import Segment
from epic.classes import fetch_class_names
from epic.datasets import DATASETS, check_labels, infer_dataset
from epic.faults import raise_faults
from tsn import TSN
from weights.download import DownloadError

__all__ = ["Classes", "find_classes", "number", "with_names_of"]

_logger = logging.getLogger(__name__)

_MAX_CLASSES = 100_000
"""Of a task. An id this large is the number of something else, and would make a huge head."""


@dataclass(frozen=True)
class Classes:
    """The classes of a training.

    Attributes:
        num_class: number of classes, or (verbs, nouns), as models take it.
        names: names of the classes, as models take them; None where they are not known.
        columns: the column that tells the class, of each task: "label_class" or "label"; of two
            tasks, "verb_class" or "verb", and "noun_class" or "noun".
    """

    num_class: int | tuple[int, int]
    names: ClassNames | None
    columns: tuple[str, ...]


def find_classes(
    training: Sequence[Segment],
    validation: Sequence[Segment] = (),
    *,
    folders: Sequence[Path] = (),
    known: ClassNames | None = None,
) -> Classes:
    """Find the classes that a model is to learn.

    Of each task, class ids count where training segments have them. The classes are then 0 to the
    largest id, each named as most of its segments are, or "label 3" if none is. Without ids, each
    name is a class, and classes are in the order of the alphabet, or that of `known`.

    Segments of EPIC-KITCHENS, known by their own ids, have all classes of their dataset, with the
    official names.

    Args:
        training: rows of an annotation file, as `epic.annotations.read_annotations` returns them.
        validation: the same; none without validation.
        folders: where the official files with class names are looked for before they are fetched.
        known: class names of the weights that the training starts from. If a task has the same
            names, it takes their order, so that each output of its head keeps its meaning.

    Returns:
        The classes. A warning is logged if official names cannot be had, if official classes are in
        validation alone, and if no training segment has an id below the largest.

    Raises:
        ValueError: naming all that is wrong: labels of both one and two tasks, or of half of two;
            segments without labels; of one's own classes, fewer than two, some in validation alone,
            ids of 100,000 or more; ids that the dataset does not have, or segments of both
            datasets; names with line breaks; an official file that holds something else.
    """
    columns = _find_columns(training)
    dataset = None
    if columns == ("verb_class", "noun_class"):
        dataset = next(filter(None, map(infer_dataset, training)), None)
    _check(training, validation, columns, dataset)
    if dataset:
        num_class = DATASETS[dataset].num_class
        return Classes(num_class, _fetch_names(dataset, folders), columns)

    orders = names_by_task(known)
    tasks = [_list_classes(training, column, orders.get(column, ())) for column in columns]
    counts = class_counts([*map(len, tasks)] if len(tasks) == 2 else len(tasks[0]))
    if not any(_values(training, column.removesuffix("_class")) for column in columns):
        return Classes(counts, None, columns)
    names = check_class_names(tasks if len(tasks) == 2 else tasks[0], counts)
    return Classes(counts, names, columns)


def with_names_of(model: TSN, segments: Sequence[Segment]) -> list[Segment]:
    """Return segments whose labels are names alone with the ids of a trained model's classes.

    Args:
        model: its `class_names` count; without them, segments stay as they are.
        segments: of one file.

    Raises:
        ValueError: for a name that is none of the classes'.
    """
    columns = tuple(
        task for task in names_by_task(model.class_names) if not _values(segments, f"{task}_class")
    )
    return number(segments, Classes(model.num_class, model.class_names, columns))


def number(segments: Sequence[Segment], classes: Classes) -> list[Segment]:
    """Return segments that have their labels as class ids too.

    Args:
        segments: of the training, or of the validation, that the classes were found in. Those
            without a label stay so.
        classes: of `find_classes`.

    Raises:
        ValueError: for a name that is none of the classes'.
    """
    numbered = list(segments)
    for task, names in names_by_task(classes.names).items():
        if task not in classes.columns:
            continue  # the segments have ids
        ids = {name: index for index, name in enumerate(names)}
        if unknown := sorted(_values(segments, task) - ids.keys()):
            raise ValueError(f"{task} must be one of {first_few(names)}, got {first_few(unknown)}")
        for position, segment in enumerate(numbered):
            label: dict[str, Any] = {f"{task}_class": ids.get(getattr(segment, task))}
            numbered[position] = replace(segment, **label)
    return numbered


def _values(segments: Iterable[Segment], column: str) -> set[Any]:
    """Return what a column holds, but for None."""
    return {getattr(segment, column) for segment in segments} - {None}


def _find_columns(training: Sequence[Segment]) -> tuple[str, ...]:
    """Return `Classes.columns`; raise ValueError unless they are of one task, or of two."""
    columns = [
        next(filter(partial(_values, training), (f"{task}_class", task)), "")
        for task in ("label", "verb", "noun")
    ]
    if [*map(bool, columns)] not in ([True, False, False], [False, True, True]):
        raise ValueError(
            "training segments must have label or label_class; or, for two tasks, verb or "
            f"verb_class and noun or noun_class; found: {first_few(filter(None, columns)) or None}"
        )
    return tuple(filter(None, columns))


def _check(
    training: Sequence[Segment],
    validation: Sequence[Segment],
    columns: Iterable[str],
    dataset: str | None,
) -> None:
    """Raise a ValueError that lists what is wrong with labels, and log what may be."""
    faults: list[tuple[str, Sequence[object]]] = []
    messages: list[str] = []
    for column in columns:
        for subset, segments in (("training", training), ("validation", validation)):
            ids = [each.id for each in segments if getattr(each, column) is None]
            faults.append((f"{subset} segments without {column}, which tells their class", ids))
        classes = _values(training, column)
        unseen = sorted(_values(validation, column) - classes)
        if dataset:
            if unseen:  # as in the organisers' own split
                _logger.warning(
                    "%s in validation alone, and so not learned: %s", column, first_few(unseen)
                )
            continue
        faults.append((f"{column} in validation alone, where no model can learn it", unseen))
        if len(classes) < 2:
            faults.append((f"{column} must have at least 2 classes, found", [*classes]))
        if column.endswith("_class"):
            wrong = sorted(each for each in classes if not 0 <= each < _MAX_CLASSES)
            faults.append((f"{column} must be 0 to {_MAX_CLASSES - 1:,}, got", wrong))
    if dataset:
        try:
            check_labels([*training, *validation], DATASETS[dataset].num_class)
        except ValueError as error:
            messages.append(f"the training is of {dataset}, by the ids of its segments: {error}")
    raise_faults(faults, messages)


def _fetch_names(dataset: str, folders: Sequence[Path]) -> ClassNames | None:
    """Return the official class names, None where they cannot be had."""
    try:
        return fetch_class_names(dataset, folders=folders)
    except DownloadError as error:
        _logger.warning("the classes of %s stay without names: %s", dataset, error)
        return None


def _list_classes(training: Sequence[Segment], column: str, order: Sequence[str]) -> Sequence[str]:
    """Return the names of a task's classes, which are `order` if it has the same."""
    classes = sorted(_values(training, column))
    if not column.endswith("_class"):
        return order if sorted(order) == classes else classes
    task = column.removesuffix("_class")
    count = classes[-1] + 1
    if missing := sorted(set(range(count)) - set(classes)):
        _logger.warning(
            "%s: no training segment has %s of 0 to %d", column, first_few(missing), count - 1
        )
    pairs = Counter((getattr(each, column), getattr(each, task)) for each in training)
    # The most frequent name of an id comes last, and stays.
    names = {index: name for (index, name), _ in reversed(pairs.most_common()) if name}
    return [names.get(index, f"{task} {index}") for index in range(count)]
