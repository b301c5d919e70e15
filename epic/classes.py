"""Class names and class counts of the EPIC-KITCHENS datasets.

The names come from the official annotation files, which are licensed CC BY-NC 4.0: they are read
from files that the user has, or fetched when asked for, and never shipped with this library.

Sources: https://github.com/epic-kitchens/annotations (EPIC-KITCHENS-55) and
https://github.com/epic-kitchens/epic-kitchens-100-annotations (EPIC-KITCHENS-100).
"""

import csv
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.hub

from weights.download import fetch

__all__ = [
    "DATASETS",
    "ClassNames",
    "Dataset",
    "fetch_class_names",
    "find_dataset",
    "index_names",
    "read_class_names",
]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassNames:
    """Names of the classes in the order of a model's outputs.

    Attributes:
        verbs: verbs[i] is the name of verb class i.
        nouns: nouns[i] is the name of noun class i.
    """

    verbs: tuple[str, ...]
    nouns: tuple[str, ...]

    @property
    def num_class(self) -> tuple[int, int]:
        """Numbers of verbs and nouns, as models have them."""
        return len(self.verbs), len(self.nouns)


@dataclass(frozen=True)
class Dataset:
    """What the official annotations of a dataset say about its classes.

    Attributes:
        num_class: numbers of verbs and nouns.
        verb_url: CSV file with the verb classes.
        noun_url: CSV file with the noun classes.
    """

    num_class: tuple[int, int]
    verb_url: str
    noun_url: str


_GITHUB = "https://raw.githubusercontent.com/epic-kitchens"

DATASETS: dict[str, Dataset] = {
    "epic-kitchens-55": Dataset(
        num_class=(125, 352),
        verb_url=f"{_GITHUB}/annotations/master/EPIC_verb_classes.csv",
        noun_url=f"{_GITHUB}/annotations/master/EPIC_noun_classes.csv",
    ),
    "epic-kitchens-100": Dataset(
        num_class=(97, 300),
        verb_url=f"{_GITHUB}/epic-kitchens-100-annotations/master/EPIC_100_verb_classes.csv",
        noun_url=f"{_GITHUB}/epic-kitchens-100-annotations/master/EPIC_100_noun_classes.csv",
    ),
}
"""The known datasets by name."""


def find_dataset(name: str) -> Dataset:
    """Return a dataset by its name, whatever its case.

    Raises:
        ValueError: no such dataset is known.
    """
    if name.lower() not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name.lower()]


def read_class_names(
    verb_csv: str | os.PathLike[str], noun_csv: str | os.PathLike[str]
) -> ClassNames:
    """Read the class names from the official CSV files of either dataset.

    The id column, not the order of the rows, says which class a name belongs to.

    Example:
        >>> from epic.classes import read_class_names
        >>> read_class_names("EPIC_verb_classes.csv", "EPIC_noun_classes.csv").num_class
        (125, 352)

    Args:
        verb_csv: file with the columns `verb_id` and `class_key` (EPIC-KITCHENS-55) or `id` and
            `key` (EPIC-KITCHENS-100); other columns do not matter. UTF-8.
        noun_csv: the same with `noun_id` in place of `verb_id`.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: a file is not such a table, or its ids are not 0, 1, ... without gaps.
    """
    return ClassNames(
        verbs=_read_names("verb_csv", Path(verb_csv), (("verb_id", "class_key"), ("id", "key"))),
        nouns=_read_names("noun_csv", Path(noun_csv), (("noun_id", "class_key"), ("id", "key"))),
    )


def fetch_class_names(dataset: str = "epic-kitchens-55") -> ClassNames:
    """Return the class names of a dataset, downloading its two official CSV files once.

    The files are licensed CC BY-NC 4.0 by the EPIC-KITCHENS authors. They are kept in the folder
    `epic_kitchens_annotations` of torch.hub's directory, and read from there without a network.

    Example:
        >>> from epic.classes import fetch_class_names
        >>> fetch_class_names("epic-kitchens-55").num_class
        (125, 352)

    Args:
        dataset: a name in `DATASETS`.

    Raises:
        ValueError: the dataset is unknown, or what was fetched are not its class names.
        weights.download.DownloadError: a file could not be fetched; says which one to put where.
    """
    wanted = find_dataset(dataset)
    # A folder of its own, apart from weights: plain names such as these are easily taken.
    folder = Path(torch.hub.get_dir()) / "epic_kitchens_annotations"
    paths = [
        fetch(url, directory=folder, progress=False) for url in (wanted.verb_url, wanted.noun_url)
    ]
    # No hash is published for these files, so their content is what shows, for instance, that a
    # captive portal's log-in page came instead.
    try:
        names = read_class_names(*paths)
        if names.num_class != wanted.num_class:
            raise ValueError(
                f"{paths[0]} and {paths[1]} hold {names.num_class} verbs and nouns, but "
                f"{dataset} has {wanted.num_class}"
            )
    except ValueError as error:
        raise ValueError(
            f"{error}; delete what is wrong in {folder} to have it fetched anew"
        ) from error
    _logger.info("class names of %s from %s (licensed CC BY-NC 4.0)", dataset, folder)
    return names


def index_names(num_class: Sequence[int]) -> ClassNames:
    """Return stand-ins ("verb 0", "noun 0", ...) for when no names are known.

    Args:
        num_class: numbers of verbs and nouns, each at least 1.

    Raises:
        ValueError: these are not two positive numbers.
    """
    if len(num_class) != 2 or not all(isinstance(n, int) and n > 0 for n in num_class):
        raise ValueError(
            "num_class must be the numbers of verbs and nouns, such as (125, 352), "
            f"got {num_class!r}"
        )
    verbs, nouns = num_class
    return ClassNames(
        verbs=tuple(f"verb {index}" for index in range(verbs)),
        nouns=tuple(f"noun {index}" for index in range(nouns)),
    )


def _read_names(argument: str, path: Path, layouts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Read one file whose columns are one of `layouts`, each (id column, name column)."""
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: there is no file {path}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: Excel adds a mark
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            rows = [(table.line_num, row) for row in table]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{argument}: {path} is not a UTF-8 CSV file: {error}") from error
    for id_column, name_column in layouts:
        if id_column in columns and name_column in columns:
            break
    else:
        expected = " or ".join(" and ".join(layout) for layout in layouts)
        found = ", ".join(columns)[:200] or "none"
        raise ValueError(f"{argument}: {path} must have the columns {expected}, found: {found}")

    names: dict[int, str] = {}
    for line, row in rows:
        index, name = (row[id_column] or "").strip(), (row[name_column] or "").strip()
        if not index.isdecimal() or not name:
            raise ValueError(
                f"{argument}: {path}, line {line}: {id_column} must be a number and {name_column} "
                f"a name, got {index!r} and {name!r}"
            )
        if int(index) in names:
            raise ValueError(f"{argument}: {path}, line {line}: {id_column} {index} occurs twice")
        names[int(index)] = name
    missing = next((index for index in range(len(names)) if index not in names), None)
    if missing is not None or not names:
        raise ValueError(
            f"{argument}: {path} has {len(names)} classes, whose {id_column} must be 0, 1, ... "
            + (f"without gaps, but {missing} is missing" if names else "and at least one")
        )
    return tuple(names[index] for index in range(len(names)))
