"""Test segments of EPIC-KITCHENS-55 get the labels of EPIC-KITCHENS-100's validation rows."""

from dataclasses import replace
from pathlib import Path

import pytest

from data.segments import Segment
from epic.annotations import read_annotations
from epic.common_test_set import label_common_segments

VERBS = "verb_id,class_key,verbs\n0,take,\"['take', 'get']\"\n1,put,['put-down']\n"
NOUNS = "noun_id,class_key,nouns\n0,Nothing,['Nothing']\n1,pan,\"['pan', 'wok']\"\n"

TEST = [
    Segment("10", "P01_11", "P01", (1, 113), (0.0, 1.89)),
    Segment("11", "P01_11", "P01", (93, 147), (1.56, 2.45)),
    Segment("12", "P01_11", "P01", (200, 300), (3.4, 5.0)),
    Segment("13", "P01_12", "P01", (1, 113), (0.0, 1.89)),
]


def twin(id: str, segment: Segment, verb: str, noun: str) -> Segment:
    labels = {"verb": verb, "verb_class": 90, "noun": noun, "noun_class": 290}
    return replace(segment, id=id, narration=f"{verb} {noun}", **labels)


VALIDATION = [
    twin("P01_12_0", TEST[3], "put", "wok"),
    twin("P01_11_0", TEST[0], "get", "pan"),
    twin("P01_11_1", TEST[1], "take", "unicorn"),
    twin("P01_11_2", replace(TEST[2], frames=(201, 300)), "take", "pan"),
]


@pytest.fixture
def classes(tmp_path: Path) -> tuple[Path, Path]:
    """The class files of EPIC-KITCHENS-55 with two verbs and two nouns."""
    paths = tmp_path / "verbs.csv", tmp_path / "nouns.csv"
    for path, text in zip(paths, (VERBS, NOUNS), strict=True):
        path.write_text(text)
    return paths


@pytest.mark.essential
def test_labels_of_common_segments(classes: tuple[Path, Path]) -> None:
    common = label_common_segments(iter(TEST), iter(VALIDATION), *classes)
    labels = [(s.id, s.verb, s.verb_class, s.noun, s.noun_class) for s in common.segments]
    assert labels == [("10", "get", 0, "pan", 1), ("13", "put", 1, "wok", 1)]
    assert (common.num_common, common.num_test) == (3, 4)
    first = common.segments[0]
    assert (first.frames, first.seconds, first.narration) == ((1, 113), (0.0, 1.89), "get pan")


@pytest.mark.parametrize(
    ("test", "validation"),
    [
        ([], []),
        (TEST, VALIDATION[3:]),
        (TEST, TEST),  # without labels
    ],
)
def test_nothing_in_common(classes, test: list[Segment], validation: list[Segment]) -> None:
    with pytest.raises(ValueError, match=f"got {len(test)} and . labelled ones"):
        label_common_segments(test, validation, *classes)


def test_class_files_of_the_other_dataset(classes: tuple[Path, Path]) -> None:
    classes[1].write_text("id,key,instances,category\n0,tap,['tap'],appliances\n")
    with pytest.raises(ValueError, match=r"noun_csv: .* the column nouns of EPIC-KITCHENS-55"):
        label_common_segments(TEST, VALIDATION, *classes)


def test_official_files(epic_test_data: Path) -> None:
    folder = epic_test_data / "annotations"
    test = read_annotations(folder / "EPIC_test_s1_timestamps.csv")
    common = label_common_segments(
        test,
        read_annotations(folder / "EPIC_100_validation.csv"),
        folder / "EPIC_verb_classes.csv",
        folder / "EPIC_noun_classes.csv",
    )
    assert (len(common.segments), common.num_common, common.num_test) == (7_542, 8_032, 8_047)
    originals = {segment.id: segment for segment in test}
    for segment in common.segments:
        unlabelled = replace(
            segment, narration=None, verb=None, verb_class=None, noun=None, noun_class=None
        )
        assert unlabelled == originals[segment.id]
        assert 0 <= segment.verb_class < 125
        assert 0 <= segment.noun_class < 352
