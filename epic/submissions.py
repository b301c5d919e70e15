"""Archives to upload to the challenges on action recognition of EPIC-KITCHENS.

Their format is that of https://github.com/epic-kitchens/C1-Action-Recognition. The challenges take
few uploads (in 2020 one a day), so what their servers would refuse is refused before it is written.

Differences from the original:
    Ids and scores are checked, not only their number. What the servers accept and nobody can mean
    is refused: NaN, infinity, levels that are no integers.
"""

import json
import os
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import list_names, show
from checkpoints.files import atomic_write
from data.options import one_of
from epic.actions import Actions, action_scores
from epic.datasets import DATASETS
from epic.faults import raise_faults, repeated
from epic.score_fields import Scores, validate_scores

__all__ = ["CHALLENGES", "Challenge", "write_submission"]

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


def write_submission(
    path: str | os.PathLike[str],
    scores: Mapping[str, Any],
    ids: Mapping[str, Collection[str]],
    *,
    challenge: str,
    levels: Mapping[str, int] | None = None,
) -> Path:
    """Write the archive to upload, at once and whole; an existing file is replaced.

    The same arguments give the same bytes. Scores are written as the float64 that equals them, as
    the original does.

    Args:
        path: destination.
        scores: of all segments of the test set, as `epic.scores.Scores` describes: logits.
        ids: name of a file of the challenge -> ids of its segments. EPIC-KITCHENS-100:
            `{"test.json": ...}`; -55: `{"seen.json": ..., "unseen.json": ...}`.
        challenge: "epic-kitchens-100" or "epic-kitchens-55".
        levels: for EPIC-KITCHENS-100, `sls_pt`, `sls_tl` and `sls_td`, each 0 to 5.

    Returns:
        The path.

    Raises:
        OSError: if there is no such folder, or the destination is one.
        ValueError: if the server would refuse it, or part of it makes no sense: lists all faults.
    """
    expected = CHALLENGES[one_of("challenge", challenge, CHALLENGES)]
    levels = dict(levels or {})
    if tuple(ids) != expected.files or not set(levels) <= set(expected.levels):
        raise ValueError(
            f"{challenge} has ids of {', '.join(expected.files)} and the levels "
            f"{', '.join(expected.levels) or 'none'}, got {list_names(ids)} and "
            f"{list_names(levels) or 'none'}"
        )
    scores = validate_scores(scores)
    if "verb" not in scores:
        raise ValueError("scores must be of verbs and nouns, got those of one task")
    _check(scores, ids, levels, expected)
    header = {"version": expected.version, "challenge": "action_recognition", **levels}
    actions = action_scores(scores["verb"], scores["noun"]) if expected.actions else None
    with atomic_write(Path(path)) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, part in ids.items():
            # Not the present time, which would give other bytes each time.
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as file:
                for text in _to_json(header, scores, part, actions):
                    file.write(text.encode())
    return Path(path)


def _check(
    scores: Scores,
    ids: Mapping[str, Collection[str]],
    levels: Mapping[str, Any],
    expected: Challenge,
) -> None:
    """Raise a ValueError that lists all for which the server would refuse a submission."""
    faults = [
        f"{key} must be an integer from 0 to {_MAX_LEVEL}, got {show(levels.get(key))}"
        for key in expected.levels
        if type(levels.get(key)) is not int or not 0 <= levels[key] <= _MAX_LEVEL
    ]
    num_class = tuple(scores[task].shape[1] for task in _TASKS)
    if num_class != expected.num_class:
        faults.append(
            f"scores must be of (verbs, nouns) = {expected.num_class} classes, got {num_class}"
        )
    scored = set(scores["ids"])
    wanted = [name for part in ids.values() for name in part]
    test_set = set(wanted)
    segments = {
        "segments not in the test set": [n for n in scores["ids"] if n not in test_set],
        "segments in several places of the test set": repeated(wanted),
    }
    for file, part in ids.items():
        segments[f"segments of {file} without scores"] = [n for n in part if n not in scored]
    for task in _TASKS:
        rows = np.flatnonzero(~np.isfinite(scores[task]).all(axis=1))
        segments[f"segments with {task} scores that are no finite numbers"] = [
            scores["ids"][row] for row in rows
        ]
    raise_faults(segments.items(), faults)


def _to_json(
    header: Mapping[str, Any], scores: Scores, ids: Iterable[str], actions: Actions | None
) -> Iterator[str]:
    """Yield the JSON text of a file, segment by segment: at once it would take a gigabyte."""
    rows = {name: row for row, name in enumerate(scores["ids"])}
    classes = {task: [str(i) for i in range(scores[task].shape[1])] for task in _TASKS}
    yield json.dumps({**header, "results": {}}).removesuffix("}}")
    for i, name in enumerate(ids):
        row = rows[name]
        result = {
            task: dict(zip(classes[task], scores[task][row].tolist(), strict=True))
            for task in _TASKS
        }
        if actions:
            best = (values[row].tolist() for values in actions)
            result["action"] = {f"{v},{n}": s for v, n, s in zip(*best, strict=True)}
        yield f"{', ' if i else ''}{json.dumps(name)}: {json.dumps(result)}"
    yield "}}"
