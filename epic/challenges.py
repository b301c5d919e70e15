"""Challenges on action recognition of EPIC-KITCHENS: what their servers accept.

The rules are those of the validator that the challenges share.

Differences from the original:
    What the servers accept and nobody can mean is refused: NaN, infinity, levels that are no
    integers, class ids with leading zeros.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from checkpoints.errors import list_names, show, type_name
from data.options import one_of
from epic.classes import DATASETS

__all__ = ["CHALLENGES", "NUM_ACTIONS", "Challenge", "describe_faults", "find_faults"]

NUM_ACTIONS = 100
"""Actions of a segment, if any are sent along."""
_MAX_LEVEL = 5
_TASKS = ("verb", "noun")


@dataclass(frozen=True)
class Challenge:
    """What a challenge's server expects.

    Attributes:
        version: of the format.
        num_class: numbers of verb and noun classes.
        files: names of the JSON files in the archive, one for each part of the test set.
        levels: keys of the supervision levels (SLS): of pre-training, labels and data.
        actions: whether action scores are sent along. The server computes them otherwise.
    """

    version: str
    num_class: tuple[int, int]
    files: tuple[str, ...]
    levels: tuple[str, ...] = ()
    actions: bool = False


CHALLENGES = {
    "epic-kitchens-55": Challenge(
        "0.1", DATASETS["epic-kitchens-55"].num_class, ("seen.json", "unseen.json"), actions=True
    ),
    "epic-kitchens-100": Challenge(
        "0.2",
        DATASETS["epic-kitchens-100"].num_class,
        ("test.json",),
        levels=("sls_pt", "sls_tl", "sls_td"),
    ),
}
"""The challenges by the name of their dataset."""


def find_faults(document: Any, ids: Collection[str], challenge: str) -> list[str]:
    """Return all for which the server would refuse a submission, or which makes no sense.

    Args:
        document: a file of the archive, as `json.load` returns it.
        ids: ids of the segments that it must hold.
        challenge: "epic-kitchens-100" or "epic-kitchens-55".

    Returns:
        One message for each kind of fault; none if there is no fault.

    Raises:
        ValueError: if the challenge is unknown.
    """
    expected = CHALLENGES[one_of("challenge", challenge, CHALLENGES)]
    if not isinstance(document, Mapping):
        return [f"must be a dictionary, got {type_name(document)}"]
    faults = [
        f"{key} must be {value!r}, got {show(document.get(key))}"
        for key, value in (("version", expected.version), ("challenge", "action_recognition"))
        if document.get(key) != value
    ]
    faults += [
        f"{key} must be an integer from 0 to {_MAX_LEVEL}, got {show(document.get(key))}"
        for key in expected.levels
        if type(document.get(key)) is not int or not 0 <= document[key] <= _MAX_LEVEL
    ]
    results = document.get("results")
    if not isinstance(results, Mapping):
        return [*faults, f"results must be a dictionary, got {type_name(results)}"]
    wanted = set(ids)
    segments: dict[str, list[str]] = {
        "missing": [name for name in ids if name not in results],
        "not in the test set": [name for name in results if name not in wanted],
    }
    classes = {
        task: {str(i) for i in range(count)}
        for task, count in zip(_TASKS, expected.num_class, strict=True)
    }
    with_actions = []
    for name, result in results.items():
        if not isinstance(result, Mapping):
            segments.setdefault("no dictionaries", []).append(name)
            continue
        found = [f for task in _TASKS for f in _find_score_faults(task, result, classes[task])]
        if "action" in result:
            with_actions.append(name)
            found += _find_action_faults(result["action"], classes)
        for fault in found:
            segments.setdefault(fault, []).append(name)
    if 0 < len(with_actions) < len(results):
        segments["with action scores, others without"] = with_actions
    return faults + describe_faults(segments)


def describe_faults(segments: Mapping[str, list[str]]) -> list[str]:
    """Return a message for each kind of fault: how many segments have it, and a few of them."""
    return [
        f"{len(names):,} segment{'s' * (len(names) != 1)} {fault}: {list_names(names)}"
        for fault, names in segments.items()
        if names
    ]


def _find_score_faults(task: str, result: Mapping[str, Any], classes: set[str]) -> Iterator[str]:
    scores = result.get(task)
    if not isinstance(scores, Mapping):
        yield f"without a dictionary of {task} scores"
        return
    if scores.keys() != classes:
        yield f"whose {len(scores)} {task} classes are not 0 to {len(classes) - 1}"
    if not _are_finite(scores):
        yield f"with {task} scores that are no finite numbers"


def _find_action_faults(scores: Any, classes: Mapping[str, set[str]]) -> Iterator[str]:
    if not isinstance(scores, Mapping) or len(scores) != NUM_ACTIONS:
        count = len(scores) if isinstance(scores, Mapping) else type_name(scores)
        yield f"with other than {NUM_ACTIONS} action scores ({count})"
        return
    pairs = [key.partition(",") for key in scores]
    if not all(v in classes["verb"] and n in classes["noun"] for v, _, n in pairs):
        yield "with actions that are no 'verb,noun' of known classes"
    if not _are_finite(scores):
        yield "with action scores that are no finite numbers"


def _are_finite(scores: Mapping[str, Any]) -> bool:
    # A comparison, for math.isfinite fails with integers that no float can hold.
    return all(isinstance(s, int | float) and -math.inf < s < math.inf for s in scores.values())
