"""File objects that wait for data."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer

import pytest

from data.waiting_file import WaitingFile, wait_readable


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_pipe_gives_what_there_is(pipe: tuple[int, int]) -> None:
    file = WaitingFile(pipe[0], follow=False, timeout=20, stop=Event())
    os.write(pipe[1], b"abc")
    assert file.read(2) == b"ab"
    assert file.read(2) == b"c"
    Timer(0.1, os.write, [pipe[1], b"d"]).start()
    assert file.read(2) == b"d"
    assert not file.timed_out


@pytest.mark.parametrize("follow", [True, False])
def test_the_end_is_final(tmp_path: Path, pipe: tuple[int, int], follow: bool) -> None:
    path = tmp_path / "growing"
    path.touch()
    with path.open("r+b", buffering=0) as growing:
        descriptor, writer = (growing.fileno(), os.open(path, os.O_WRONLY)) if follow else pipe
        file = WaitingFile(descriptor, follow=follow, timeout=0.1, stop=Event())
        assert file.read(2) == b""
        os.write(writer, b"late")
        assert file.read(2) == b"", "FFmpeg has ended, and would go on in the middle"
        assert file.timed_out
        if follow:
            os.close(writer)


@pytest.mark.parametrize("follow", [True, False])
def test_stopping(tmp_path: Path, pipe: tuple[int, int], follow: bool) -> None:
    stop = Event()
    with (tmp_path / "growing").open("w+b") as growing:
        descriptor = growing.fileno() if follow else pipe[0]
        file = WaitingFile(descriptor, follow=follow, timeout=60, stop=stop)
        Timer(0.1, stop.set).start()
        start = time.monotonic()
        assert file.read(2) == b""
        assert time.monotonic() - start < 30
    assert not file.timed_out


def test_a_pipe_whose_sender_is_gone_is_at_its_end() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    file = WaitingFile(reader, follow=False, timeout=60, stop=Event())
    assert file.read(2) == b""
    assert not file.timed_out
    os.close(reader)


def test_waiting(pipe: tuple[int, int]) -> None:
    assert not wait_readable(pipe[0], 0.1, Event())
    os.write(pipe[1], b"a")
    assert wait_readable(pipe[0], 0.1, Event())
