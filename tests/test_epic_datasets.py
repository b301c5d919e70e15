"""Datasets are told by classes and ids, and their files found beside the annotations or fetched."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from data.segments import Segment
from epic import datasets
from epic.annotations import read_annotations
from epic.datasets import check_labels, find_dataset, find_official_file, infer_dataset

URL = "https://example.org/master/EPIC_100_tail_verbs.csv"

OF_55 = Segment("1924", "P01_11", verb_class=0, noun_class=4)
OF_100 = Segment("P01_11_0", "P01_11", verb_class=0, noun_class=2)
OWN = Segment("a.mp4#0", "a.mp4", verb_class=96, noun_class=299)
ONE_TASK = Segment("a.mp4#0", "a.mp4", label_class=4)


def test_datasets_are_told_by_their_classes() -> None:
    assert find_dataset((125, 352)) == "epic-kitchens-55"
    assert find_dataset((97, 300)) == "epic-kitchens-100"
    assert find_dataset((97, 352)) is find_dataset(97) is None


def test_datasets_are_told_by_the_ids_of_segments() -> None:
    assert infer_dataset(OF_55) == "epic-kitchens-55"
    assert infer_dataset(OF_100) == "epic-kitchens-100"
    for other in (
        OWN,
        Segment("1924", "own.mp4"),
        Segment("P01_12_0", "P01_11"),
        Segment("P01_11#0", "P01_11"),
        Segment("P01_11_x", "P01_11"),
    ):
        assert infer_dataset(other) is None


def test_files_beside_the_annotations_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(url: str, directory: Path, progress: bool) -> Path:
        fetched.append((url, directory))
        return directory / "fetched"

    monkeypatch.setattr(datasets, "fetch", fetch)
    folders = [tmp_path / "none", tmp_path]
    assert find_official_file(URL, folders).name == "fetched"
    assert fetched == [(URL, Path(torch.hub.get_dir()) / "epic_kitchens_annotations")]
    (tmp_path / "EPIC_100_tail_verbs.csv").touch()
    assert find_official_file(URL, folders) == tmp_path / "EPIC_100_tail_verbs.csv"
    assert len(fetched) == 1


@pytest.mark.parametrize(
    ("segments", "num_class"),
    [
        ([OF_55, OWN], (125, 352)),
        ([OF_100, OWN], (97, 300)),
        ([OF_100, OF_55], (124, 300)),
        ([Segment("P01_101_0", "P01_101")], (125, 352)),
        ([ONE_TASK], 5),
        ([], (97, 300)),
    ],
    ids=["55", "100", "own classes", "unlabelled", "one task", "none"],
)
def test_labels_that_can_be_the_models(segments: list[Segment], num_class) -> None:
    check_labels(segments, num_class)


@pytest.mark.parametrize(
    ("segments", "num_class", "message"),
    [
        (
            [OWN, OF_100],
            (125, 352),
            "P01_11_0 is a segment of epic-kitchens-100, .* for epic-kitchens-55$",
        ),
        (
            [OWN, OF_55],
            (97, 300),
            "1924 is a segment of epic-kitchens-55, .* for epic-kitchens-100$",
        ),
        (
            [OF_100, OWN],
            (96, 300),
            "verb_class must be 0 to 95 .* 1 of 2 segments, such as 96 in a.mp4#0$",
        ),
        ([OWN], (2, 3), "verb_class .*; noun_class must be 0 to 2 .* 299 in a.mp4#0$"),
        ([OF_100], 97, "labels are in noun_class, verb_class, .*num_class=97 needs label_class$"),
        ([ONE_TASK], (5, 5), "labels are in label_class, .* needs verb_class, noun_class$"),
        ([ONE_TASK], 4, "label_class must be 0 to 3 .* 1 of 1 segments, such as 4 in a.mp4#0$"),
    ],
)
def test_labels_of_the_wrong_dataset(
    segments: Sequence[Segment], num_class: int | tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^annotations of the wrong dataset: {message}"):
        check_labels(segments, num_class)


def test_official_labels(epic_test_data: Path) -> None:
    folder = epic_test_data / "annotations"
    of_55 = read_annotations(folder / "EPIC_train_action_labels.csv")
    of_100 = read_annotations(folder / "EPIC_100_validation.csv")
    check_labels(of_55, (125, 352))
    check_labels(of_100, (97, 300))
    with pytest.raises(ValueError, match=r"34 of 28,472 .* 133 of .* of epic-kitchens-55, the"):
        check_labels(of_55, (97, 300))
    with pytest.raises(ValueError, match="is a segment of epic-kitchens-100"):
        check_labels(of_100, (125, 352))
