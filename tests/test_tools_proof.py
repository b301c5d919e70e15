"""The proof: four models on actions that differ in order alone."""

import argparse
from pathlib import Path
from typing import Any

import pytest
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
