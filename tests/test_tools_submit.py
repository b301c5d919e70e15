"""Archives for the challenges from the command line."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.programs import run
from helpers.score_files import made_scores

from epic.scores import fuse_scores, write_scores
from tools.submit import main

PROGRAM = Path(__file__).resolve().parent.parent / "tools" / "submit.py"
IDS = ["P01_101_0", "P01_101_1", "P33_2_0"]
LEVELS = ["--sls-pt", "1", "--sls-tl", "3", "--sls-td", "3"]
ON_100 = ["--challenge", "epic-kitchens-100", "--annotations", "test.csv", *LEVELS]
ON_55 = ["--challenge", "epic-kitchens-55", "--seen", "s1.csv", "--unseen", "s2.csv"]
COLUMNS = "participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame"
ROW = "P01,P01_101,00:00:01.00,00:00:02.00,60,120"


def scores_100(ids: list[str] = IDS, seed: int = 0) -> Any:
    return made_scores(ids, (97, 300), seed)


def scores_55(ids: list[str], seed: int = 0) -> Any:
    return made_scores(ids, (125, 352), seed)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder to work in, with the test sets' tables."""
    monkeypatch.chdir(tmp_path)
    for name, column, ids in (
        ("test.csv", "narration_id", IDS),
        ("s1.csv", "uid", ["1924", "1925"]),
        ("s2.csv", "uid", ["30000"]),
    ):
        rows = [f"{column},{COLUMNS}", *(f"{i},{ROW}" for i in ids)]
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    return tmp_path


def written(path: str = "out.zip") -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return {name: json.loads(archive.read(name))["results"] for name in archive.namelist()}


def assert_verbs(results: Any, scores: Any) -> None:
    for row, name in enumerate(scores["ids"]):
        verbs = list(results[name]["verb"].values())
        np.testing.assert_array_equal(np.array(verbs, np.float32), scores["verb"][row])


def test_files_of_the_same_segments_are_averaged():
    scores = [scores_100(), scores_100(IDS[::-1], seed=1)]
    for name, one in zip(("a.pt", "b.pt"), scores, strict=True):
        write_scores(name, one)
    assert main(["a.pt", "b.pt", "out.zip", *ON_100]) == 0
    assert_verbs(written()["test.json"], fuse_scores(scores))


def test_files_of_different_segments_are_put_together():
    parts = [scores_55(["1925", "1924"]), scores_55(["30000"], seed=1)]
    other = scores_55(["30000"], seed=2)
    for name, one in zip(("s1.pt", "s2.pt", "flow.pt"), [*parts, other], strict=True):
        write_scores(name, one)
    assert main(["s1.pt", "s2.pt", "flow.pt", "out.zip", *ON_55]) == 0
    results = written()
    assert_verbs(results["seen.json"], parts[0])
    assert_verbs(results["unseen.json"], fuse_scores([parts[1], other]))
    assert len(results["unseen.json"]["30000"]["action"]) == 100


@pytest.mark.essential
def test_it_runs_as_a_program(folder):
    write_scores("a.pt", scores_100())
    printed = run(folder, sys.executable, PROGRAM, "a.pt", "out.zip", *ON_100)
    assert printed == "wrote out.zip: 3 segments\n"


def test_help_shows_the_levels(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    usage = capsys.readouterr().out
    assert "1     public images                of whole videos      up to 5 instances" in usage


def test_an_existing_file_is_replaced_only_by_force(folder, capsys):
    write_scores("a.pt", scores_100())
    (folder / "out.zip").write_bytes(b"mine")
    assert main(["a.pt", "out.zip", *ON_100]) == 1
    assert "out.zip exists: give another name, or pass --force\n" in capsys.readouterr().err
    assert (folder / "out.zip").read_bytes() == b"mine"
    assert main(["a.pt", "out.zip", *ON_100, "--force"]) == 0
    assert len(written()["test.json"]) == 3


def test_a_table_of_another_set_gets_a_warning(folder, capsys):
    write_scores("a.pt", scores_100(["P01_11_0"]))
    (folder / "test.csv").write_text(f"narration_id,{COLUMNS},verb_class\nP01_11_0,{ROW},3\n")
    assert main(["a.pt", "out.zip", *ON_100]) == 0
    message = "warning: --annotations test.csv has labels, which no test set has\n"
    assert message in capsys.readouterr().err


def test_swapped_test_sets_get_a_warning(folder, capsys):
    write_scores("a.pt", scores_55(["1924", "30000"]))
    (folder / "s1.csv").write_text(f"uid,{COLUMNS}\n1924,{ROW.replace('P01', 'P32')}\n")
    assert main(["a.pt", "out.zip", *ON_55]) == 0
    assert (
        "warning: --seen s1.csv has segments of P32, which belong to --unseen"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": scores_100(IDS[:2])}, "segments of test.json without scores (1): P33_2_0"),
        ({"a": scores_100([*IDS, "x"])}, "segments not in the test set (1): x"),
        (
            {"a": scores_55(IDS)},
            "(verbs, nouns) = (97, 300) classes, got (125, 352)",
        ),
        (
            {"a": scores_100(), "b": scores_100([*IDS[:2], "x"])},
            "SCORES must hold the same segments, to be averaged, or different ones, to be put "
            "together, but 2 are in files that differ in others: P01_101_0, P01_101_1",
        ),
        (
            {"a": scores_100(IDS[:2]), "b": scores_55(IDS[2:])},
            "SCORES must all have verb scores, of the same classes",
        ),
        (
            {"a": {"ids": IDS, "label": np.zeros((3, 4), np.float32)}},
            "SCORES must all have verb scores, of the same classes",
        ),
        ({"a": scores_100(), "b": scores_55(IDS)}, "scores must have the same classes"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(files, message, folder, capsys):
    for name, scores in files.items():
        write_scores(f"{name}.pt", scores)
    assert main([*(f"{name}.pt" for name in files), "out.zip", *ON_100]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (folder / "out.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (ON_100[:2], "epic-kitchens-100 needs --annotations, --sls-pt, --sls-tl, --sls-td"),
        (ON_100[:-2], "epic-kitchens-100 needs --sls-td"),
        ([*ON_100, "--seen", "s1.csv"], "epic-kitchens-100 takes no --seen"),
        (ON_55[:4], "epic-kitchens-55 needs --unseen"),
        ([*ON_55, *LEVELS[:2]], "epic-kitchens-55 takes no --sls-pt"),
        ([*ON_100[:-1], "6"], "argument --sls-td: invalid choice: 6"),
        ([], "the following arguments are required: --challenge"),
    ],
)
def test_options_belong_to_a_challenge(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["a.pt", "out.zip", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_forgotten_destination_costs_no_score_file(folder, capsys):
    for name in ("a.pt", "b.pt"):
        write_scores(name, scores_100())
    before = (folder / "b.pt").read_bytes()
    with pytest.raises(SystemExit):
        main(["a.pt", "b.pt", *ON_100, "--force"])
    assert "argument OUT.zip: must end in .zip, got b.pt" in capsys.readouterr().err
    assert (folder / "b.pt").read_bytes() == before
