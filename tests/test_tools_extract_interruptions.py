"""The program that writes features, on several processes, killed, interrupted, on a full disk."""

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
from helpers.counting import tiny
from helpers.epic_dataset import write_csvs, write_rgb, write_videos
from helpers.interpreter import ENVIRONMENT
from helpers.repository import REPOSITORY

from engine.output_folder import OutputFolder
from model_loader import save_checkpoint
from tools.extract_features import main

PROGRAM = str(REPOSITORY / "tools" / "extract_features.py")
VIDEOS = {f"P01_{number}": 40 + 15 * (number % 3) for number in range(11, 21)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    save_checkpoint(tiny("TSM"), root / "tsm.pth.tar")
    write_videos(root / "videos", "{video}.mp4", VIDEOS)
    write_rgb(root / "frames")
    write_csvs(root / "csv")
    return root


def command(root: Path, out: Path, *options: Any, workers: int = 1) -> list[str]:
    options = options or (root / "videos", "--logits", "--hop", 2)
    return [
        str(root / "tsm.pth.tar"),
        *map(str, options),
        *("--out", str(out), "--threads", "1", "--workers", str(workers), "--device", "cpu"),
    ]


def start(arguments: list[str], *launcher: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *launcher, PROGRAM, *arguments], env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def wait_for_a_file(out: Path, process: subprocess.Popen[str]) -> None:
    while not any(out.glob("*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["videos", "segments"])
def test_results_do_not_depend_on_the_number_of_processes(
    data: Path, tmp_path: Path, mode: str
) -> None:
    csv = data / "csv" / "EPIC_100_validation.csv"
    segments = ("--annotations", csv, "--data", data / "frames", "--logits")
    options = segments if mode == "segments" else ()
    for count in (1, 2, 3):
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
        process = start(command(data, tmp_path / str(count), *options, workers=count), *launcher)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert output.count("features of") == 1
    found = [contents(tmp_path / str(count)) for count in (1, 2, 3)]
    assert len(found[0]) == (4 if mode == "segments" else len(VIDEOS) + 1)
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_kills_at_any_moment_lose_and_repeat_nothing(data: Path, tmp_path: Path) -> None:
    assert main(command(data, tmp_path / "whole")) == 0
    out = tmp_path / "killed"
    moments, kills, finished = random.Random(0), 0, dict[str, int]()
    while kills < 20:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=main, args=(command(data, out),))
        process.start()
        process.join(moments.uniform(0.05, 1.2))
        kills += process.exitcode is None
        process.kill()
        process.join()
        times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
        assert finished.items() <= times.items(), "a finished file was written again"
        finished = times
        if len(finished) == len(VIDEOS):  # begin anew
            assert contents(out) == contents(tmp_path / "whole")
            for name in finished:
                (out / name).unlink()
            finished = {}
    assert main(command(data, out)) == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_ctrl_c_ends_all_processes_with_one_line(data: Path, tmp_path: Path) -> None:
    process = start(command(data, tmp_path, workers=2))
    wait_for_a_file(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("extract_features.py: interrupted; the same command")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_full_disk_is_said_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*arguments: Any, **metadata: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write_rows", write)
        assert main(command(data, tmp_path)) == 1
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1].endswith("error: [Errno 28] No space left on device")
    assert main(command(data, tmp_path)) == 0
    assert len(contents(tmp_path)) == len(VIDEOS) + 1
