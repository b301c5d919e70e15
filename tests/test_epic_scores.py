"""Score files of every layout are read, and what is written is what every PyTorch reads."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.score_files import arrays_of_file, made_scores, numpy_1_pickle, rows_of_file

from epic.scores import fuse_scores, read_scores, write_scores

IDS = ["P02_1_10", "P01_11_2", "P01_11_10"]
SCORES = made_scores(IDS)
ROW = rows_of_file(SCORES)[0]
VIDEOS = ["P02_1", "P01_11", "P01_11"]


def tensors() -> dict[str, Any]:
    columns = arrays_of_file(SCORES)
    return {
        key: torch.from_numpy(value) if key.endswith("output") else value.tolist()
        for key, value in columns.items()
    }


def assert_scores(found: Any, expected: Any = SCORES) -> None:
    assert found["ids"] == expected["ids"]
    assert all(type(name) is str for name in found["ids"])
    for task in ("verb", "noun"):
        assert type(found[task]) is np.ndarray
        assert found[task].dtype == np.float32
        assert found[task].flags.owndata
        np.testing.assert_array_equal(found[task], expected[task])


# Reading


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["scores.pkl", "scores.pt"])
@pytest.mark.parametrize("layout", [arrays_of_file, rows_of_file])
def test_pickles_of_this_numpy(layout, name, protocol, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps(layout(SCORES), protocol))
    found = read_scores(tmp_path / name)
    assert_scores(found)
    assert found["video_ids"] == VIDEOS


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_pickles_by_hand(core, protocol, tmp_path):
    path = tmp_path / "scores.pt"
    path.write_bytes(numpy_1_pickle(arrays_of_file(SCORES), protocol, core))
    assert_scores(read_scores(path))


@pytest.mark.essential
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "contents",
    [
        rows_of_file(SCORES),
        arrays_of_file(SCORES),
        tensors(),
        [dict(zip(tensors(), row, strict=True)) for row in zip(*tensors().values(), strict=True)],
    ],
    ids=["rows of arrays", "arrays", "tensors", "rows of tensors"],
)
def test_files_of_torch(contents, legacy, tmp_path):
    path = tmp_path / "scores.pkl"  # the suffix does not count
    torch.save(contents, path, _use_new_zipfile_serialization=not legacy)
    found = read_scores(path)
    assert_scores(found)
    assert found["video_ids"] == VIDEOS


def test_a_caller_may_have_allowed_numpy_to_all_of_torch(tmp_path):
    torch.save(rows_of_file(SCORES), tmp_path / "scores.pt")
    core = np.core if np.__version__ < "2" else np._core
    allowed = [core.multiarray._reconstruct, np.ndarray, np.dtype, core.multiarray.scalar]
    kinds = [type(np.dtype("f4")), type(np.dtype("U1"))]
    with torch.serialization.safe_globals([*allowed, *kinds]):
        assert_scores(read_scores(tmp_path / "scores.pt"))


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f2"])
def test_other_orders_of_bytes_and_half_precision(kind, tmp_path):
    halves = {task: SCORES[task].astype(np.float16).astype(np.float32) for task in ("verb", "noun")}
    contents = arrays_of_file({**SCORES, **halves})
    for task in ("verb", "noun"):
        contents[f"{task}_output"] = np.asfortranarray(halves[task].astype(kind))
    (tmp_path / "scores.pkl").write_bytes(pickle.dumps(contents))
    assert_scores(read_scores(tmp_path / "scores.pkl"), {**SCORES, **halves})


def test_double_precision_nan_and_one_task_stay(tmp_path):
    logits = np.array([[1 / 3, np.nan], [-np.inf, 2]])
    contents = {"label_output": logits, "narration_id": ["a", "b"]}
    (tmp_path / "scores.pkl").write_bytes(pickle.dumps(contents))
    found = read_scores(tmp_path / "scores.pkl")
    assert found.keys() == {"ids", "label"}
    assert found["label"].dtype == np.float64
    np.testing.assert_array_equal(found["label"], logits)


@pytest.mark.parametrize(
    "uids", [np.array([1924, 1925, 7]), [1924, 1925, 7], torch.tensor([1924, 1925, 7])]
)
def test_integers_become_strings(uids, tmp_path):
    torch.save({**arrays_of_file(SCORES), "narration_id": uids}, tmp_path / "scores.pt")
    assert read_scores(tmp_path / "scores.pt")["ids"] == ["1924", "1925", "7"]


WRONG: dict[str, tuple[Any, str]] = {
    "no scores": ({"a": 1}, "and noun_output, or label_output alone (the file has a)"),
    "no nouns": ({"noun_output": None}, "must be verb_output and noun_output"),
    "no ids": ({"narration_id": None}, "narration_id is missing"),
    "integers": ({"verb_output": np.zeros((3, 5), int)}, "verb_output must be float32, got int64"),
    "one axis": ({"verb_output": np.zeros(3)}, "of shape (segments, classes), got (3,)"),
    "no classes": ({"verb_output": torch.zeros(3, 0)}, "classes), got (3, 0)"),
    "bytes": (
        {"narration_id": np.array([b"a", b"b", b"c"])},
        "3 elements that are no strings, first b'a",
    ),
    "duplicates": ({"narration_id": ["a", "b", "a"]}, "narration_id has duplicates (1): a"),
    "long duplicates": (
        {"narration_id": ["a" * 10**6] * 3},
        f"duplicates (1): {200 * 'a'}... (the",
    ),
    "lengths": (
        {"narration_id": ["a", "b"]},
        "numbers of segments differ: {'narration_id': 2, 'verb_",
    ),
    "text": ({"verb_output": "abc"}, "verb_output must hold arrays, got str"),
    "bfloat16": ({"verb_output": torch.zeros(3, 5).bfloat16()}, "(3, 5) of torch.bfloat16"),
    "sparse": (
        {"verb_output": torch.zeros(3, 5).to_sparse()},
        "verb_output must be float32, got a tensor",
    ),
    "expanded": (
        {"verb_output": torch.zeros(1).expand(3, 2**40)},
        "claims 13,194,139,533,312 bytes, of a file of",
    ),
    "several": (
        {"verb_output": np.zeros((3, 5), int), "narration_id": ["a", "a", 1.5]},
        "narration_id has 1 elements that are no strings, first 1.5; verb_output must be float32",
    ),
}


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_said(case, tmp_path):
    changes, message = WRONG[case]
    contents = changes if case == "no scores" else {**arrays_of_file(SCORES), **changes}
    path = tmp_path / "scores.pt"
    torch.save({key: value for key, value in contents.items() if value is not None}, path)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_scores(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], "expected dictionaries, one a segment, got NoneType"),
        ([1], "expected dictionaries, one a segment, got int"),
        (3, "expected a dictionary of arrays or a list of dictionaries, one a segment, got int"),
        (
            [{"narration_id": "a"}, 1, {}],
            "2 of 3 elements of the list are no dictionaries with the keys of the first, "
            "narration_id: elements 1, 2",
        ),
        (
            [{**ROW, "verb_output": np.ones(n, np.float32)} for n in (1, 2, 3)],
            "verb_output has rows of 3 shapes: (1,), (2,), (3,)",
        ),
    ],
)
def test_lists_of_something_else(contents, message, tmp_path):
    torch.save(contents, tmp_path / "scores.pt")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_scores(tmp_path / "scores.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a file of torch.save, or is damaged .* it is empty"),
        (b"<html>", "a web page"),
        (b"PK\x03\x04", "cut short or damaged"),
        (pickle.dumps(arrays_of_file(SCORES))[:-200], "is no pickle of NumPy arrays"),
        (b"\x80\x04", "is no pickle of NumPy arrays"),
        (b"\x80\x09K\x01.", "is no pickle of NumPy arrays"),
    ],
)
def test_damaged_files(content, message, tmp_path):
    path = tmp_path / "scores.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_scores(path)
    assert str(caught.value).startswith(f"not a score file: {path}")
    with pytest.raises(FileNotFoundError, match="other"):
        read_scores(tmp_path / "other.pt")


# Writing


def test_what_is_written_needs_nothing_but_tensors_and_strings(tmp_path):
    path = write_scores(tmp_path / "scores.PT", {**SCORES, "video_ids": VIDEOS})
    rows = torch.load(path, weights_only=True)
    assert [row["narration_id"] for row in rows] == IDS
    assert [row["video_id"] for row in rows] == VIDEOS
    for i, row in enumerate(rows):
        assert list(row) == ["narration_id", "verb_output", "noun_output", "video_id"]
        assert torch.equal(row["verb_output"], torch.from_numpy(SCORES["verb"][i]))
        assert row["noun_output"].dtype == torch.float32
    assert_scores(read_scores(path))
    first = path.read_bytes()
    assert write_scores(tmp_path / "again.pt", read_scores(path)).read_bytes() == first
    assert sorted(tmp_path.iterdir()) == [tmp_path / "again.pt", path]


def test_one_task_is_written_and_read(tmp_path):
    scores = {"ids": ["a", "b"], "label": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    found = read_scores(write_scores(tmp_path / "scores.pt", scores))
    assert found["label"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("scores.pkl", {}, "path must end in .pt"),
        ("scores.pt", {"ids": IDS[:2]}, "numbers of segments differ"),
        ("scores.pt", {"ids": ["a", "b", "a"]}, "duplicates .1.: a"),
        ("scores.pt", {"verb": SCORES["verb"].tolist()}, "must hold arrays, got list"),
        ("scores.pt", {"ids": [], "verb": [], "noun": []}, "verb_output has rows of 0 shapes"),
    ],
)
def test_wrong_scores_are_not_written(name, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_scores(tmp_path / name, {**SCORES, **changes})
    assert not list(tmp_path.iterdir())


# Fusing


def shuffled(scores: Any, order: list[int]) -> Any:
    return {
        **{task: scores[task][order] for task in ("verb", "noun")},
        "ids": [scores["ids"][i] for i in order],
    }


@pytest.mark.parametrize("weights", [None, [2, 2, 2]])
def test_equal_weights_give_the_mean_in_the_precision_of_the_scores(weights):
    scores = [made_scores(IDS, seed=seed) for seed in range(3)]
    fused = fuse_scores([scores[0], shuffled(scores[1], [2, 0, 1]), scores[2]], weights)
    assert fused["ids"] == ["P01_11_10", "P01_11_2", "P02_1_10"]  # as NumPy sorts strings
    order = np.argsort(IDS)
    for task in ("verb", "noun"):
        expected = np.mean([one[task][order] for one in scores], axis=0)
        assert fused[task].dtype == expected.dtype == np.float32
        np.testing.assert_array_equal(fused[task], expected)


def test_weights_are_of_the_mean_in_double_precision():
    scores = [{**made_scores(IDS, seed=seed), "video_ids": VIDEOS} for seed in range(2)]
    fused = fuse_scores(scores, [1, 1.5])
    first, second = (one["verb"][np.argsort(IDS)].astype(np.float64) for one in scores)
    np.testing.assert_array_equal(fused["verb"], ((first + 1.5 * second) / 2.5).astype(np.float32))
    assert fused["video_ids"] == ["P01_11", "P01_11", "P02_1"]
    assert scores[0]["ids"] == IDS, "nothing of the caller's changes"


@pytest.mark.parametrize(
    ("others", "weights", "message"),
    [
        ([made_scores([*IDS[:2], "x"])], None, "1 are in scores 1 alone (P01_11_10) and 1 in"),
        (
            [made_scores([*IDS, "x"])],
            None,
            "0 are in scores 1 alone (none) and 1 in scores 2 alone (x)",
        ),
        (
            [SCORES, made_scores(IDS, (5, 8))],
            None,
            "'noun': 7}, scores 3 have {'verb': 5, 'noun': 8}",
        ),
        ([{"ids": IDS, "label": SCORES["verb"]}], None, "scores 2 have {'label': 5}"),
        ([SCORES], [1], "weights must be 2 positive numbers, one for each of the scores, got [1]"),
        ([SCORES], [1, -1], "2 positive numbers"),
        ([SCORES], [1, float("nan")], "2 positive numbers"),
        ([SCORES], [0, 1], "2 positive numbers"),
    ],
)
def test_what_cannot_be_fused(others, weights, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fuse_scores([SCORES, *others], weights)
    with pytest.raises(ValueError, match="at least one"):
        fuse_scores([])


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_scores(tmp_path / "scores.pt", SCORES)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_scores(path, made_scores(IDS, seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
