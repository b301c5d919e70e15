"""What the challenges' servers refuse is refused, and what they accept is accepted but nonsense."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epic.challenges import find_faults

RECORDED = Path(__file__).parent / "reference" / "evaluation" / "evaluation.json"
IDS = ["P01_101_0", "P01_101_1", "P02_3_0"]
CLASSES = {
    "epic-kitchens-100": {"verb": 97, "noun": 300},
    "epic-kitchens-55": {"verb": 125, "noun": 352},
}


def made(challenge: str = "epic-kitchens-100") -> Any:
    results = {
        name: {
            task: {str(i): i / 8 for i in range(count)}
            for task, count in CLASSES[challenge].items()
        }
        for name in IDS
    }
    if challenge == "epic-kitchens-55":
        return {"version": "0.1", "challenge": "action_recognition", "results": results}
    levels = {"sls_pt": 1, "sls_tl": 3, "sls_td": 5}
    return {"version": "0.2", "challenge": "action_recognition", **levels, "results": results}


def actions(count: int = 100) -> dict[str, float]:
    return {f"{i % 97},{i}": 0.5 for i in range(count)}


def faults(change: Callable[[Any], Any], challenge: str = "epic-kitchens-100") -> list[str]:
    """The faults of a submission that was changed, after a way through JSON."""
    document = made(challenge)
    change(document)
    return find_faults(json.loads(json.dumps(document)), IDS, challenge)


def first(document: Any) -> Any:
    return document["results"][IDS[0]]


def rename(mapping: Any, old: str, new: str) -> None:
    mapping[new] = mapping.pop(old)


def give_all(document: Any, scores: Any) -> None:
    for result in document["results"].values():
        result["action"] = scores


def set_first_action(document: Any, key: str, score: Any = 0.5) -> None:
    give_all(document, {**actions(99), key: score})


CASES: dict[str, tuple[Callable[[Any], Any], str | None]] = {
    "as written": (lambda d: None, None),
    "string score": (
        lambda d: first(d)["verb"].update({"5": "1.5"}),
        "1 segment with verb scores that are no finite numbers: P01_101_0",
    ),
    "null score": (
        lambda d: first(d)["noun"].update({"5": None}),
        "1 segment with noun scores that are no",
    ),
    "boolean score": (lambda d: first(d)["verb"].update({"5": True}), None),
    "integer score": (lambda d: first(d)["verb"].update({"5": 3}), None),
    "extra id": (lambda d: d["results"].update(x=first(d)), "1 segment not in the test set: x"),
    "missing id": (lambda d: d["results"].pop(IDS[1]), "1 segment missing: P01_101_1"),
    "class 97 extra": (
        lambda d: first(d)["verb"].update({"97": 0.0}),
        "1 segment whose 98 verb classes are not 0 to 96",
    ),
    "missing class": (
        lambda d: first(d)["noun"].pop("299"),
        "1 segment whose 299 noun classes are not 0 to 299: P01",
    ),
    "class key abc": (
        lambda d: rename(first(d)["verb"], "5", "abc"),
        "1 segment whose 97 verb classes are not 0 to 96",
    ),
    "class key 1.0": (lambda d: rename(first(d)["verb"], "1", "1.0"), "whose 97 verb classes"),
    "class key -1": (lambda d: rename(first(d)["verb"], "1", "-1"), "whose 97 verb classes"),
    "no verbs": (
        lambda d: first(d).pop("verb"),
        "1 segment without a dictionary of verb scores: P01_101_0",
    ),
    "a list of verbs": (
        lambda d: first(d).update(verb=[0.5] * 97),
        "1 segment without a dictionary of verb scores",
    ),
    "a list for a segment": (
        lambda d: d["results"].update({IDS[0]: []}),
        "1 segment no dictionaries: P01_101_0",
    ),
    "challenge x": (
        lambda d: d.update(challenge="x"),
        "challenge must be 'action_recognition', got 'x'",
    ),
    "another challenge": (
        lambda d: d.update(challenge="action_anticipation"),
        "challenge must be 'action_rec",
    ),
    "no challenge": (
        lambda d: d.pop("challenge"),
        "challenge must be 'action_recognition', got None",
    ),
    "version 0.1": (lambda d: d.update(version="0.1"), "version must be '0.2', got '0.1'"),
    "a number as version": (lambda d: d.update(version=0.2), "version must be '0.2', got 0.2"),
    "no version": (lambda d: d.pop("version"), "version must be '0.2', got None"),
    "no sls": (lambda d: d.pop("sls_pt"), "sls_pt must be an integer from 0 to 5, got None"),
    "sls 6": (lambda d: d.update(sls_tl=6), "sls_tl must be an integer from 0 to 5, got 6"),
    "sls -1": (lambda d: d.update(sls_td=-1), "sls_td must be an integer from 0 to 5, got -1"),
    "a string as sls": (
        lambda d: d.update(sls_td="3"),
        "sls_td must be an integer from 0 to 5, got '3'",
    ),
    "no results": (lambda d: d.pop("results"), "results must be a dictionary, got NoneType"),
    "100 actions everywhere": (lambda d: give_all(d, actions()), None),
    "99 actions everywhere": (
        lambda d: give_all(d, actions(99)),
        "3 segments with other than 100 action scores (99): P01",
    ),
    "101 actions everywhere": (
        lambda d: give_all(d, actions(101)),
        "3 segments with other than 100 action scores (101)",
    ),
    "actions are null": (
        lambda d: give_all(d, None),
        "3 segments with other than 100 action scores (NoneType)",
    ),
    "actions on the first only": (
        lambda d: first(d).update(action=actions()),
        "1 segment with action scores, others without: P01",
    ),
    "action 97,0": (
        lambda d: set_first_action(d, "97,0"),
        "3 segments with actions that are no 'verb,noun' of known classes",
    ),
    "action 0,300": (lambda d: set_first_action(d, "0,300"), "3 segments with actions that are no"),
    "action 5": (lambda d: set_first_action(d, "5"), "3 segments with actions that are no"),
    "action 1,2,3": (lambda d: set_first_action(d, "1,2,3"), "3 segments with actions that are no"),
    "a string as action score": (
        lambda d: set_first_action(d, "0,299", "1"),
        "3 segments with action scores that are no finite",
    ),
    "extra top-level key": (lambda d: d.update(comment=["anything"]), None),
    "extra key of a segment": (lambda d: first(d).update(comment="anything"), None),
}
"""How a submission is changed, and what is wrong with it then: None where the server accepts it."""
NONSENSE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nan score": (
        lambda d: first(d)["verb"].update({"5": math.nan}),
        "verb scores that are no finite",
    ),
    "inf score": (
        lambda d: first(d)["verb"].update({"5": math.inf}),
        "verb scores that are no finite",
    ),
    "nan action score": (
        lambda d: set_first_action(d, "0,299", math.nan),
        "action scores that are no finite",
    ),
    "class key 05": (
        lambda d: rename(first(d)["verb"], "5", "05"),
        "whose 97 verb classes are not 0 to 96",
    ),
    "action 05,6": (
        lambda d: set_first_action(d, "05,6"),
        "actions that are no 'verb,noun' of known",
    ),
    "sls 1.5": (lambda d: d.update(sls_pt=1.5), "sls_pt must be an integer from 0 to 5, got 1.5"),
    "sls true": (
        lambda d: d.update(sls_pt=True),
        "sls_pt must be an integer from 0 to 5, got True",
    ),
}
"""What the server accepts and nobody can mean."""


@pytest.mark.parametrize("case", CASES)
def test_what_the_server_refuses_is_refused(case):
    change, message = CASES[case]
    found = faults(change)
    if message is None:
        assert found == []
    else:
        assert len(found) == 1
        assert message in found[0]


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_that_the_server_accepts_is_refused(case):
    change, message = NONSENSE[case]
    (found,) = faults(change)
    assert message in found


def test_verdicts_are_those_of_the_server():
    verdicts = json.loads(RECORDED.read_text())["submission_verdicts"]["verdicts"]
    assert len(verdicts) > 10
    for case, verdict in verdicts.items():
        if case in NONSENSE:
            assert verdict == "accepted"
        else:
            assert (verdict == "accepted") == (faults(CASES[case][0]) == []), case


def test_epic_kitchens_55_has_its_own_version_and_classes_and_no_levels():
    challenge = "epic-kitchens-55"
    assert faults(lambda d: None, challenge) == []
    assert faults(lambda d: d.update(version="0.2"), challenge) == [
        "version must be '0.1', got '0.2'"
    ]
    assert faults(lambda d: give_all(d, actions()), challenge) == []
    assert find_faults(made(), IDS, challenge) == [
        "version must be '0.1', got '0.2'",
        "3 segments whose 97 verb classes are not 0 to 124: P01_101_0, P01_101_1, P02_3_0",
        "3 segments whose 300 noun classes are not 0 to 351: P01_101_0, P01_101_1, P02_3_0",
    ]


def test_all_faults_are_listed_and_those_of_a_kind_together():
    document = made()
    document.update(version="1", sls_pt=9)
    document["results"]["P01_101_0"]["verb"]["3"] = "a"
    document["results"]["P01_101_1"]["verb"]["4"] = "a"
    ids = [*IDS, *(f"P09_{i}" for i in range(37))]
    assert find_faults(document, ids, "epic-kitchens-100") == [
        "version must be '0.2', got '1'",
        "sls_pt must be an integer from 0 to 5, got 9",
        "37 segments missing: P09_0, P09_1, P09_10, P09_11, P09_12 and 32 more",
        "2 segments with verb scores that are no finite numbers: P01_101_0, P01_101_1",
    ]
    assert find_faults([], IDS, "epic-kitchens-100") == ["must be a dictionary, got list"]
    with pytest.raises(ValueError, match="challenge must be one of"):
        find_faults(document, IDS, "epic-kitchens")
