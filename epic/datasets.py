"""The EPIC-KITCHENS datasets: their numbers of classes and their official files.

The files are published at https://github.com/epic-kitchens/annotations (EPIC-KITCHENS-55) and
https://github.com/epic-kitchens/epic-kitchens-100-annotations (EPIC-KITCHENS-100), under the
licence CC BY-NC 4.0. They are never shipped with this library.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch.hub

from data.options import class_counts, first_few
from data.segments import Segment
from data.timestamps import nominal_rate
from weights.download import fetch

__all__ = [
    "DATASETS",
    "OF_PUBLISHED_WEIGHTS",
    "Dataset",
    "check_labels",
    "find_dataset",
    "find_official_file",
    "infer_dataset",
]


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


def find_dataset(num_class: int | tuple[int, int]) -> str | None:
    """Return the name of the dataset that has these numbers of classes."""
    return next((name for name, each in DATASETS.items() if each.num_class == num_class), None)


def find_official_file(url: str, folders: Iterable[Path] = ()) -> Path:
    """Return the path of an official file, which is downloaded unless it is there already.

    Args:
        url: where it is published.
        folders: where it is looked for first, such as that of the annotations.

    Raises:
        weights.download.DownloadError: if it cannot be fetched; says which file to put where.
    """
    name = PurePosixPath(urlsplit(url).path).name
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    # A folder of their own: files of other projects may have the same names.
    return fetch(
        url, directory=Path(torch.hub.get_dir()) / "epic_kitchens_annotations", progress=False
    )


def check_labels(segments: Sequence[Segment], num_class: int | tuple[int, int]) -> None:
    """Check that labels can be those of a model: neither too large nor of the other dataset.

    The classes of EPIC-KITCHENS-100 would fit into the 125 verbs and 352 nouns of
    EPIC-KITCHENS-55, but mean something else; the ids of segments tell the datasets apart.

    Args:
        segments: of one annotation file. Those without labels pass.
        num_class: the model's: of one task (`label_class`), or (verbs, nouns).

    Raises:
        ValueError: annotations of the wrong dataset; says what shows it.
    """
    counts = class_counts(num_class)
    if isinstance(counts, int):
        tasks = {"label_class": counts}
    else:
        tasks = dict(zip(("verb_class", "noun_class"), counts, strict=True))
    faults: list[str] = []
    labels = {
        field
        for field in ("verb_class", "noun_class", "label_class")
        if any(getattr(segment, field) is not None for segment in segments)
    }
    if labels and not labels & tasks.keys():
        faults.append(
            f"labels are in {first_few(sorted(labels))}, a model with num_class={counts} needs "
            f"{first_few(tasks)}"
        )
    for field, count in tasks.items():
        classes = [(getattr(segment, field), segment.id) for segment in segments]
        outside = [each for each in classes if each[0] is not None and each[0] >= count]
        if outside:
            faults.append(
                f"{field} must be 0 to {count - 1} for this model, but is more in "
                f"{len(outside):,} of {len(segments):,} segments, such as "
                f"{outside[0][0]} in {outside[0][1]}"
            )
    if dataset := find_dataset(counts):
        labelled = [segment for segment in segments if segment.verb_class is not None]
        datasets = {infer_dataset(segment): segment.id for segment in labelled}
        for other in datasets.keys() - {None, dataset}:
            faults.append(f"{datasets[other]} is a segment of {other}, the model is for {dataset}")
    if faults:
        raise ValueError(f"annotations of the wrong dataset: {'; '.join(faults)}")


def infer_dataset(segment: Segment) -> str | None:
    """Return the name of the dataset whose kind of id a segment has, None if it is of neither.

    Ids are such as 1924 in EPIC-KITCHENS-55, and P01_11_0 in EPIC-KITCHENS-100, whose beginning is
    the video.
    """
    video, _, number = segment.id.rpartition("_")
    if nominal_rate(segment.video) is None or not number.isdecimal():
        return None
    return {"": "epic-kitchens-55", segment.video: "epic-kitchens-100"}.get(video)
