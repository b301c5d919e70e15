"""Class names and class counts of the EPIC-KITCHENS datasets.

The names are in the official annotation files, whose licence is CC BY-NC 4.0. They are never
shipped with this library: `read_class_names` reads files that you have, and `fetch_class_names`
downloads them.

Sources: https://github.com/epic-kitchens/annotations (EPIC-KITCHENS-55) and
https://github.com/epic-kitchens/epic-kitchens-100-annotations (EPIC-KITCHENS-100).
"""

import csv
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch.hub

from data.options import one_of
from weights.download import fetch

__all__ = [
    "DATASETS",
    "OF_PUBLISHED_WEIGHTS",
    "ClassNames",
    "Dataset",
    "fetch_class_names",
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


@dataclass(frozen=True)
class Dataset:
    """A dataset's number of classes, and the official files that name them.

    Attributes:
        num_class: numbers of verb and noun classes.
        verb_url: URL of the CSV file with the verb classes.
        noun_url: URL of the CSV file with the noun classes.
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

OF_PUBLISHED_WEIGHTS = {
    "epic-kitchens": "epic-kitchens-55",
    "epic-kitchens-100": "epic-kitchens-100",
}
"""Name of published weights, as `pretrained=` has it -> the dataset of their classes."""


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
    return ClassNames(_read_names("verb", Path(verb_csv)), _read_names("noun", Path(noun_csv)))


def fetch_class_names(dataset: str = "epic-kitchens-55") -> ClassNames:
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

    Raises:
        ValueError: the dataset is unknown, or the files do not hold its class names.
        weights.download.DownloadError: a file could not be fetched; says which one to put where.
    """
    dataset = OF_PUBLISHED_WEIGHTS.get(str(dataset).lower(), dataset)
    wanted = DATASETS[one_of("dataset", dataset, DATASETS)]
    # A folder of their own: files of other projects may have the same names.
    folder = Path(torch.hub.get_dir()) / "epic_kitchens_annotations"
    paths = [
        fetch(url, directory=folder, progress=False) for url in (wanted.verb_url, wanted.noun_url)
    ]
    # No hash is published. The content shows, for instance, that a log-in page came instead.
    try:
        names = read_class_names(*paths)
        if names.num_class != wanted.num_class:
            raise ValueError(
                f"{paths[0]} and {paths[1]} hold {names.num_class} verbs and nouns, but "
                f"{dataset} has {wanted.num_class}"
            )
    except ValueError as error:
        raise ValueError(
            f"{error}; delete what is wrong in {folder} to have it downloaded again"
        ) from error
    _logger.info("class names of %s from %s (licensed CC BY-NC 4.0)", dataset, folder)
    return names


def _read_names(task: str, path: Path) -> tuple[str, ...]:
    """Read the class names of "verb" or "noun" from one file."""
    argument = f"{task}_csv"
    layouts = ((f"{task}_id", "class_key"), ("id", "key"))
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: there is no file {path}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: Excel writes a BOM
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
    missing = set(range(max(len(names), 1))) - names.keys()
    if missing:
        raise ValueError(
            f"{argument}: {path} has {len(names)} classes, whose {id_column} must be 0, 1, ... "
            f"without gaps, but {min(missing)} is missing"
        )
    return tuple(name for _, name in sorted(names.items()))
