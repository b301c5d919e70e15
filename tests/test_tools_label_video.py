"""The program that labels videos and live sources: its outputs, its end, what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.counting import tiny
from helpers.epic_dataset import write_flow, write_rgb
from helpers.interpreter import ENVIRONMENT
from helpers.repository import REPOSITORY
from helpers.small_models import randomised
from helpers.videos import COUNT, X264, encode, mp4
from PIL import Image

from data.video import open_frames
from model_loader import save_checkpoint
from tools.label_video import main
from tsn import TSN

PROGRAM = str(REPOSITORY / "tools" / "label_video.py")
SECONDS = COUNT / 25


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for variant in ("TSN", "MTRN", "TSM"):
        save_checkpoint(tiny(variant), root / variant)
    save_checkpoint(tiny("TSM", shift_direction="past"), root / "past")
    save_checkpoint(tiny("TSN", "RGBDiff", new_length=2), root / "RGBDiff")
    save_checkpoint(tiny("TSN", "Flow", new_length=2), root / "Flow")
    mp4(root)
    encode(root / "live.ts", "libx264", options=X264, count=COUNT)
    for task, count in (("verb", 5), ("noun", 7)):
        rows = "".join(f"{i},{task} {chr(97 + i)}\n" for i in range(count))
        (root / f"{task}.csv").write_text(f"id,key\n{rows}")
    return root


def command(data: Path, source: object, model: str, *options: object) -> list[str]:
    given = ("--checkpoint", data / model, "--device", "cpu", "--threads", 1, *options)
    return [str(source), *map(str, given)]


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_spans(rows: list[dict[str, Any]], stop: float) -> None:
    starts, stops = ([float(row[name]) for row in rows] for name in ("start", "stop"))
    assert starts == [0, *stops[:-1]]
    assert stops[-1] == pytest.approx(stop, abs=0.002)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.essential
@pytest.mark.parametrize("model", ["TSN", "past"])
def test_a_video_has_all_outputs(
    data: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"rows.csv", "rows.jsonl", "rows.json", "line.png", "out.mp4"}
    options: list[object] = ["--timeline", tmp_path / "line.png", "--render", tmp_path / "out.mp4"]
    for name in ("rows.csv", "rows.jsonl", "rows.json"):
        options += ["--output", tmp_path / name]
    options += ["--verb-classes", data / "verb.csv", "--noun-classes", data / "noun.csv"]
    assert main(command(data, data / "plain.mp4", model, *options)) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "2.0 of 2.0 seconds of video" in printed.err
    assert files(tmp_path) == names
    rows = read_csv(tmp_path / "rows.csv")
    check_spans(rows, SECONDS)
    assert len(rows) == (5 if model == "past" else 1)
    assert rows[0]["action"] == f"{rows[0]['verb']} {rows[0]['noun']}"
    assert rows[0]["verb"] in [f"verb {letter}" for letter in "abcde"]
    probabilities = [float(rows[0][f"{kind}_probability"]) for kind in ("verb", "noun", "action")]
    assert probabilities[2] == pytest.approx(probabilities[0] * probabilities[1], abs=1e-5)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in lines] == [row["action"] for row in rows]
    segments = json.loads((tmp_path / "rows.json").read_text())["results"]["plain"]
    assert segments[0]["label"] == rows[0]["action"]
    assert segments[-1]["segment"][1] == pytest.approx(SECONDS)
    with Image.open(tmp_path / "line.png") as picture:
        assert min(picture.size) > 300
    rendered, original = (open_frames(path) for path in (tmp_path / "out.mp4", data / "plain.mp4"))
    assert len(rendered) == COUNT
    assert rendered.read([0]).shape == original.read([0]).shape
    assert not torch.equal(rendered.read([9]), original.read([9]))


def test_without_outputs_rows_are_printed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(data, data / "plain.mp4", "past", "--merge")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 5
    assert lines[0].split()[0] == "0.00"
    assert lines[-1].split()[1:3] == ["2.00", "s"]
    assert "verb" in lines[0]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("TSM", ["--window", 20, "--hop", 10, "--smooth", "mean:2"]),
        ("MTRN", ["--rate", 10, "--window", 8, "--crops", 3, "--no-optimize"]),
        ("RGBDiff", ["--stride", 2, "--precision", "bfloat16"]),
        ("past", ["--rate", 25, "--stride", 2, "--hop", 4, "--smooth", "exponential:3"]),
    ],
)
def test_options_of_rows(data: Path, tmp_path: Path, model: str, options: list[object]) -> None:
    out = tmp_path / "rows.csv"
    assert main(command(data, data / "plain.mp4", model, *options, "--output", out)) == 0
    rows = read_csv(out)
    check_spans(rows, SECONDS)
    assert len(rows) > 1


def test_folders_of_images_and_flow(data: Path, tmp_path: Path) -> None:
    write_rgb(tmp_path / "rgb")
    write_flow(tmp_path / "flow")
    for model, folder, seconds in (("TSN", "rgb", 120 / 60), ("Flow", "flow", 59 / 30)):
        source = tmp_path / folder / "P01" / "P01_11"
        outputs = [tmp_path / f"{model}.{ending}" for ending in ("csv", "json", "png", "mp4")]
        options = ("--output", outputs[0], "--output", outputs[1], "--timeline", outputs[2])
        assert main(command(data, source, model, *options, "--render", outputs[3])) == 0
        check_spans(read_csv(outputs[0]), seconds)
        assert list(json.loads(outputs[1].read_text())["results"]) == ["P01_11"]
        assert outputs[2].stat().st_size > 1000
        assert len(open_frames(outputs[3])) == round(seconds * (60 if model == "TSN" else 30))


def test_folders_without_times_need_a_rate(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(1, 13):
        Image.new("RGB", (48, 40), (20 * number, 0, 0)).save(folder / f"img_{number:05}.jpg")
    out = tmp_path / "rows.csv"
    assert main(command(data, folder, "TSN", "--output", out)) == 1
    assert "its images have no times" in capsys.readouterr().err
    assert main(command(data, folder, "TSN", "--output", out, "--fps", 6)) == 0
    check_spans(read_csv(out), 2)


def test_one_task_has_names_of_its_own(data: Path, tmp_path: Path) -> None:
    model = randomised(TSN(3, 2, "RGB", "resnet18", pretrained=None))
    model.preprocessing = replace(model.preprocessing, input_size=32, scale_size=36)
    save_checkpoint(model, tmp_path / "one")
    (tmp_path / "names.txt").write_text("wave\nclap\nsit down\n")
    out = tmp_path / "rows.csv"
    options = ("--classes", tmp_path / "names.txt", "--output", out)
    assert main(command(tmp_path, data / "plain.mp4", "one", *options)) == 0
    row = read_csv(out)[0]
    assert row.keys() == {"start", "stop", "class", "class_probability"}
    assert row["class"] in ("wave", "clap", "sit down")
    model.class_names = ["stand", "walk", "run"]
    save_checkpoint(model, tmp_path / "one")
    out = tmp_path / "own.csv"
    assert main(command(tmp_path, data / "plain.mp4", "one", "--output", out)) == 0
    assert read_csv(out)[0]["class"] in model.class_names


@pytest.mark.parametrize(
    ("source", "model", "options", "message"),
    [
        ("nowhere.mp4", "TSN", [], "nowhere.mp4"),
        ("verb.csv", "TSN", [], "verb.csv"),
        ("plain.mp4", "nothing", [], "there is no such file, and no published weights"),
        ("plain.mp4", "verb.csv", [], "is not a checkpoint"),
        ("plain.mp4", "Flow", [], "plain.mp4"),
        ("plain.mp4", "TSN", ["--hop", "60"], "hop must be at most the window, 50 frames, got 60"),
        ("plain.mp4", "TSN", ["--stride", "0"], "stride must be a positive integer"),
        ("plain.mp4", "TSN", ["--rate", "-1"], "rate must be positive"),
        ("plain.mp4", "TSN", ["--smooth", "median:3"], "smoothing must be mean:N or exponential"),
        ("plain.mp4", "TSN", ["--top-k", "0"], "--top-k must be a positive integer"),
        ("plain.mp4", "RGBDiff", ["--rate", "5"], "take the 3 frames of a snippet apart"),
        ("plain.mp4", "past", ["--window", "5"], "window is for models that see windows"),
        ("plain.mp4", "TSN", ["--verb-classes", "verb.csv"], "are needed together"),
        ("plain.mp4", "TSN", ["--fetch-classes"], "knows no dataset with (5, 7) classes"),
        ("plain.mp4", "TSN", ["--device", "abacus"], "device must be one of this machine"),
        ("http://127.0.0.1:9/x", "TSN", ["--timeout", "5"], "127.0.0.1:9"),
        ("http://127.0.0.1:9/x", "TSN", ["--timeout", "0"], "timeout must be a positive number"),
        ("http://127.0.0.1:9/x", "TSN", ["--duration", "-1"], "--duration must be a positive"),
        ("http://127.0.0.1:9/x", "Flow", [], "a live source has RGB frames"),
        ("plain.mp4", "TSM", ["--follow", "--hop", "9"], "hop must be at most the window, 4"),
        ("plain.mp4", "TSN", ["--follow", "--window", "9"], "window is for models that"),
    ],
)
def test_errors_are_one_message_and_leave_nothing(
    data: Path, tmp_path: Path, source: str, model: str, options: list[str], message: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(data)
    outputs = ("--output", tmp_path / "rows.csv", "--render", tmp_path / "out.mp4")
    assert main(command(data, source, model, *options, *outputs)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in error
    assert message in error
    assert not files(tmp_path)


def test_outputs_that_cannot_be_are_told_together(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.csv").write_text("precious")
    old, picture = tmp_path / "old.csv", tmp_path / "no" / "line.png"
    options = ("--output", old, "--output", tmp_path / "rows.xml", "--timeline", picture)
    assert main(command(data, data / "plain.mp4", "TSN", *options)) == 1
    error = capsys.readouterr().err
    for part in ("old.csv exists", "must end in one of .csv, .jsonl, .json", "no such folder"):
        assert part in error
    assert (tmp_path / "old.csv").read_text() == "precious"
    options = ("--output", tmp_path / "a.csv", "--render", tmp_path / "out.gif")
    assert main(command(data, data / "plain.mp4", "TSN", *options)) == 1
    assert "got '.gif'" in capsys.readouterr().err
    assert files(tmp_path) == {"old.csv"}


def test_folders_that_cannot_be_written_and_files_given_twice(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disc").mkdir()
    access = os.access  # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, how: path.name != "disc" and access(path, how))
    options = ("--output", tmp_path / "a.csv", "--output", tmp_path / "disc" / ".." / "a.csv",
               "--timeline", tmp_path / "disc" / "line.png")  # fmt: skip
    assert main(command(data, data / "plain.mp4", "TSN", *options)) == 1
    error = capsys.readouterr().err
    assert f"--timeline: the folder is read-only: {tmp_path / 'disc'}" in error
    assert "--output: each file must be given once" in error


def test_a_picture_that_fails_costs_no_other_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tools.label_outputs.Timeline.draw", fail)
    options = [tmp_path / name for name in ("rows.json", "out.mp4", "line.png")]
    given = zip(("--output", "--render", "--timeline"), options, strict=True)
    arguments = [part for pair in given for part in pair]
    assert main(command(data, data / "plain.mp4", "TSN", *arguments)) == 1
    assert "disk full" in capsys.readouterr().err
    assert files(tmp_path) == {"rows.json", "out.mp4"}
    assert len(open_frames(tmp_path / "out.mp4")) == COUNT


def test_without_matplotlib_there_is_an_error_before_the_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    options = ("--output", tmp_path / "rows.csv", "--timeline", tmp_path / "line.png")
    assert main(command(data, data / "plain.mp4", "TSN", *options)) == 1
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not files(tmp_path)


def test_options_of_live_sources_are_for_them(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--duration", 3], ["--timeout", 3], ["--input-option", "a=b"]):
        with pytest.raises(SystemExit):
            main(command(data, data / "plain.mp4", "TSN", *option))
        assert "is for live sources" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command(data, data / "plain.mp4", "TSN", "--follow", "--input-option", "a"))
    assert "must be KEY=VALUE" in capsys.readouterr().err


@pytest.fixture
def sender(data: Path, tmp_path: Path) -> Iterator[Path]:
    """A named pipe, into which a video comes; then it stays open until the end of the test."""
    path, over = tmp_path / "pipe", threading.Event()
    os.mkfifo(path)

    def send() -> None:
        with open(path, "wb") as pipe:
            pipe.write((data / "live.ts").read_bytes())
            pipe.flush()
            over.wait(60)

    thread = threading.Thread(target=send)
    thread.start()
    yield path
    over.set()
    thread.join(60)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, PROGRAM, *arguments], env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def wait_for_rows(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(("model", "number"), [("past", signal.SIGINT), ("TSM", signal.SIGTERM)])
def test_ctrl_c_is_the_end_of_a_live_source(
    data: Path, tmp_path: Path, sender: Path, model: str, number: signal.Signals
) -> None:
    outputs = {name: tmp_path / name for name in ("rows.csv", "rows.json", "line.png", "out.mp4")}
    process = start(
        command(
            data, sender, model, "--timeout", 60, "--rate", 10,
            "--output", outputs["rows.csv"], "--output", outputs["rows.json"],
            "--timeline", outputs["line.png"], "--render", outputs["out.mp4"],
        )
    )  # fmt: skip
    wait_for_rows(outputs["rows.csv"], 3, process)  # with the header
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "frames were seen and 0 dropped" in errors
    assert ("looks at frames before and after" in errors) == (model == "TSM")
    rows = read_csv(outputs["rows.csv"])
    check_spans(rows, float(rows[-1]["stop"]))
    segments = json.loads(outputs["rows.json"].read_text())["results"][str(sender)]
    assert segments[-1]["segment"][1] == float(rows[-1]["stop"])
    assert outputs["line.png"].stat().st_size > 1000
    assert len(open_frames(outputs["out.mp4"])) > 1
    assert files(tmp_path) == {*outputs, "pipe"}


def test_a_source_that_breaks_off_has_been_labelled(
    data: Path, sender: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    assert main(command(data, sender, "TSN", "--timeout", 1, "--output", out)) == 0
    assert "frames were seen and 0 dropped" in capsys.readouterr().err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    check_spans(rows, float(rows[-1]["stop"]))
    assert len(rows) >= 3


def test_a_live_run_has_a_duration(data: Path, sender: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    options = ("--duration", 1, "--rate", 25, "--hop", 5, "--output", out)
    assert main(command(data, sender, "MTRN", *options)) == 0
    check_spans(read_csv(out), 1)


def test_files_are_interrupted(data: Path, tmp_path: Path) -> None:
    encode(tmp_path / "long.mp4", "libx264", options=X264, count=600)
    outputs = [tmp_path / name for name in ("rows.csv", "rows.json", "line.png", "out.mp4")]
    options = ("--hop", 1, "--output", outputs[0], "--output", outputs[1],
               "--timeline", outputs[2], "--render", outputs[3])  # fmt: skip
    process = start(command(data, tmp_path / "long.mp4", "TSM", *options))
    wait_for_rows(outputs[0], 5, process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted; rows so far are kept" in errors
    assert files(tmp_path) == {"long.mp4", "rows.csv"}
    rows = read_csv(outputs[0])
    check_spans(rows, float(rows[-1]["stop"]))


@pytest.mark.slow
def test_a_reader_that_goes_away(data: Path) -> None:
    arguments = command(data, data / "plain.mp4", "TSM", "--window", 4, "--hop", 1)
    text = f"{sys.executable} {PROGRAM} {' '.join(arguments)} | head -1"
    result = subprocess.run(text, shell=True, capture_output=True, text=True, check=True)
    assert len(result.stdout.splitlines()) == 1
    assert "rror" not in result.stderr
