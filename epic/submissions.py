"""Archives to upload to the challenges on action recognition of EPIC-KITCHENS.

Their format is that of https://github.com/epic-kitchens/C1-Action-Recognition. The challenges take
few uploads (in 2020 one a day), so what their servers would refuse is refused before it is written.

Differences from the original:
    Ids and scores are checked, not only their number.
"""

import json
import os
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from checkpoints.errors import list_names
from checkpoints.files import atomic_write
from data.options import one_of
from epic.actions import Actions, action_scores
from epic.challenges import CHALLENGES, NUM_ACTIONS, describe_faults, find_faults
from epic.score_fields import validate_scores

__all__ = ["write_submission"]

_TASKS = ("verb", "noun")


class _Results(Mapping[str, dict[str, dict[str, float]]]):
    """The `results` of a submission, made one by one: at once they would take a gigabyte."""

    def __init__(
        self, scores: Mapping[str, Any], ids: Iterable[str], actions: Actions | None = None
    ) -> None:
        rows = {name: row for row, name in enumerate(scores["ids"])}
        self._rows = {name: rows[name] for name in ids if name in rows}
        self._scores = {task: scores[task] for task in _TASKS}
        self._classes = {task: [str(i) for i in range(scores[task].shape[1])] for task in _TASKS}
        self._actions = actions

    def __getitem__(self, name: str) -> dict[str, dict[str, float]]:
        row = self._rows[name]
        result = {
            task: dict(zip(self._classes[task], self._scores[task][row].tolist(), strict=True))
            for task in _TASKS
        }
        if self._actions:
            best = (values[row].tolist() for values in self._actions)
            result["action"] = {f"{v},{n}": s for v, n, s in zip(*best, strict=True)}
        return result

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


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
    header = {"version": expected.version, "challenge": "action_recognition", **levels}
    wanted = {name for part in ids.values() for name in part}
    faults = describe_faults({"not in the test set": [i for i in scores["ids"] if i not in wanted]})
    for name, part in ids.items():
        # Without actions, which cannot be computed of NaN, and are right by construction.
        document = {**header, "results": _Results(scores, part)}
        faults += [f"{name}: {fault}" for fault in find_faults(document, part, challenge)]
    if faults:
        raise ValueError("; ".join(faults))
    actions = None
    if expected.actions:
        actions = action_scores(scores["verb"], scores["noun"], top_k=NUM_ACTIONS)
    with atomic_write(Path(path)) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, part in ids.items():
            # Not the present time, which would give other bytes each time.
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as file:
                for text in _to_json(header, _Results(scores, part, actions)):
                    file.write(text.encode())
    return Path(path)


def _to_json(header: dict[str, Any], results: _Results) -> Iterator[str]:
    """Yield the JSON text of a submission, result by result."""
    yield json.dumps({**header, "results": {}}).removesuffix("}}")
    for i, (name, result) in enumerate(results.items()):
        yield f"{', ' if i else ''}{json.dumps(name)}: {json.dumps(result)}"
    yield "}}"
