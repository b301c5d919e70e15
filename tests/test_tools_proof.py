"""The proof: four models on actions that differ in order alone."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.interpreter import ENVIRONMENT
from helpers.repository import REPOSITORY
from helpers.small_tsn import small_tsn

from model_loader import load_checkpoint, save_checkpoint
from tools import proof

CLASSES = ["close", "grow", "move left", "move right", "open", "shrink"]
PREDICTED = {
    "tsn": [4, 1, 3, 3, 4, 1],  # the pairs alone
    "trn": [0, 1, 2, 3, 4, 1],
    "mtrn": [0, 1, 2, 3, 4, 0],
    "tsm": [0, 1, 2, 3, 4, 5],
}


def write_run(
    folder: Path, name: str, seed: int, options: argparse.Namespace, status: int = 0
) -> int:
    """Write what is read of a trained model, in the place of training it."""
    (folder / name).mkdir(parents=True)
    model = small_tsn(6, 2)
    model.class_names = CLASSES
    rows = [{"epoch": 1, "label_top1": 50.0 + seed}]
    progress = {"rows": rows, "predictions": {"label": (list(range(6)), PREDICTED[name])}}
    save_checkpoint(model, folder / name / "last.pth.tar", training={"progress": progress})
    return status


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(proof, "_train", write_run)
    return ["--out", str(tmp_path / "out"), "--train-count", "1"]


def test_the_table_has_actions_and_pairs(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert proof.main(command) == 0
    table = (tmp_path / "out" / "proof.txt").read_text()
    assert table in capsys.readouterr().out
    assert table.splitlines() == [
        "| model | action | pair |",
        "| --- | ---: | ---: |",
        "| TSN | 50.0 % | 100.0 % |",
        "| TRN | 83.3 % | 100.0 % |",
        "| MTRN | 83.3 % | 83.3 % |",
        "| TSM | 100.0 % | 100.0 % |",
    ]
    assert (tmp_path / "out" / "proof.png").exists()
    assert (tmp_path / "out" / "clips" / "train.csv").exists()


def test_seeds_have_clips_and_columns_of_their_own(command: list[str], tmp_path: Path) -> None:
    assert proof.main([*command, "--seeds", "3", "4"]) == 0
    table = (tmp_path / "out" / "proof.txt").read_text().splitlines()
    assert table[0] == "| model | action, seed 3 | action, seed 4 | action | pair |"
    assert table[2] == "| TSN | 50.0 % | 50.0 % | 50.0 % | 100.0 % |"
    images = [
        (tmp_path / "out" / f"seed-{seed}/clips/train/grow-000/frame_0000000001.jpg").read_bytes()
        for seed in (3, 4)
    ]
    assert images[0] != images[1]


def test_a_training_that_fails_ends_it(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> int:
        return write_run(*arguments, status=arguments[1] == "trn")

    monkeypatch.setattr(proof, "_train", fail)
    assert proof.main(command) == 1
    assert not (tmp_path / "out" / "proof.txt").exists()


@pytest.mark.slow
def test_models_are_trained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--out", str(tmp_path / "out"), "--train-count", "3", "--epochs", "3"]
    assert proof.main(command) == 0
    said = capsys.readouterr().out
    assert said.count("epoch 3 of 3") == 4
    assert load_checkpoint(tmp_path / "out" / "tsm" / "best.pth.tar").class_names == tuple(CLASSES)
    assert proof.main(command) == 0  # goes on where nothing is left to do
    again = capsys.readouterr().out
    assert "epoch" not in again
    assert again in said
    assert proof.main([*command, "--epochs", "0"]) == 1
    assert "epochs must be" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_all_models(tmp_path: Path) -> None:
    """As a terminal sends it: to this program and to those that it started."""
    out = tmp_path / "out"
    words = ["--out", str(out), "--train-count", "3", "--epochs", "50"]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tools" / "proof.py"), *words], env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    assert "epoch 1 of 50" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors == "proof.py: interrupted; the same command goes on where this one stopped\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert {path.parent.name for path in out.glob("*/last.pth.tar")} <= {"tsn", "trn"}
