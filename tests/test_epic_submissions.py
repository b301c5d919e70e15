"""Archives hold what the server expects, and nothing that it would refuse."""

import json
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.peak_memory import peak_memory
from helpers.score_files import made_scores

from epic.actions import action_scores
from epic.annotations import read_annotations
from epic.submissions import write_submission

RECORDED = Path(__file__).parent / "reference" / "evaluation" / "evaluation.json"
LEVELS = {"sls_pt": 1, "sls_tl": 3, "sls_td": 3}
IDS = ["P33_01_0", "P01_101_2", "P01_101_10"]
UIDS = {"seen.json": ["1924", "1925"], "unseen.json": ["9", "30000", "30001"]}


def write_100(path: Path, scores: Any, ids: Any = IDS, **changes: Any) -> Path:
    options = {"challenge": "epic-kitchens-100", "levels": LEVELS, **changes}
    return write_submission(path, scores, {"test.json": ids}, **options)


def read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


def assert_scores(results: Any, scores: Any, ids: list[str]) -> None:
    assert list(results) == ids
    for name in ids:
        row = scores["ids"].index(name)
        for task in ("verb", "noun"):
            written = results[name][task]
            assert list(written) == [str(i) for i in range(len(written))]
            # Equal as float64, as the original writes them, not only after rounding.
            np.testing.assert_array_equal(
                np.array(list(written.values())), scores[task][row].astype(np.float64)
            )


def test_epic_kitchens_100(tmp_path):
    scores = made_scores([IDS[2], IDS[0], IDS[1]], (97, 300))
    documents = read(write_100(tmp_path / "test.zip", scores))
    assert list(documents) == ["test.json"]
    document = documents["test.json"]
    assert list(document) == ["version", "challenge", "sls_pt", "sls_tl", "sls_td", "results"]
    assert (document["version"], document["challenge"]) == ("0.2", "action_recognition")
    assert document.items() >= LEVELS.items()
    assert_scores(document["results"], scores, IDS)
    assert all(result.keys() == {"verb", "noun"} for result in document["results"].values())


def test_epic_kitchens_55(tmp_path):
    scores = made_scores(sorted(uid for part in UIDS.values() for uid in part), (125, 352))
    path = tmp_path / "test.zip"
    documents = read(write_submission(path, scores, UIDS, challenge="epic-kitchens-55"))
    assert list(documents) == ["seen.json", "unseen.json"]
    best = action_scores(scores["verb"], scores["noun"])
    for name, document in documents.items():
        assert list(document) == ["version", "challenge", "results"]
        assert document["version"] == "0.1"
        assert_scores(document["results"], scores, UIDS[name])
        for uid, result in document["results"].items():
            verbs, nouns, values = (part[scores["ids"].index(uid)] for part in best)
            expected = [(f"{v},{n}", s) for v, n, s in zip(verbs, nouns, values, strict=True)]
            assert list(result["action"].items()) == expected
            assert len(expected) == 100


def test_same_scores_make_the_same_bytes(tmp_path, monkeypatch):
    scores = made_scores(IDS, (97, 300))
    first = write_100(tmp_path / "1.zip", scores).read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert write_100(tmp_path / "2.zip", scores).read_bytes() == first


def test_all_that_is_wrong_is_listed_and_nothing_is_written(tmp_path):
    scores = made_scores([*IDS, "x", "y"], (97, 352))
    scores["verb"][0, 5] = np.nan
    scores["noun"][1, 6] = np.inf
    with pytest.raises(ValueError, match="not in the test set") as caught:
        write_100(tmp_path / "test.zip", scores, [*IDS, "z"], levels={**LEVELS, "sls_pt": 1.5})
    assert str(caught.value).split("; ") == [
        "sls_pt must be an integer from 0 to 5, got 1.5",
        "scores must be of (verbs, nouns) = (97, 300) classes, got (97, 352)",
        "segments not in the test set (2): x, y",
        "segments of test.json without scores (1): z",
        "segments with verb scores that are no finite numbers (1): P33_01_0",
        "segments with noun scores that are no finite numbers (1): P01_101_2",
    ]
    assert not list(tmp_path.iterdir())


def test_segments_of_either_part_may_be_missing(tmp_path):
    scores = made_scores(["1924", "9", "30000"], (125, 352))
    message = r"^segments of seen.* \(1\): 1925; segments of unseen.* without scores \(1\): 30001$"
    with pytest.raises(ValueError, match=message):
        write_submission(tmp_path / "a.zip", scores, UIDS, challenge="epic-kitchens-55")


def test_a_segment_is_in_one_part(tmp_path):
    scores = made_scores(["1924", "1925", "9"], (125, 352))
    ids = {"seen.json": ["1924", "1925"], "unseen.json": ["9", "1925"]}
    with pytest.raises(ValueError, match=r"^segments in several places .* \(1\): 1925$"):
        write_submission(tmp_path / "a.zip", scores, ids, challenge="epic-kitchens-55")


@pytest.mark.parametrize("level", [6, -1, "3", 1.5, True, None])
def test_levels_are_integers_from_0_to_5(level, tmp_path):
    levels = {**LEVELS, "sls_tl": level}
    with pytest.raises(ValueError, match=rf"^sls_tl must be .* 0 to 5, got {level!r}$"):
        write_100(tmp_path / "test.zip", made_scores(IDS, (97, 300)), levels=levels)


def test_verdicts_are_those_of_the_server(tmp_path):
    """But for infinity, which it accepts and nobody can mean."""
    scores = made_scores(IDS, (97, 300))
    infinite = {**scores, "verb": np.where(scores["verb"] == scores["verb"][0, 5], np.inf, 0)}
    cases = {
        "as written": (scores, {}, ""),
        "inf score": (infinite, {}, "verb scores that are no finite numbers"),
        "extra id": (scores, {"ids": IDS[:2]}, "not in the test set"),
        "class 97 extra": (made_scores(IDS, (98, 300)), {}, r"classes, got \(98, 300\)"),
        "no sls": (scores, {"levels": {}}, "sls_pt must be an integer"),
    }
    verdicts = json.loads(RECORDED.read_text())["submission_verdicts"]["verdicts"]
    for case, (given, changes, message) in cases.items():
        is_accepted = verdicts[case] == "accepted" and case != "inf score"
        with nullcontext() if is_accepted else pytest.raises(ValueError, match=message):
            write_100(tmp_path / "test.zip", given, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": None}, "sls_pt must be an integer from 0 to 5, got None; sls_tl must"),
        ({"levels": {**LEVELS, "sls": 1}}, "the levels sls_pt, sls_tl, sls_td, got test.json and"),
        ({"challenge": "epic-kitchens-55"}, "ids of seen.json, unseen.json and the levels none"),
        ({"challenge": "epic"}, "challenge must be one of"),
        ({"scores": {"ids": IDS, "label": np.zeros((3, 97))}}, "must be of verbs and nouns"),
        ({"scores": {**made_scores(IDS), "ids": ["a"]}}, "numbers of segments differ"),
    ],
)
def test_wrong_arguments(changes, message, tmp_path):
    arguments = {"scores": made_scores(IDS, (97, 300)), **changes}
    with pytest.raises(ValueError, match=message):
        write_100(tmp_path / "test.zip", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    scores = made_scores(IDS, (97, 300))
    path = write_100(tmp_path / "test.zip", scores)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_100(path, made_scores(IDS, (97, 300), seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_memory_does_not_grow_with_the_text(tmp_path):
    ids = [f"P01_01_{i}" for i in range(1000)]
    scores = made_scores(ids, (97, 300))  # 1.6 MB, 11 MB as text, 60 MB as dictionaries
    write_100(tmp_path / "test.zip", made_scores(IDS, (97, 300)))
    peak = peak_memory(lambda: write_100(tmp_path / "test.zip", scores, ids))
    assert peak is None or peak < 8e6


@pytest.mark.slow
def test_the_test_set_at_full_size(epic_test_data, tmp_path):
    table = epic_test_data / "annotations" / "EPIC_100_test_timestamps.csv"
    ids = [segment.id for segment in read_annotations(table)]
    scores = made_scores(ids, (97, 300))
    document = read(write_100(tmp_path / "test.zip", scores, ids))["test.json"]
    assert len(document["results"]) == 13092
    assert_scores(document["results"], scores, ids)
