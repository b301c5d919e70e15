"""The program that evaluates, on several processes, killed, interrupted, and with a full disk."""

import csv
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.epic_dataset import write_rgb
from helpers.evaluation_data import arguments, write_evaluation_data
from helpers.interpreter import ENVIRONMENT
from helpers.repository import REPOSITORY

from engine.output_folder import OutputFolder
from tools.evaluate import main

PROGRAM = str(REPOSITORY / "tools" / "evaluate.py")
COUNT = 400


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the dataset, with many segments of one video beside."""
    root = write_evaluation_data(tmp_path_factory.mktemp("data"))
    write_rgb(root / "many", videos={"P01_11": 30})
    with open(root / "many.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "video_id", "start_frame", "stop_frame"])
        for index in range(COUNT):
            start = index % 20 + 1
            writer.writerow([f"s{index}", "P01_11", start, start + 3 + index % 7])
    return root


def many(root: Path, out: Path, **options: Any) -> list[str]:
    """Return the command line of a run that takes a while."""
    return arguments(root, out, annotations=root / "many.csv", data=root / "many", **options)


def start(command: list[str], *launcher: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *launcher, PROGRAM, *command], env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def wait_for_batches(out: Path, process: subprocess.Popen[str]) -> None:
    while not any(out.glob("rgb/batches/*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def is_running(process: subprocess.Popen[str]) -> bool:
    """Return whether the process, or any that it started, is still there."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(data: Path, tmp_path: Path) -> None:
    results = []
    for count in (1, 2, 3):
        command = arguments(data, tmp_path / str(count), "rgb", "flow", workers=1)
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
        process = start(command, *launcher)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert output.count("Scores without metrics") == 1
        scores = sorted((tmp_path / str(count)).glob("*/scores.pt"))
        results.append({path.parent.name: path.read_bytes() for path in scores})
    assert results[0].keys() == {"rgb", "flow", "fusion"}
    assert results[0] == results[1] == results[2]


@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing(data: Path, tmp_path: Path) -> None:
    assert main(many(data, tmp_path / "whole")) == 0
    command = many(data, tmp_path / "killed", workers=1)
    moments, kills, computed = random.Random(0), 0, 0
    while kills < 20:
        process = multiprocessing.get_context("fork").Process(target=main, args=(command,))
        process.start()
        process.join(moments.uniform(0.05, 0.8))
        if process.exitcode is None:
            kills += 1
        else:  # it was done before: begin anew
            for path in (tmp_path / "killed" / "rgb" / "batches").iterdir():
                path.unlink()
        process.kill()
        process.join()
    computed = len(list((tmp_path / "killed").glob("rgb/batches/*.safetensors")))
    assert computed, "no run came to its first batch"
    assert main(command) == 0
    files = [tmp_path / name / "rgb" / "scores.pt" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_ctrl_c_ends_all_processes_with_one_line(data: Path, tmp_path: Path) -> None:
    process = start(many(data, tmp_path, workers=2))
    wait_for_batches(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("evaluate.py: interrupted; the same command goes on")
    assert not is_running(process)


def test_a_worker_that_is_killed_ends_the_run_with_a_message(data: Path, tmp_path: Path) -> None:
    process = start(many(data, tmp_path, workers=2))
    wait_for_batches(tmp_path, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not tell the children of a process")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "error: a worker process ended before its time" in errors
    assert not is_running(process)


def test_a_full_disk_is_said_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*arguments: Any, **metadata: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write", write)
        assert main(arguments(data, tmp_path)) == 1
    assert "error: [Errno 28] No space left on device" in capsys.readouterr().err
    assert main(arguments(data, tmp_path)) == 0
