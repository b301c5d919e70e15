"""Classes are found in annotations, by ids, names or dataset, and faults are told all at once."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from data.segments import Segment
from epic import datasets
from epic.annotations import read_annotations
from epic.datasets import DATASETS
from training.labels import Classes, find_classes, number
from weights.download import DownloadError


def labelled(*labels: str) -> list[Segment]:
    return [Segment(f"{i}.mp4#{i}", f"{i}.mp4", label=label) for i, label in enumerate(labels)]


def with_ids(*classes: int, names: str = "") -> list[Segment]:
    """Segments with class ids, and with the letters of `names` as labels."""
    return [
        Segment(f"{i}.mp4#{i}", f"{i}.mp4", label_class=each, label=names[i : i + 1] or None)
        for i, each in enumerate(classes)
    ]


def of_two_tasks(*pairs: tuple[str, str]) -> list[Segment]:
    return [
        Segment(f"{i}.mp4#{i}", f"{i}.mp4", verb=verb, noun=noun)
        for i, (verb, noun) in enumerate(pairs)
    ]


def of_dataset(*ids: str, verb: int = 3, noun: int = 4) -> list[Segment]:
    """Segments of EPIC-KITCHENS, whose names are the narrators' and not the classes'."""
    return [
        Segment(each, "P01_11", verb="turn-on", verb_class=verb, noun="hob", noun_class=noun)
        for each in ids
    ]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, **options: object) -> Path:
        raise DownloadError(f"cannot download {url}")

    monkeypatch.setattr(datasets, "fetch", fetch)


@pytest.mark.essential
def test_names_become_classes_in_the_order_of_the_alphabet() -> None:
    training, validation = labelled("wash", "cut", "wash", "open"), labelled("open", "cut")
    classes = find_classes(training, validation)
    assert classes == Classes(3, ("cut", "open", "wash"), ("label",))
    assert [each.label_class for each in number(training, classes)] == [2, 0, 2, 1]
    assert number(validation, classes) == [
        replace(validation[0], label_class=1),
        replace(validation[1], label_class=0),
    ]


def test_verbs_and_nouns_are_two_tasks() -> None:
    segments = of_two_tasks(("open", "door"), ("close", "lid"), ("open", "jar"))
    classes = find_classes(segments)
    names = ("close", "open"), ("door", "jar", "lid")
    assert classes == Classes((2, 3), names, ("verb", "noun"))
    numbered = number(segments, classes)
    assert [(s.verb_class, s.noun_class) for s in numbered] == [(1, 0), (0, 2), (1, 1)]
    assert [s.label_class for s in numbered] == [None] * 3


def test_names_of_the_weights_that_are_the_same_keep_their_order() -> None:
    segments = labelled("a", "b", "c")
    assert find_classes(segments, known=("c", "a", "b")).names == ("c", "a", "b")
    assert number(segments, find_classes(segments, known=["c", "a", "b"]))[2].label_class == 0
    for others in (("c", "a"), ("c", "a", "d"), ("c", "b", "a", "a"), (("c", "a", "b"), ("d",))):
        assert find_classes(segments, known=others).names == ("a", "b", "c")
    two = of_two_tasks(("a", "x"), ("b", "y"))
    # The nouns are others, but the verbs' head keeps its meaning.
    assert find_classes(two, known=(("b", "a"), ("z", "y"))).names == (("b", "a"), ("x", "y"))
    assert find_classes(two, known=("b", "a")).names == (("a", "b"), ("x", "y"))


def test_ids_stay_and_each_is_named_as_most_of_its_segments_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    segments = with_ids(0, 2, 2, 2, 4, 0, names="apqq z")
    segments[4] = replace(segments[4], label=None)
    segments[5] = replace(segments[5], label="z")
    classes = find_classes(segments, known=("q", "a", "label 4", "label 3", "label 1"))
    assert classes == Classes(5, ("a", "label 1", "q", "label 3", "label 4"), ("label_class",))
    assert number(segments, classes) == segments
    assert caplog.messages == ["label_class: no training segment has 1, 3 of 0 to 4"]


def test_ids_without_names(caplog: pytest.LogCaptureFixture) -> None:
    classes = find_classes(with_ids(0, 1, 2), with_ids(2, 2))
    assert classes == Classes(3, None, ("label_class",))
    assert number(with_ids(1, 2), classes) == with_ids(1, 2)
    assert not caplog.messages


def test_ids_of_one_task_and_names_of_the_other() -> None:
    segments = [
        Segment("0", "0.mp4", verb_class=1, noun="pan"),
        Segment("1", "1.mp4", verb_class=0, noun="cup", noun_class=None),
    ]
    classes = find_classes(segments)
    names = ("verb 0", "verb 1"), ("cup", "pan")
    assert classes == Classes((2, 2), names, ("verb_class", "noun"))
    assert [(s.verb_class, s.noun_class) for s in number(segments, classes)] == [(1, 1), (0, 0)]


def test_ids_of_validation_do_not_count_where_training_has_names() -> None:
    training, validation = labelled("a", "b"), with_ids(7, 7, names="ba")
    classes = find_classes(training, validation)
    assert [each.label_class for each in number(validation, classes)] == [1, 0]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("ids", "dataset"),
    [(("1924", "7"), "epic-kitchens-55"), (("P01_11_0", "P01_11_7"), "epic-kitchens-100")],
)
def test_segments_of_a_dataset_have_all_its_classes(
    ids: tuple[str, str], dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segments = of_dataset(*ids)
    num_class = DATASETS[dataset].num_class
    columns = ("verb_class", "noun_class")
    assert find_classes(segments, segments) == Classes(num_class, None, columns)
    assert f"the classes of {dataset} stay without names: cannot download" in caplog.text

    for count, url in zip(
        num_class, (DATASETS[dataset].verb_url, DATASETS[dataset].noun_url), strict=True
    ):
        rows = "".join(f"{i},class {i}\n" for i in range(count))
        (tmp_path / url.rpartition("/")[2]).write_text("id,key\n" + rows)
    caplog.clear()
    classes = find_classes(segments, segments, folders=[tmp_path / "none", tmp_path])
    assert classes.names == tuple(tuple(f"class {i}" for i in range(count)) for count in num_class)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert number(segments, classes) == segments  # and not by the narrators' words


@pytest.mark.usefixtures("offline")
def test_a_dataset_may_have_classes_in_validation_alone(caplog: pytest.LogCaptureFixture) -> None:
    find_classes(of_dataset("1924"), of_dataset("1925", noun=5))
    assert caplog.messages[0] == "noun_class in validation alone, and so not learned: 5"
    assert len(caplog.messages) == 2  # and that there are no names


@pytest.mark.usefixtures("offline")
def test_a_file_of_class_names_that_is_something_else(tmp_path: Path) -> None:
    for name in ("EPIC_verb_classes.csv", "EPIC_noun_classes.csv"):
        (tmp_path / name).write_text("id,key\n0,take\n")
    with pytest.raises(ValueError, match=r"EPIC_verb_classes.csv and .* hold \(1, 1\) verbs"):
        find_classes(of_dataset("1924"), folders=[tmp_path])


def test_names_of_segments_of_a_dataset_are_ones_own_classes() -> None:
    segments = [replace(each, verb_class=None, noun_class=None) for each in of_dataset("1", "2")]
    segments[0] = replace(segments[0], verb="wash", noun="tap")
    assert find_classes(segments).names == (("turn-on", "wash"), ("hob", "tap"))


@pytest.mark.parametrize(
    ("training", "validation", "message"),
    [
        ([Segment("a", "a")], [], "label or label_class; or, .* noun_class; found: None$"),
        ([], [], "found: None$"),
        ([Segment("a", "a", verb="cut")], [], "found: verb$"),
        ([Segment("a", "a", noun_class=1)], [], "found: noun_class$"),
        (
            [Segment("a", "a", label="cut", verb="cut", noun="ham", noun_class=1)],
            [],
            "found: label, verb, noun_class$",
        ),
        (labelled("a", "a"), [], r"^label must have at least 2 classes, found \(1\): a$"),
        (
            [*labelled("a", "b"), Segment("x", "x"), Segment("y", "y")],
            [],
            r"^training segments without label, which tells their class \(2\): x, y$",
        ),
        (
            with_ids(0, 1, names="ab"),
            labelled("a", "b"),
            r"^validation segments without label_class, .* \(2\): 0.mp4#0, 1.mp4#1$",
        ),
        (
            labelled("a", "b"),
            labelled("a", *"zyxwvu"),
            r"^label in validation alone, .* \(6\): u, v, w, x, y and 1 more$",
        ),
        (with_ids(0, 1), with_ids(2), r"^label_class in validation alone, .* \(1\): 2$"),
        (
            with_ids(0, 10**17),
            [],
            rf"^label_class must be 0 to 99,999, got \(1\): {10**17}$",
        ),
        (labelled("a", "b\n"), [], "class_names must have no control characters, got 'b"),
        (
            [*of_two_tasks(("a", "x")), Segment("b", "b", verb="a"), Segment("c", "c", noun="x")],
            of_two_tasks(("b", "y")),
            r"^training segments without verb, .*: c; verb in validation alone, .*: b; "
            r"verb must have .*: a; training .* noun, .*: b; noun in .*: y; noun must have .*: x$",
        ),
        (
            of_dataset("P01_11_0"),
            of_dataset("1924"),
            "^the training is of epic-kitchens-100, .* 1924 is a segment of epic-kitchens-55",
        ),
        (
            of_dataset("P01_11_0", verb=97),
            [Segment("P01_11_1", "P01_11")],
            r"^the training is of epic-kitchens-100, .* verb_class must be 0 to 96 .* P01_11_0; "
            r"validation segments without verb_class, .*noun_class, .* \(1\): P01_11_1$",
        ),
    ],
)  # fmt: skip
def test_faults_are_told_all_at_once(
    training: list[Segment], validation: list[Segment], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        find_classes(training, validation)


def test_names_that_are_no_class() -> None:
    classes = find_classes(labelled("a", "b"))
    with pytest.raises(ValueError, match=r"label must be one of a, b, got c$"):
        number(labelled("a", "c"), classes)
    assert number([Segment("x", "x")], classes) == [Segment("x", "x")]


def test_the_organisers_split(epic_test_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = epic_test_data / "annotations"
    segments = read_annotations(folder / "EPIC_train_action_labels.csv")
    training = [each for each in segments if each.participant <= "P25"]
    validation = [each for each in segments if each.participant > "P25"]
    classes = find_classes(training, validation, folders=[folder])
    assert classes.num_class == (125, 352)
    assert classes.names[0][:2] == ("take", "put")
    assert "verb_class in validation alone, and so not learned: 84, 103" in caplog.text
    of_100 = read_annotations(folder / "EPIC_100_validation.csv")
    assert find_classes(of_100, folders=[folder]).num_class == (97, 300)
    with pytest.raises(ValueError, match="wrong dataset"):
        find_classes(training, of_100, folders=[folder])
