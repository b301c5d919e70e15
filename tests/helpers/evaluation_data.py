"""A tiny dataset with models of its classes, and command lines that evaluate them."""

import csv
from pathlib import Path
from typing import Any

from epic.class_lists import CLASS_LISTS
from epic.datasets import DATASETS
from helpers.epic_dataset import write_csvs, write_flow, write_rgb, write_videos
from helpers.synthetic_clips import tiny_tsn
from model_loader import save_checkpoint


def write_evaluation_data(root: Path) -> Path:
    """Make frames, flow, videos, annotations with the official files beside them, and weights."""
    write_rgb(root / "frames")
    write_flow(root / "frames", "downloads")
    write_videos(root / "videos")
    write_csvs(root / "csv")
    write_official_files(root / "csv")
    for name, num_class, modality in (
        ("rgb", (97, 300), "RGB"),
        ("flow", (97, 300), "Flow"),
        ("rgb55", (125, 352), "RGB"),
        ("one_task", 4, "RGB"),
    ):
        save_checkpoint(tiny_tsn(num_class, modality=modality), root / f"{name}.pth.tar")
    return root


def write_official_files(folder: Path) -> None:
    """Write lists and class names in the official columns, so that nothing has to be fetched."""
    lists = {
        "tail_verbs": [2, 3], "tail_nouns": [4], "unseen_participants": ["P02"],
        "many_shot_verbs": [0, 1, 2], "many_shot_nouns": [2, 8], "many_shot_actions": [(0, 2)],
    }  # fmt: skip
    for official in CLASS_LISTS.values():
        for name, each in official.items():
            write_column(folder / each.url.rpartition("/")[2], each.column, lists[name])
    for (verbs, nouns), dataset in ((each.num_class, each) for each in DATASETS.values()):
        for url, count, task in (
            (dataset.verb_url, verbs, "verb"),
            (dataset.noun_url, nouns, "noun"),
        ):
            columns = ("id", "key") if "EPIC_100" in url else (f"{task}_id", "class_key")
            rows = [(index, f"{task}{index}") for index in range(count)]
            with open(folder / url.rpartition("/")[2], "w", newline="") as file:
                csv.writer(file).writerows(
                    [(*columns, "instances"), *((*row, "[]") for row in rows)]
                )


def write_column(path: Path, column: str, values: list[Any]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([(column,), *((value,) for value in values)])


def labelled(root: Path) -> Path:
    return root / "csv" / "EPIC_100_validation.csv"


def arguments(root: Path, out: Path, *checkpoints: str, **options: Any) -> list[str]:
    """Return a command line; options with the value None stand alone."""
    options = {
        "annotations": root / "csv" / "EPIC_100_test_timestamps.csv", "data": root / "frames",
        "out": out, "device": "cpu", "threads": 1, "workers": 0, "batch_size": 2, **options,
    }  # fmt: skip
    command = [str(root / f"{name}.pth.tar") for name in checkpoints or ("rgb",)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", *([] if value is None else str(value).split())]
    return command
