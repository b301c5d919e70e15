"""Metrics of scores: which ones, with which lists."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.segments import Segment
from engine import measure as module
from engine.measure import is_labelled, measure, official_lists, select_scores
from weights.download import DownloadError


def segment(index: int, verb: int, noun: int, participant: str = "P01") -> Segment:
    return Segment(
        f"P01_01_{index}", "P01_01", participant, verb_class=verb, noun_class=noun, label_class=verb
    )


def scores_of(segments: list[Segment], **counts: int) -> dict[str, Any]:
    """Return scores by which each verb, noun and label is recognised, but for the last segment."""
    scores: dict[str, Any] = {"ids": [each.id for each in segments], "video_ids": ["P01_01"] * 3}
    for task, count in counts.items():
        classes = [getattr(each, f"{task}_class") for each in segments]
        classes[-1] += 1
        scores[task] = 5.0 * np.eye(count, dtype=np.float32)[classes]
    return scores


SEGMENTS = [segment(0, 1, 2), segment(1, 3, 4, "P18"), segment(2, 5, 6)]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(url: str, folders: list[Path]) -> Path:
        name = url.rpartition("/")[2]
        for folder in folders:
            if (folder / name).exists():
                return folder / name
        raise DownloadError("no network")

    monkeypatch.setattr(module, "find_official_file", find)


def test_labels_are_those_of_the_tasks_with_scores() -> None:
    scores = scores_of(SEGMENTS, label=7)
    assert is_labelled(SEGMENTS, scores)
    assert not is_labelled([Segment("a", "b", verb_class=1)], scores)


def test_scores_of_some_segments_keep_their_order() -> None:
    scores = select_scores(scores_of(SEGMENTS, verb=97), {"P01_01_2", "P01_01_0", "other"})
    assert scores["ids"] == ["P01_01_0", "P01_01_2"]
    assert scores["verb"].argmax(1).tolist() == [1, 6]
    assert scores["video_ids"] == ["P01_01"] * 2


@pytest.mark.usefixtures("offline")
def test_lists_lie_beside_the_annotations_and_the_missing_ones_are_named(tmp_path: Path) -> None:
    with open(tmp_path / "EPIC_100_unseen_participant_ids_validation.csv", "w") as file:
        csv.writer(file).writerows([("participant_id",), ("P18",)])
    lists, missing = official_lists("epic-kitchens-100", folders=[tmp_path])
    assert lists == {"tail_verbs": (), "tail_nouns": (), "unseen_participants": ("P18",)}
    assert missing == ["EPIC_100_tail_verbs.csv", "EPIC_100_tail_nouns.csv"]
    metrics = measure(scores_of(SEGMENTS, verb=97, noun=300), SEGMENTS, (97, 300), lists)
    assert metrics["all_verb_accuracy_at_1"] == pytest.approx(200 / 3)
    assert metrics["unseen_verb_accuracy_at_1"] == 100
    assert not any(key.startswith("tail") for key in metrics)


@pytest.mark.usefixtures("offline")
def test_training_tells_the_many_shot_classes() -> None:
    training = [segment(index, 1, 2) for index in range(101)]
    training += [segment(index, 3, 4) for index in range(100)]
    training += [segment(index, 7, 8) for index in range(101)]
    lists, missing = official_lists("epic-kitchens-55", training)
    assert lists == {
        "many_shot_verbs": [1, 7], "many_shot_nouns": [2, 8],
        "many_shot_actions": [(1, 2), (7, 8)],
    }  # fmt: skip
    assert missing == []
    metrics = measure(scores_of(SEGMENTS, verb=125, noun=352), SEGMENTS, (125, 352), lists)
    assert metrics["recall"]["verb_per_class"] == {"1": 1.0}


def test_other_classes_get_accuracies() -> None:
    lists, missing = official_lists(None)
    metrics = measure(scores_of(SEGMENTS, label=7), SEGMENTS, 7, lists)
    assert metrics == {
        "label": [pytest.approx(2 / 3)] * 2
    }  # of equal scores, lower classes come first
    assert missing == []
