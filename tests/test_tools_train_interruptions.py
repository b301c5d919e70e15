"""A training that is killed over and over ends as if nothing had happened."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.equality import assert_equal
from helpers.interpreter import ENVIRONMENT
from helpers.repository import REPOSITORY

from data.synthetic_actions import make_actions
from model_loader import read_documented

pytestmark = pytest.mark.slow

KILLS = 7


def start(
    clips: Path, out: Path, *words: str, launcher: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, *launcher, REPOSITORY / "tools" / "train.py", "tsm", "--resume"),
            *("--train", clips / "train.csv", "--validation", clips / "validation.csv"),
            *("--data", clips, "--out", out, "--recipe", "synthetic-actions"),
            *("--base-model", "mobilenetv2", "--num-segments", "2", "--input-size", "32"),
            *("--scale-size", "32", "--epochs", "3", "--batch-size", "4", "--dropout", "0.2"),
            *("--device", "cpu", "--threads", "1", *words),
        ],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def outcome(out: Path) -> dict[str, Any]:
    """Return all that a run left, but for times."""
    with open(out / "epochs.csv", newline="") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    last, _ = read_documented(out / "last.pth.tar")
    for row in last["training"]["progress"]["rows"]:
        row["seconds"] = 0
    best, _ = read_documented(out / "best.pth.tar")
    return {"files": {*os.listdir(out)}, "rows": rows, "last": last, "best": best}


@pytest.mark.parametrize(("workers", "minutes"), [("0", "0.001"), ("1", "10"), ("2", "0.001")])
def test_killed_at_any_moment(tmp_path: Path, workers: str, minutes: str) -> None:
    clips = make_actions(tmp_path / "clips", train_count=4, validation_count=2)
    words = ("--workers", workers, "--minutes", minutes)
    began = time.monotonic()
    finish(start(clips, tmp_path / "whole", *words))
    longest = time.monotonic() - began
    moments = random.Random(f"{workers} {minutes}")
    kills = 0
    while kills < KILLS:
        out = tmp_path / f"out-{kills}"
        while kills < KILLS:
            process = start(clips, out, *words)
            try:
                process.wait(moments.uniform(0.3, 1) * longest)
                break  # it was faster
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.communicate(timeout=60)  # until its workers too have ended
                kills += 1
        finish(process if process.returncode == 0 else start(clips, out, *words))
        assert_equal(outcome(out), outcome(tmp_path / "whole"))


TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def test_torchrun_is_told_to_stop(tmp_path: Path) -> None:
    """SIGTERM, which it gives to its processes and to their workers."""
    clips = make_actions(tmp_path / "clips", train_count=4, validation_count=2)
    out = tmp_path / "out"
    process = start(clips, out, "--workers", "1", "--minutes", "0.001", launcher=TWO_PROCESSES)
    while not (out / "last.pth.tar").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert output.count("train.py: interrupted; the same command with --resume") == 1
    assert "error:" not in output
    # Another number of processes goes on.
    finish(start(clips, out))
    assert len(outcome(out)["rows"]) == 3


def test_one_of_two_processes_cannot_read_a_clip(tmp_path: Path) -> None:
    clips = make_actions(tmp_path / "clips", train_count=2, validation_count=1)
    for image in (clips / "train" / "grow-000").iterdir():
        image.write_bytes(b"damaged")
    process = start(clips, tmp_path / "out", "--workers", "1", launcher=TWO_PROCESSES)
    output, _ = process.communicate(timeout=60)
    assert output.count("error: 1 segments cannot be read") == 1
    assert output.count("error: another process of the run has ended") == 1
    assert 'train.py", line' not in output  # no traceback of ours
