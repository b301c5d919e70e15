"""Names of the classes of the EPIC-KITCHENS datasets.

The names are in the official annotation files, whose licence is CC BY-NC 4.0. They are never
shipped with this library: `read_class_names` reads files that you have, and `fetch_class_names`
downloads them.

Sources: https://github.com/epic-kitchens/annotations (EPIC-KITCHENS-55) and
https://github.com/epic-kitchens/epic-kitchens-100-annotations (EPIC-KITCHENS-100).
"""

import ast
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.options import one_of
from epic.datasets import DATASETS, OF_PUBLISHED_WEIGHTS, find_dataset, find_official_file
from epic.tables import read_table

__all__ = [
    "ClassNames",
    "choose_class_names",
    "fetch_class_names",
    "read_class_instances",
    "read_class_names",
]

_logger = logging.getLogger(__name__)


class ClassNames(NamedTuple):
    """Names of the classes, in the order of a model's outputs.

    Attributes:
        verbs: verbs[i] is the name of verb class i.
        nouns: nouns[i] is the name of noun class i.
    """

    verbs: tuple[str, ...]
    nouns: tuple[str, ...]

    @property
    def num_class(self) -> tuple[int, int]:
        """Numbers of verb and noun classes, as a model's `num_class`."""
        return len(self.verbs), len(self.nouns)


def read_class_names(
    verb_csv: str | os.PathLike[str], noun_csv: str | os.PathLike[str]
) -> ClassNames:
    """Read the class names from the official CSV files of either dataset.

    Example:
        >>> import torch
        >>> names = torch.hub.load(
        ...     ".", "read_class_names", "EPIC_verb_classes.csv", "EPIC_noun_classes.csv",
        ...     source="local",
        ... )
        >>> names.num_class
        (125, 352)

    Args:
        verb_csv: UTF-8 file with the columns `verb_id` and `class_key` (EPIC-KITCHENS-55) or `id`
            and `key` (EPIC-KITCHENS-100), rows in any order; other columns are ignored.
        noun_csv: the same with `noun_id` in the place of `verb_id`.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: a file is not such a table, or its ids are not 0, 1, ... without gaps.
    """
    files = ("verb", Path(verb_csv)), ("noun", Path(noun_csv))
    return ClassNames(*(tuple(name for name, _ in _read_classes(*file)) for file in files))


def read_class_instances(
    verb_csv: str | os.PathLike[str], noun_csv: str | os.PathLike[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Read which verbs and nouns of narrations are in which class of EPIC-KITCHENS-55.

    Args:
        verb_csv: EPIC_verb_classes.csv, whose column `verbs` lists the verbs of each class.
        noun_csv: EPIC_noun_classes.csv, with `nouns`.

    Returns:
        Verb -> verb class and noun -> noun class. What is in two lists belongs to the class that it
        names: "do" is a class, and in the list of "finish" too.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: as `read_class_names`, or a class has no list, as in EPIC-KITCHENS-100's files.
    """
    return _read_instances("verb", Path(verb_csv)), _read_instances("noun", Path(noun_csv))


def fetch_class_names(
    dataset: str = "epic-kitchens-55", *, folders: Sequence[Path] = ()
) -> ClassNames:
    """Return the class names of a dataset; its two official CSV files are downloaded once.

    The licence of the files is CC BY-NC 4.0. They are kept in the folder
    `epic_kitchens_annotations` of torch.hub's directory, and used from there without a network.

    Example:
        >>> import torch
        >>> names = torch.hub.load(".", "fetch_class_names", "epic-kitchens-55", source="local")
        >>> names.num_class
        (125, 352)

    Args:
        dataset: "epic-kitchens-55" or "epic-kitchens-100", in any case; "epic-kitchens", as
            `pretrained=` has it, is the first.
        folders: where the files are looked for first, under their official names.

    Raises:
        ValueError: the dataset is unknown, or the files do not hold its class names.
        weights.download.DownloadError: a file could not be fetched; says which one to put where.
    """
    dataset = OF_PUBLISHED_WEIGHTS.get(str(dataset).lower(), dataset)
    wanted = DATASETS[one_of("dataset", dataset, DATASETS)]
    paths = [find_official_file(url, folders) for url in (wanted.verb_url, wanted.noun_url)]
    # No hash is published. The content shows, for instance, that a log-in page came instead.
    try:
        names = read_class_names(*paths)
        if names.num_class != wanted.num_class:
            raise ValueError(
                f"{paths[0]} and {paths[1]} hold {names.num_class} verbs and nouns, but "
                f"{dataset} has {wanted.num_class}"
            )
    except ValueError as error:
        raise ValueError(f"{error}; delete what is wrong to have it downloaded again") from error
    _logger.info("class names of %s from %s and %s (licensed CC BY-NC 4.0)", dataset, *paths)
    return names


def choose_class_names(
    num_class: int | tuple[int, int], verb_csv: Path | None, noun_csv: Path | None, *, fetch: bool
) -> ClassNames | None:
    """Return the class names that a command line asks for; None if it asks for none.

    Args:
        num_class: the model's.
        verb_csv: `--verb-classes`.
        noun_csv: `--noun-classes`.
        fetch: `--fetch-classes`.

    Raises:
        ValueError: if these do not go together, or a file does not hold class names.
        FileNotFoundError: one of the files does not exist.
        weights.download.DownloadError: a file could not be fetched.
    """
    if not (fetch or verb_csv or noun_csv):
        return None
    if not isinstance(num_class, tuple):
        raise ValueError(
            f"class names are of verbs and nouns, but this model has one task with {num_class} "
            f"classes: leave --verb-classes, --noun-classes and --fetch-classes out"
        )
    if not fetch:
        if not (verb_csv and noun_csv):
            raise ValueError("--verb-classes and --noun-classes are needed together")
        return read_class_names(verb_csv, noun_csv)
    if verb_csv or noun_csv:
        raise ValueError("--fetch-classes and --verb-classes/--noun-classes exclude each other")
    if dataset := find_dataset(num_class):
        return fetch_class_names(dataset)
    raise ValueError(
        f"--fetch-classes knows no dataset with {num_class} classes: pass --verb-classes and "
        f"--noun-classes"
    )


def _read_instances(task: str, path: Path) -> dict[str, int]:
    """Read the class ids of the strings that belong to the classes of "verb" or "noun"."""
    instances: dict[str, int] = {}
    names: dict[str, int] = {}
    for index, (name, text) in enumerate(_read_classes(task, path)):
        try:
            strings = ast.literal_eval(text)
            if not isinstance(strings, list) or not all(isinstance(each, str) for each in strings):
                raise ValueError("no list of strings")
        except (SyntaxError, TypeError, ValueError) as error:
            raise ValueError(
                f"{task}_csv: {path}, class {index}: the column {task}s of EPIC-KITCHENS-55 must "
                f"hold a list such as ['take', 'grab'], got {text[:100]!r}"
            ) from error
        instances.update(dict.fromkeys(strings, index))
        names[name] = index
    return instances | names


def _read_classes(task: str, path: Path) -> list[tuple[str, str]]:
    """Read the name and the list, "" where there is none, of each class of "verb" or "noun"."""
    argument = f"{task}_csv"
    layouts = ((f"{task}_id", "class_key"), ("id", "key"))
    table = read_table(path, f"{argument}: {path}")
    found = [layout for layout in layouts if set(layout) <= set(table.columns)]
    if not found:
        expected = " or ".join(" and ".join(layout) for layout in layouts)
        raise ValueError(
            f"{argument}: {path} must have the columns {expected}, found: {table.found}"
        )
    id_column, name_column = found[0]

    classes: dict[int, tuple[str, str]] = {}
    for line, values in table.rows:
        cells = dict(zip(table.columns, values, strict=False))  # a short row is an error below
        index, name = cells.get(id_column, ""), cells.get(name_column, "")
        if not index.isdecimal() or not name:
            raise ValueError(
                f"{argument}: {path}, line {line}: {id_column} must be a number and {name_column} "
                f"a name, got {index!r} and {name!r}"
            )
        if int(index) in classes:
            raise ValueError(f"{argument}: {path}, line {line}: {id_column} {index} occurs twice")
        classes[int(index)] = name, cells.get(f"{task}s", "")
    missing = set(range(max(len(classes), 1))) - classes.keys()
    if missing:
        raise ValueError(
            f"{argument}: {path} has {len(classes)} classes, whose {id_column} must be 0, 1, ... "
            f"without gaps, but {min(missing)} is missing"
        )
    return [entry for _, entry in sorted(classes.items())]
