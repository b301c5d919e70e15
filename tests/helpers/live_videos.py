"""What tests of live sources share: a video like a camera's, and whether all threads have ended.

from helpers.live_videos import no_thread_left, video_fixture  # noqa: F401 -- fixtures
"""

import contextlib
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from data.live import LiveFrame
from helpers.videos import encode, number_in

LOW_DELAY = {"g": "12", "tune": "zerolatency", "preset": "ultrafast", "threads": "1"}
"""x264's options for frames that come out as soon as they go in."""


@pytest.fixture(name="video", scope="module")
def video_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 0 ... 49, 25 in a second, with a key frame every 12."""
    return encode(tmp_path_factory.mktemp("live") / "live.ts", "libx264", options=LOW_DELAY)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "LiveFrames":
            thread.join(10)  # after Ctrl-C while a source is opened, nobody waits for it
            assert not thread.is_alive()


def numbers(frames: Iterable[LiveFrame]) -> list[int]:
    return [number_in(frame.image) for frame in frames]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the library logged; FFmpeg's own messages come with some versions of PyAV."""
    records = [record for record in caplog.records if record.name == "data.live"]
    return [f"{record.levelname} {record.getMessage()}" for record in records]


@contextlib.contextmanager
def copying(*sources: Path, pipe: Path, linger: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Write files into a pipe, in a process that keeps it open for some seconds more."""
    script = 'exec > "$1"; (($# < 2)) || cat "${@:2}"; exec sleep $0'
    with subprocess.Popen(["bash", "-c", script, str(linger), pipe, *sources]) as process:
        yield process
        process.kill()
