import json
from typing import Any

import numpy as np
import pytest

from engine.report import Evaluation, format_json, format_report
from weights.published import Accuracies

EPIC_100: dict[str, Any] = {
    **{f"all_{task}_accuracy_at_1": 10.126 * (i + 1) for i, task in enumerate(("verb", "noun"))},
    **{f"all_{task}_accuracy_at_5": 31.0 + i for i, task in enumerate(("verb", "noun", "action"))},
    "all_action_accuracy_at_1": np.float64(5.005001),
    "tail_verb_accuracy_at_1": 1.0,
    "tail_noun_accuracy_at_1": 2.0,
    "tail_action_accuracy_at_1": 3.0,
}
UNSEEN = {f"unseen_{task}_accuracy_at_1": 7.0 for task in ("verb", "noun", "action")}
EPIC_55: dict[str, Any] = {
    "accuracy": {"verb": [0.5, 0.75], "noun": np.array([0.25, 1]), "action": [0.12345, 0.2]},
    "precision": {"action": 0.0, "verb": 0.5, "noun": float("nan"), "verb_per_class": {3: 0.5}},
    "recall": {"action": 0.1, "verb": 0.2, "noun": 0.3, "verb_per_class": {3: 0.2}},
}


def test_models_on_epic_kitchens_100_one_below_the_other() -> None:
    text = format_report(
        [
            Evaluation(
                "TSM RGB", "EPIC-KITCHENS-100, validation", EPIC_100 | UNSEEN, 9668,
                published=Accuracies(None, None, 35.75),
            ),
            Evaluation("fusion of both", "EPIC-KITCHENS-100, validation", EPIC_100, 9660, 7, 1),
        ]
    )  # fmt: skip
    assert (
        text
        == """\
EPIC-KITCHENS-100, validation

                  segments   skipped    failed
TSM RGB              9,668         0         0
fusion of both       9,660         7         1

                         verb              noun             action
percent              top-1   top-5     top-1   top-5     top-1   top-5
all
  TSM RGB            10.13   31.00     20.25   32.00      5.01   33.00
    published            -       -         -       -     35.75       -
  fusion of both     10.13   31.00     20.25   32.00      5.01   33.00
unseen
  TSM RGB             7.00       -      7.00       -      7.00       -
tail
  TSM RGB             1.00       -      2.00       -      3.00       -
  fusion of both      1.00       -      2.00       -      3.00       -
"""
    )


def test_an_estimate_of_the_published_table_of_epic_kitchens_55() -> None:
    note = "estimate of the published table: 7,562 of 8,047 S1 segments"
    published = Accuracies(57.88, 40.84, 28.22)
    evaluation = Evaluation(
        "TSM", "EPIC-KITCHENS-55, S1", EPIC_55, 7562, published=published, note=note
    )
    assert (
        format_report([evaluation])
        == """\
EPIC-KITCHENS-55, S1
estimate of the published table: 7,562 of 8,047 S1 segments

               segments   skipped    failed
TSM               7,562         0         0

                      verb              noun             action
percent           top-1   top-5     top-1   top-5     top-1   top-5
accuracy
  TSM             50.00   75.00     25.00  100.00     12.35   20.00
    published     57.88       -     40.84       -     28.22       -
mean precision of many-shot classes
  TSM             50.00       -         -       -      0.00       -
mean recall of many-shot classes
  TSM             20.00       -     30.00       -     10.00       -
"""
    )


def test_datasets_have_tables_of_their_own() -> None:
    first = Evaluation("a", "one.csv", {"label": [0.5, 1]}, 2)
    second = Evaluation("b", "two.csv", {"verb": (0.5, 1), "noun": (0, 0.25)}, 4)
    text = format_report([first, second])
    assert text == format_report([first]) + "\n" + format_report([second])
    assert text.splitlines()[5:9] == [
        "                     label",
        "percent           top-1   top-5",
        "accuracy",
        "  a               50.00  100.00",
    ]


def test_metrics_of_another_kind() -> None:
    with pytest.raises(ValueError, match=r"of epic\.metrics, got the keys \['top1'\]"):
        format_report([Evaluation("a", "b", {"top1": 0.5}, 1)])


def test_json_has_everything_unrounded() -> None:
    evaluations = [
        Evaluation("TSM", "100", EPIC_100, 9668, 1, 2, Accuracies(None, None, 35.75)),
        Evaluation("TSN", "55", EPIC_55, 7562, note="estimate"),
    ]
    first, second = json.loads(format_json(evaluations), parse_constant=pytest.fail)
    assert first == {
        "name": "TSM",
        "dataset": "100",
        "metrics": EPIC_100,
        "metrics_unit": "percent",
        "num_segments": 9668,
        "num_skipped": 1,
        "num_failed": 2,
        "published": {"verb": None, "noun": None, "action": 35.75},
        "note": "",
    }
    assert (second["metrics_unit"], second["note"]) == ("fraction", "estimate")
    assert second["metrics"]["accuracy"]["noun"] == [0.25, 1]
    assert second["metrics"]["precision"]["verb_per_class"] == {"3": 0.5}
    assert second["metrics"]["precision"]["noun"] is None  # JSON has no NaN
