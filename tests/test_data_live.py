"""Live sources on this machine: pipes, standard input, files that grow; closing them."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.interpreter import ENVIRONMENT
from helpers.live_sender import sending
from helpers.live_videos import (  # noqa: F401 -- fixtures
    LOW_DELAY,
    copying,
    messages,
    no_thread_left,
    numbers,
    video_fixture,
)
from helpers.repository import REPOSITORY
from helpers.videos import COUNT, X264, encode, erase_packets, picture

from data.live import LiveFrames, is_live
from data.video_file import VideoFile


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def is_closed(frames: LiveFrames) -> bool:
    return list(frames) == []


# What comes out


@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p"])
def test_frames_are_those_of_the_video_file(tmp_path: Path, pixels: str) -> None:
    path = encode(tmp_path / "a.mkv", "libx264", options=X264, pixels=pixels, rotation=90)
    with LiveFrames(path) as frames:
        images = torch.stack([frame.image for frame in frames])
    source = VideoFile(path)
    assert torch.equal(images, source.read(range(len(source))))


def test_rotated_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", options=X264, rotation=90)
    with LiveFrames(path) as frames:
        image = next(frames).image
    assert image.shape == (3, 64, 48)
    assert torch.equal(image, VideoFile(path).read([0])[0])


def test_pipe(pipe: Path, video: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "data.live")
    with copying(video, pipe=pipe), LiveFrames(pipe) as frames:
        found = list(frames)
        assert is_closed(frames)
    assert numbers(found) == list(range(COUNT))
    assert [frame.seconds for frame in found] == pytest.approx(np.arange(COUNT) / 25)
    assert found[0].image.dtype == torch.uint8
    assert (frames.name, frames.dropped) == (str(pipe), 0)
    assert messages(caplog) == [f"INFO {pipe}: ended after {COUNT} frames: end of data"]


def test_frames_of_a_pipe_wait_for_a_slow_reader(pipe: Path, video: Path) -> None:
    generator = random.Random(0)
    found = []
    with copying(video, pipe=pipe), LiveFrames(pipe) as frames:
        for frame in frames:
            time.sleep(generator.choice([0, 0, 0, 0.05]))
            found.append(frame)
    assert numbers(found) == list(range(COUNT))


def test_frames_of_a_pipe_are_dropped_on_demand(pipe: Path, video: Path) -> None:
    with copying(video, pipe=pipe), LiveFrames(pipe, drop=True) as frames:
        first = next(frames)
        for _ in range(1000):
            if frames.dropped < 20:
                time.sleep(0.01)
        found = numbers([first, *frames])
    assert found == sorted(found)
    assert found[-1] == COUNT - 1
    assert frames.dropped >= 20
    assert len(found) + frames.dropped == COUNT


def test_a_rate_leaves_frames_out_that_are_not_dropped_ones(pipe: Path, video: Path) -> None:
    with copying(video, pipe=pipe), LiveFrames(pipe, rate=5) as frames:
        assert numbers(frames) == [0, 4, 9, 14, 19, 24, 29, 34, 39, 44, 49]
    assert frames.dropped == 0


def test_standard_input(video: Path) -> None:
    before = os.dup(0)
    with subprocess.Popen(["cat", video], stdout=subprocess.PIPE) as sender:
        try:
            os.dup2(sender.stdout.fileno(), 0)
            with LiveFrames("-") as frames:
                assert numbers(frames) == list(range(COUNT))
                assert frames.name == "standard input"
        finally:
            os.dup2(before, 0)
            os.close(before)


@pytest.mark.parametrize("file_format", ["mpegts", "matroska", "mp4"])
def test_a_file_that_grows(
    tmp_path: Path, video: Path, file_format: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "data.live")
    path = tmp_path / "growing"
    path.touch()
    with (
        sending(video, str(path), file_format=file_format, speed=10, pause=49) as sender,
        LiveFrames(path, follow=True, timeout=1) as frames,
    ):
        found = [next(frames)]
        sender.go_on()
        found += frames
    assert numbers(found) == list(range(COUNT))
    assert messages(caplog) == [f"INFO {path}: ended after {COUNT} frames: no data for 1 seconds"]


# Awkward streams


def test_timestamps_that_jump_back(pipe: Path, video: Path) -> None:
    with copying(video, video, pipe=pipe), LiveFrames(pipe) as frames:
        found = list(frames)
    assert numbers(found) == 2 * list(range(COUNT))
    seconds = [frame.seconds for frame in found]
    assert (np.diff(seconds) > 0).all()
    assert np.diff(seconds[COUNT:]) == pytest.approx(1 / 25, abs=1e-3)


def test_sizes_that_change(pipe: Path, video: Path, tmp_path: Path) -> None:
    pictures = [picture(number)[:32, :48] for number in range(COUNT)]
    small = encode(tmp_path / "b.ts", "libx264", options=LOW_DELAY, pictures=pictures)
    with copying(video, small, pipe=pipe), LiveFrames(pipe) as frames:
        sizes = [frame.image.shape for frame in frames]
    assert sizes == [(3, 48, 64)] * COUNT + [(3, 32, 48)] * COUNT


def test_damaged_data_is_skipped_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = encode(tmp_path / "a.avi", "mjpeg", pixels="yuvj420p")
    path = erase_packets(whole, tmp_path / "damaged.avi", 10, 20, 21)
    with LiveFrames(path) as frames:
        assert numbers(frames) == [n for n in range(COUNT) if n not in (10, 20, 21)]
    (message,) = messages(caplog)
    assert message.startswith(f"WARNING {path}: skipping damaged data (")


def test_other_errors_reach_the_reader(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> torch.Tensor:
        raise MemoryError("no memory")

    monkeypatch.setattr("data.live.to_rgb", fail)
    with LiveFrames(video) as frames:
        with pytest.raises(MemoryError, match="no memory"):
            next(frames)
        assert is_closed(frames)


# The end


def test_a_pipe_that_falls_silent(
    pipe: Path, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with copying(video, pipe=pipe, linger=60), LiveFrames(pipe, timeout=0.5) as frames:
        assert numbers(frames) == list(range(COUNT))
        assert is_closed(frames)
    (message,) = messages(caplog)
    assert message == f"WARNING {pipe}: ended after {COUNT} frames: no data for 0.5 seconds"


def test_closing_while_a_read_waits(pipe: Path, video: Path) -> None:
    with copying(video, pipe=pipe, linger=60):
        frames = LiveFrames(pipe, timeout=60)
        closer = threading.Timer(0.3, frames.close)
        closer.start()
        found = numbers(frames)  # the last ones may be incomplete
        assert COUNT - 2 <= len(found) <= COUNT
        closer.join(timeout=20)
        assert not closer.is_alive()
        frames.close()
        assert is_closed(frames)


def test_closing_drops_what_waits(video: Path) -> None:
    frames = LiveFrames(video)
    next(frames)
    frames.close()
    assert is_closed(frames)


def test_forgetting_to_close(video: Path) -> None:
    frames = LiveFrames(video)
    next(frames)
    del frames
    for thread in threading.enumerate():
        if thread.name == "LiveFrames":
            thread.join(timeout=20)


def test_descriptors_are_closed(pipe: Path, video: Path) -> None:
    with copying(video, pipe=pipe), LiveFrames(pipe) as frames:
        list(frames)
    with copying(Path(__file__), pipe=pipe), pytest.raises(ValueError, match="without a video"):
        LiveFrames(pipe)
    opened = [os.path.realpath(entry.path) for entry in os.scandir("/proc/self/fd")]
    assert str(pipe) not in opened


@pytest.mark.parametrize("opened", [True, False])
def test_control_c_while_a_read_waits(pipe: Path, video: Path, opened: bool) -> None:
    with copying(*([video] if opened else []), pipe=pipe, linger=60):
        threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt), LiveFrames(pipe, timeout=60) as frames:
            list(frames)


@pytest.mark.slow  # it imports PyTorch
@pytest.mark.parametrize("closed", [True, False])
def test_control_c_ends_a_program(pipe: Path, video: Path, closed: bool) -> None:
    program = f"""
from data.live import LiveFrames
frames = LiveFrames({str(pipe)!r}, timeout=60)
try:
    for frame in frames:
        print("frame", flush=True)
finally:
    if {closed}:
        frames.close()
"""
    with (
        copying(video, pipe=pipe, linger=120),
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=REPOSITORY, env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        for _ in range(COUNT - 5):  # the last ones may be incomplete
            assert process.stdout.readline() == "frame\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")


# What is live


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/dev/video0", True),
        ("/dev/video99", True),
        ("/dev/null", True),
        ("-", True),
        ("rtsp://camera/1", True),
        ("HTTP://camera/1", True),
        ("udp://127.0.0.1:9000", True),
        ("file:///tmp/a.mp4", False),
        ("clip.mp4", False),
        (Path("clip.mp4"), False),
        ("null\0", False),
        (b"bytes", False),
        (torch.zeros(1), False),
    ],
)
def test_is_live(source: object, expected: bool) -> None:
    assert is_live(source) is expected


def test_pipes_are_live_and_files_are_not(pipe: Path, video: Path) -> None:
    assert is_live(pipe)
    assert not is_live(video)
    assert not is_live(video.parent)


@pytest.mark.parametrize(
    "arguments", [{"rate": 0}, {"rate": float("nan")}, {"timeout": -1}, {"timeout": float("inf")}]
)
def test_numbers_must_be_positive(video: Path, arguments: dict[str, float]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} must be a positive number, got"):
        LiveFrames(video, **arguments)
