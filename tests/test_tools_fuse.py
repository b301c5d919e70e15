"""Score files are fused from the command line."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.programs import run
from helpers.score_files import arrays_of_file, made_scores

from epic.scores import fuse_scores, read_scores, write_scores
from tools.fuse import main

PROGRAM = Path(__file__).resolve().parent.parent / "tools" / "fuse.py"
IDS = ["b", "a"]
SCORES = [made_scores(IDS, seed=seed) for seed in range(2)]


@pytest.fixture
def files(tmp_path):
    """A file of ours, and one that C1's test.py pickled."""
    (tmp_path / "flow.pkl").write_bytes(pickle.dumps(arrays_of_file(SCORES[1])))
    return [str(write_scores(tmp_path / "rgb.pt", SCORES[0])), str(tmp_path / "flow.pkl")]


@pytest.mark.parametrize("weights", [None, [1, 1.5]])
def test_scores_are_fused_as_by_the_function(weights, files, tmp_path):
    options = ["--weights", *map(str, weights)] if weights else []
    out = tmp_path / "fused.pt"
    assert main([str(out), *files, *options]) == 0
    found, expected = read_scores(out), fuse_scores(SCORES, weights)
    assert found["ids"] == expected["ids"] == ["a", "b"]
    for task in ("verb", "noun"):
        np.testing.assert_array_equal(found[task], expected[task])


def test_it_runs_as_a_program(files, tmp_path):
    printed = run(tmp_path, sys.executable, PROGRAM, "fused.pt", *files)
    assert printed == "wrote fused.pt: 2 segments\n"


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "fused.pt rgb.pt flow.pt --weights 1 1.5" in capsys.readouterr().out


def test_an_existing_file_is_replaced_only_by_force(files, tmp_path, capsys):
    out = tmp_path / "fused.pt"
    out.write_bytes(b"mine")
    assert main([str(out), *files]) == 1
    assert f"{out} exists: give another name, or pass --force\n" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    assert main([str(out), *files, "--force"]) == 0
    assert read_scores(out)["ids"] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fused.pkl", "rgb.pt"], "path must end in .pt"),
        (["fused.pt", "rgb.pt", "--weights", "1", "2"], "weights must be 1 positive numbers"),
        (["fused.pt", "rgb.pt", "other.pt"], "1 are in scores 1 alone (a) and 1 in scores 2 alone"),
        (["fused.pt", "none.pt"], "No such file or directory: 'none.pt'"),
        (["no/fused.pt", "rgb.pt"], "no such folder: no"),
    ],
)
@pytest.mark.usefixtures("files")
def test_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_scores("other.pt", made_scores(["b", "c"]))
    before = sorted(tmp_path.iterdir())
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
