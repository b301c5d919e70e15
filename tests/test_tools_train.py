"""The program that trains: from clips and their labels to a model that knows them."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.epic_dataset import write_csvs, write_rgb
from helpers.evaluation_data import write_official_files
from helpers.interpreter import ENVIRONMENT
from helpers.repository import REPOSITORY
from helpers.small_tsn import small_tsn

from data.synthetic_actions import make_actions
from epic.datasets import DATASETS
from model_loader import load_checkpoint, read_documented, save_checkpoint
from tools.evaluate import main as evaluate
from tools.train import main
from tsm import TSM

PROGRAM = str(REPOSITORY / "tools" / "train.py")
LABELS = ["close", "grow", "move left", "move right", "open", "shrink"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_actions(tmp_path_factory.mktemp("clips"), train_count=2, validation_count=1)


def command(root: Path, out: Path, *words: str, model: str = "tsm", **options: Any) -> list[str]:
    """Return a command line for a small model; options that are None are left out."""
    options = {
        "train": root / "train.csv", "validation": root / "validation.csv", "data": root,
        "out": out, "recipe": "synthetic-actions", "base_model": "resnet18", "num_segments": 2,
        "input_size": 32, "scale_size": 32, "epochs": 2, "warmup_epochs": 0, "batch_size": 6,
        "device": "cpu", "threads": 1, "workers": 0, **options,
    }  # fmt: skip
    given = {f"--{name.replace('_', '-')}": each for name, each in options.items()}
    return [
        model,
        *(str(part) for name, each in given.items() if each is not None for part in (name, each)),
        *words,
    ]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).state_dict()


def epochs(out: Path) -> list[dict[str, str]]:
    """Return the rows of a run, without the time that they took."""
    with open(out / "epochs.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.essential
def test_a_model_learns_classes_of_its_own(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "skipped.json").touch()  # of a run that was killed before its first checkpoint
    assert main(command(clips, out, "--shift-div", "4")) == 0
    assert not (out / "skipped.json").exists()
    said = capsys.readouterr().out
    report = (out / "transfer.txt").read_text()
    assert said.startswith(report)
    assert "random weights" in report
    assert len(epochs(out)) == 2
    best = re.search(
        r"the best epoch was (\d) of 2: label \d+\.\d %\n.*\n.*--checkpoint (\S+)", said
    )
    assert best
    _, evaluation, _ = said[best.start() :].splitlines()
    assert evaluate(shlex.split(evaluation)[2:]) == 0
    accuracy = float(epochs(out)[int(best[1]) - 1]["label_top1"])
    assert f"{accuracy:.2f}" in (out / "evaluation" / "report.txt").read_text()
    model = load_checkpoint(best[2])
    assert isinstance(model, TSM)
    assert model.class_names == tuple(LABELS)
    assert (model.shift_div, model.num_segments, model.input_size) == (4, 2, 32)
    contents, _ = read_documented(best[2])
    assert contents["epoch"] == int(best[1])
    assert contents["args"].lr == 0.01
    assert contents["args"].warmup_epochs == 0
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"curves.png", "confusion_label.png"}


def test_trained_weights_start_another_training(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose classes, fewer and one of them new, come from its own file."""
    first, out = tmp_path / "first", tmp_path / "out"
    assert main(command(clips, first, epochs=1)) == 0
    with open(tmp_path / "train.csv", "w", newline="") as file:
        rows = [("train/grow-000", "wax"), ("train/shrink-000", "wane"), ("train/grow-001", "wax")]
        csv.writer(file).writerows([("path", "label"), *rows])
    options = {
        "train": tmp_path / "train.csv", "validation": None, "pretrained": first / "last.pth.tar",
        "base_model": None, "num_segments": None, "input_size": None, "scale_size": None,
        "batch_size": 2,
    }  # fmt: skip
    assert main(command(clips, out, "--freeze-backbone", **options)) == 0
    said = capsys.readouterr().out
    assert "the heads start anew" in (out / "transfer.txt").read_text()
    assert (
        "2 epochs are done, without validation\npython tools/label_video.py VIDEO --check" in said
    )
    assert not (out / "best.pth.tar").exists()
    model = load_checkpoint(out / "last.pth.tar")
    assert model.class_names == ("wane", "wax")
    assert (model.num_segments, model.input_size) == (2, 32)
    before, after = weights(first / "last.pth.tar"), model.state_dict()
    kept = [name for name in before if name.startswith("base_model")]
    assert all(after[name].equal(before[name]) for name in kept)


def test_classes_stay_in_the_order_of_the_weights(clips: Path, tmp_path: Path) -> None:
    start = small_tsn(6, 2)
    start.class_names = LABELS[::-1]
    path = save_checkpoint(start, tmp_path / "tsn.pth.tar")
    out = tmp_path / "out"
    assert main(command(clips, out, model="tsn", epochs=1, pretrained=path, validation=None)) == 0
    assert load_checkpoint(out / "last.pth.tar").class_names == tuple(LABELS[::-1])
    assert "all weights" in (out / "transfer.txt").read_text()


def test_heads_of_other_classes_are_said_to_be_so(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(clips, tmp_path / "first", epochs=1)) == 0
    other = tmp_path / "train.csv"
    other.write_text((clips / "train.csv").read_text().replace(",grow", ",swell"))
    words = command(clips, tmp_path / "out", epochs=1, train=other, validation=None,
                    pretrained=tmp_path / "first" / "last.pth.tar", base_model=None)  # fmt: skip
    assert main(words) == 0
    assert "heads of the weights are of as many other classes, close, grow," in caplog.text
    model = load_checkpoint(tmp_path / "out" / "last.pth.tar")
    assert model.class_names == ("close", "move left", "move right", "open", "shrink", "swell")


def test_clips_of_training_and_validation_are_said_to_be_so(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(command(clips, tmp_path / "out", epochs=1, validation=clips / "train.csv")) == 0
    assert "validation has clips of the training: train/move-right-000" in caplog.text
    caplog.clear()
    assert main(command(clips, tmp_path / "other", epochs=1)) == 0
    assert "validation has clips" not in caplog.text


def test_verbs_and_nouns_of_epic_kitchens(tmp_path: Path) -> None:
    write_rgb(tmp_path / "frames")
    write_csvs(tmp_path)
    write_official_files(tmp_path)
    annotations = tmp_path / "EPIC_100_validation.csv"
    out = tmp_path / "out"
    words = command(
        tmp_path, out, model="tsn", train=annotations, validation=annotations,
        data=tmp_path / "frames", epochs=1, batch_size=4,
    )  # fmt: skip
    assert main(words) == 0
    (row,) = epochs(out)
    assert {"verb_top1", "verb_top5", "noun_top1", "noun_top5", "action_top1"} < row.keys()
    model = load_checkpoint(out / "best.pth.tar")
    assert model.num_class == DATASETS["epic-kitchens-100"].num_class
    assert model.class_names
    assert model.class_names[0][:2] == ("verb0", "verb1")
    assert (out / "confusion_verb.png").exists()
    assert (out / "confusion_noun.png").exists()


def test_a_run_goes_on_only_if_it_is_the_same(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    same = command(clips, out, epochs=1)
    assert main([*same, "--resume"]) == 0  # there is none yet
    before = (out / "last.pth.tar").read_bytes()
    assert main(same) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*same, "--resume", "--lr", "0.5", "--no-drop-last", "--shift-div", "4"]) == 1
    error = capsys.readouterr().err
    for difference in ("--lr was 0.01, now 0.5", "--drop-last was True, now False",
                       "--shift-div was None, now 4"):  # fmt: skip
        assert difference in error
    labels = tmp_path / "train.csv"
    rows = (clips / "train.csv").read_text().splitlines()
    labels.write_text("\n".join([rows[0], *sorted(rows[1:])]))
    assert main([*same, "--resume", "--train", str(labels)]) == 1
    assert "--train (SHA-256) was" in capsys.readouterr().err
    assert (out / "last.pth.tar").read_bytes() == before
    moved = shutil.copytree(clips, tmp_path / "moved")
    assert main([*same, "--resume", "--data", str(moved)]) == 0  # nothing is left to do
    assert "the best epoch was 1 of 1" in capsys.readouterr().out


def test_missing_clips_are_listed_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out, root = (
        tmp_path / "out",
        make_actions(tmp_path / "clips", train_count=2, validation_count=2),
    )
    for name in ("train/grow-000", "validation/open-001"):
        (root / name).rename(root / f"{name}-gone")
    words = command(root, out, epochs=1)
    assert main(words) == 1
    error = capsys.readouterr().err
    for part in ("train/grow-000", "validation/open-001", "--skip-missing"):
        assert part in error
    assert not out.exists()
    assert main([*words, "--skip-missing"]) == 0
    contents, _ = read_documented(out / "last.pth.tar")
    before = contents["training"]["progress"]["predictions"]["label"]
    assert len(before[0]) == 11
    # A run goes on with the clips that it began with, whatever is there now.
    (root / "validation" / "open-001-gone").rename(root / "validation" / "open-001")
    recorded = json.loads((out / "skipped.json").read_text())
    assert [each["ids"] for each in recorded["validation"]] == [["validation/open-001#10"]]
    caplog.clear()
    assert main([*words, "--skip-missing", "--resume"]) == 0
    assert caplog.text.count("1 of 12 segments are skipped") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--recipe tsm-finetune", "download https://hanlab18"),
        ("--pretrained nothing.pth", "nothing.pth: there is no such file"),
        ("--minutes 0", "--minutes must be positive, got 0"),
        ("--epochs 0", "--epochs must be"),
        ("--data nowhere", "nowhere"),
        ("--device quantum", "device must be"),
        ("--workers -1", "--workers must be at least 0"),
        ("--modality sound", "--modality must be one of RGB, Flow, RGBDiff, got 'sound'"),
        ("--fc-lr5", "--fc-lr5 must be False"),
    ],
)
def test_wrong_options_are_said_in_one_line(
    words: str, message: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(clips, tmp_path / "out", *words.split(), model="tsn")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert not (tmp_path / "out" / "last.pth.tar").exists()


def start(words: list[str], *launcher: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *launcher, PROGRAM, *words], env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_several_processes_train_one_model(clips: Path, tmp_path: Path) -> None:
    """The same batches, but for rounding and the statistics of batch norms: these are frozen."""
    rows = []
    for count in (1, 2):
        out = tmp_path / str(count)
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
        process = start(command(clips, out, "--partial-bn", workers=1), *launcher)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert output.count("the best epoch was") == 1
        assert output.count("parameters learn") == 1
        rows.append([float(row["training_loss"]) for row in epochs(out)])
    assert rows[0] == pytest.approx(rows[1], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_goes_on(clips: Path, tmp_path: Path, number: signal.Signals) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(command(clips, whole, epochs=4)) == 0
    words = command(clips, out, epochs=4, workers=1, minutes=1e-4)
    process = start(words)
    while not (out / "last.pth.tar").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, errors
        assert "interrupted; the same command with --resume goes on" in errors
    assert main([*words, "--resume"]) == 0
    assert epochs(out) == epochs(whole)
    first, second = (weights(each / "last.pth.tar") for each in (out, whole))
    assert all(first[name].equal(second[name]) for name in second)
