"""Real processes that fetch a file at once, are killed, or sleep: it is right, and lies alone."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from helpers import http_server as behaviour
from helpers.downloads import CONTENT, NAME, PATH, SHA256, fetch_quietly
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from weights import download

pytest.importorskip("filelock", minversion="3.30")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX does"),
]

PROCESSES = 8

# A server process that has imported what is needed forks the others, so that each starts at once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["weights.download"])


def work(
    url: str, directory: Path, lease_seconds: float, all_started: object, hang_at_the_end: bool
) -> None:
    """What each process does; it ends with status 0 if the file that it got is right."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs `make &`
    download._LEASE_SECONDS = lease_seconds
    download._HEARTBEAT_SECONDS = 0.1
    download._POLL_SECONDS = 0.01
    download._FIRST_PAUSE = 0.01
    if hang_at_the_end:
        os.fsync = lambda descriptor: time.sleep(60)
    if all_started is not None:
        all_started.wait()
    path = fetch_quietly(url, directory, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT


Start = Callable[..., BaseProcess]


@pytest.fixture
def start(http_server: HttpServer, tmp_path: Path) -> Iterator[Start]:
    """Starts a process that fetches the file; kills those that are left at the end."""
    started: list[BaseProcess] = []

    def start(
        lease_seconds: float = 30.0, *, all_started: object = None, hang_at_the_end: bool = False
    ) -> BaseProcess:
        arguments = (http_server.url(PATH), tmp_path, lease_seconds, all_started, hang_at_the_end)
        process = processes.Process(target=work, args=arguments)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail("it did not happen within 30 seconds")


def partial_files(directory: Path) -> list[Path]:
    return list(directory.glob("*.partial"))


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def all_succeeded(started: list[BaseProcess]) -> bool:
    for process in started:
        process.join(30)
    return [process.exitcode for process in started] == [0] * len(started)


@pytest.mark.parametrize("sent", [0, 100_000], ids=["from the first byte", "in the middle"])
def test_many_processes_make_one_download(
    sent: int, start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    all_there = threading.Event()

    def slow(handler: behaviour._Handler) -> None:
        handler.start(200, {"Content-Length": str(len(CONTENT))})
        handler.wfile.write(CONTENT[:sent])
        all_there.wait(0.5)  # for the others to find that somebody is downloading
        handler.wfile.write(CONTENT[sent:])

    http_server.replies[PATH] = slow
    barrier = processes.Barrier(PROCESSES)
    assert all_succeeded([start(all_started=barrier) for _ in range(PROCESSES)])
    assert http_server.requests == [PATH]
    assert os.listdir(tmp_path) == [NAME]


def test_killed_before_anything_arrived(
    start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = behaviour.in_turn(behaviour.silent, CONTENT)
    process = start()
    until(lambda: http_server.requests == [PATH])
    kill(process)
    assert os.listdir(tmp_path) == [f"{NAME}.lock"]
    assert all_succeeded([start()])
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize("sent", [0, 1, download._CHUNK_BYTES, len(CONTENT) - 1])
@pytest.mark.parametrize("times", [1, 3])
def test_a_killed_download_begins_again(
    times: int, sent: int, start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = behaviour.stalled(CONTENT, sent)
    for number in range(1, times + 1):
        process = start()
        until(lambda left=number: len(partial_files(tmp_path)) == left)
        kill(process)
        assert not (tmp_path / NAME).exists()
        assert (tmp_path / f"{NAME}.lock").exists()
    http_server.replies[PATH] = CONTENT
    assert all_succeeded([start()])
    assert len(http_server.requests) == times + 1
    assert os.listdir(tmp_path) == [NAME]


def test_killed_when_all_has_arrived(start: Start, http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = CONTENT
    process = start(hang_at_the_end=True)
    until(lambda: [path.stat().st_size for path in partial_files(tmp_path)] == [len(CONTENT)])
    kill(process)
    assert not (tmp_path / NAME).exists()
    assert all_succeeded([start()])
    assert os.listdir(tmp_path) == [NAME]


def test_those_who_wait_take_over_from_a_killed_one(
    start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = behaviour.in_turn(behaviour.stalled(CONTENT, 1000), CONTENT)
    killed = start()
    until(lambda: len(partial_files(tmp_path)) == 1)
    barrier = processes.Barrier(4)
    waiting = [start(all_started=barrier) for _ in range(3)]
    barrier.wait(30)
    kill(killed)
    assert all_succeeded(waiting)
    assert http_server.requests == [PATH, PATH]
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize("wakes", ["before the other one is done", "after the other one is done"])
def test_one_that_slept_and_one_that_took_over(
    wakes: str, start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    """Two own the lock at once, and nothing bad comes of it."""
    released = threading.Event()

    def held(handler: behaviour._Handler) -> None:
        handler.start(200, {"Content-Length": str(len(CONTENT))})
        handler.wfile.write(CONTENT[:1000])
        released.wait(30)
        handler.wfile.write(CONTENT[1000:])

    def wake(handler: behaviour._Handler) -> None:
        if wakes == "before the other one is done":
            released.set()
            os.kill(sleeper.pid, signal.SIGCONT)
            handler.wait(0.5)
        handler.answer(CONTENT)

    http_server.replies[PATH] = behaviour.in_turn(held, wake)
    sleeper = start(lease_seconds=1.0)
    until(lambda: len(partial_files(tmp_path)) == 1)
    os.kill(sleeper.pid, signal.SIGSTOP)
    other = start(lease_seconds=1.0)
    try:
        assert all_succeeded([other])
        assert (tmp_path / NAME).read_bytes() == CONTENT
    finally:
        released.set()
        with contextlib.suppress(ProcessLookupError):  # awake before, and done
            os.kill(sleeper.pid, signal.SIGCONT)
    assert all_succeeded([sleeper])
    assert http_server.requests == [PATH, PATH]
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert os.listdir(tmp_path) == [NAME]


def test_ctrl_c_in_a_process(start: Start, http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = behaviour.stalled(CONTENT, 1000)
    process = start()
    until(lambda: len(partial_files(tmp_path)) == 1)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 1
    assert os.listdir(tmp_path) == []
