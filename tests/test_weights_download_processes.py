"""Real processes that fetch a file at once, are killed, or sleep: it is right, and lies alone."""

import contextlib
import hashlib
import importlib
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from helpers import http_server as behaviour
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from weights import lock
from weights.download import fetch
from weights.transfer import _CHUNK_BYTES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX does"),
]

CONTENT = random.Random(2).randbytes(3 * _CHUNK_BYTES + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/weights.pth"
NAME = "weights.pth"
ETAG = {"ETag": '"v1"'}
PROCESSES = 8

QUICK = {
    ("weights.lock", "_BEAT_SECONDS"): 0.1,
    ("weights.lock", "_LOOK_SECONDS"): 0.01,
    ("weights.download", "_FIRST_PAUSE"): 0.01,
}

SOON = 25
"""Looks at a lock, a quarter of a second in all, after which its owner is taken for dead."""

NEVER = 100_000

# A server process that has imported what is needed forks the others, so that each starts at once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["weights.download"])


def work(
    url: str, directory: Path, dead_after: int, all_started: object, hang_at_the_end: bool
) -> None:
    """What each process does; it ends with status 0 if the file that it got is right."""
    for (module, name), value in QUICK.items():
        setattr(importlib.import_module(module), name, value)
    lock._LOOKS_UNTIL_DEAD = dead_after
    if hang_at_the_end:
        os.fsync = lambda descriptor: time.sleep(60)
    if all_started is not None:
        all_started.wait()
    path = fetch(url, sha256_prefix=SHA256, directory=directory, progress=False)
    assert path.read_bytes() == CONTENT


Start = Callable[..., BaseProcess]


@pytest.fixture
def start(http_server: HttpServer, tmp_path: Path) -> Iterator[Start]:
    """Starts a process that fetches the file; kills those that are left at the end."""
    started: list[BaseProcess] = []

    def start(
        dead_after: int = NEVER, *, all_started: object = None, hang_at_the_end: bool = False
    ) -> BaseProcess:
        arguments = (http_server.url(PATH), tmp_path, dead_after, all_started, hang_at_the_end)
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


def has_received(directory: Path, size: int) -> bool:
    return [path.stat().st_size for path in directory.glob("*.partial")] == [size]


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
        handler.start(200, ETAG | {"Content-Length": str(len(CONTENT))})
        handler.wfile.write(CONTENT[:sent])
        all_there.wait(0.5)  # for the others to find that somebody is downloading
        handler.wfile.write(CONTENT[sent:])

    http_server.replies[PATH] = slow
    barrier = processes.Barrier(PROCESSES)
    assert all_succeeded([start(all_started=barrier) for _ in range(PROCESSES)])
    assert http_server.requests == [PATH]
    assert os.listdir(tmp_path) == [NAME]


KILLED_AFTER = [0, 1, _CHUNK_BYTES, len(CONTENT) // 2, len(CONTENT) - 1]


def kill_after(sent: int, start: Start, server: HttpServer, directory: Path) -> None:
    """Have a process killed when exactly so many bytes have arrived."""
    server.replies[PATH] = behaviour.resumable(CONTENT, ETAG, sent=sent, then_stall=True)
    process = start()
    until(lambda: has_received(directory, sent))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (directory / NAME).exists()
    assert has_received(directory, sent)
    assert (directory / f"{NAME}.lock").exists()


@pytest.mark.parametrize("sent", KILLED_AFTER)
def test_a_killed_download_is_continued(
    sent: int, start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    kill_after(sent, start, http_server, tmp_path)
    http_server.replies[PATH] = behaviour.resumable(CONTENT, ETAG)
    assert all_succeeded([start(SOON)])
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert http_server.ranges == [None, f"bytes={sent}-"]
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize(
    "reply",
    [
        CONTENT,
        behaviour.resumable(CONTENT, {"ETag": '"v2"'}),
        behaviour.resumable(CONTENT[::-1], ETAG, sent=1),
    ],
    ids=["no ranges", "changed file", "wrong rest"],
)
def test_a_killed_download_begins_again_where_it_must(
    reply: behaviour.Reply, start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    kill_after(len(CONTENT) - 1, start, http_server, tmp_path)
    http_server.replies[PATH] = behaviour.in_turn(reply, CONTENT)
    assert all_succeeded([start(SOON)])
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert http_server.ranges[1] == f"bytes={len(CONTENT) - 1}-"
    assert os.listdir(tmp_path) == [NAME]


def test_killed_before_anything_arrived(
    start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = behaviour.in_turn(behaviour.silent, CONTENT)
    process = start()
    until(lambda: http_server.requests == [PATH])
    process.kill()
    process.join()
    assert os.listdir(tmp_path) == [f"{NAME}.lock"]
    assert all_succeeded([start(SOON)])
    assert os.listdir(tmp_path) == [NAME]


def test_killed_when_all_has_arrived(start: Start, http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = behaviour.resumable(CONTENT, ETAG)
    process = start(hang_at_the_end=True)
    until(lambda: has_received(tmp_path, len(CONTENT)))
    process.kill()
    process.join()
    assert not (tmp_path / NAME).exists()
    assert all_succeeded([start(SOON)])
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert http_server.requests == [PATH], "the file was there already"
    assert os.listdir(tmp_path) == [NAME]


def test_killed_again_and_again(start: Start, http_server: HttpServer, tmp_path: Path) -> None:
    reply = behaviour.resumable(CONTENT, ETAG, sent=100_000, then_stall=True)
    http_server.replies[PATH] = reply
    for number in (1, 2, 3):
        process = start(SOON)
        until(lambda arrived=number * 100_000: has_received(tmp_path, arrived))
        process.kill()
        process.join()
        assert len(os.listdir(tmp_path)) == 2, "the lock and one partial file"
    http_server.replies[PATH] = behaviour.resumable(CONTENT, ETAG)
    assert all_succeeded([start(SOON)])
    assert http_server.ranges == [None] + [f"bytes={n}00000-" for n in (1, 2, 3)]
    assert os.listdir(tmp_path) == [NAME]


def test_those_who_wait_take_over_from_a_killed_one(
    start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    broken = behaviour.resumable(CONTENT, ETAG, sent=1000, then_stall=True)
    http_server.replies[PATH] = behaviour.in_turn(broken, behaviour.resumable(CONTENT, ETAG))
    killed = start()
    until(lambda: has_received(tmp_path, 1000))
    waiting = [start(2 * SOON) for _ in range(3)]
    killed.kill()
    assert all_succeeded(waiting)
    assert set(http_server.ranges) == {None, "bytes=1000-"}
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize("wakes", ["before the other one is done", "after the other one is done"])
def test_one_that_slept_and_one_that_took_over(
    wakes: str, start: Start, http_server: HttpServer, tmp_path: Path
) -> None:
    """Two own the lock at once, and nothing bad comes of it."""
    released = threading.Event()
    first_half, second_half = CONTENT[:1000], CONTENT[1000:]

    def held(handler: behaviour._Handler) -> None:
        handler.start(200, ETAG | {"Content-Length": str(len(CONTENT))})
        handler.wfile.write(first_half)
        released.wait(30)
        handler.wfile.write(second_half)

    def held_rest(handler: behaviour._Handler) -> None:
        if wakes == "before the other one is done":
            released.set()
            os.kill(sleeper.pid, signal.SIGCONT)
            handler.wait(0.5)
        behaviour.resumable(CONTENT, ETAG)(handler)

    http_server.replies[PATH] = behaviour.in_turn(held, held_rest)
    sleeper = start()
    until(lambda: has_received(tmp_path, 1000))
    os.kill(sleeper.pid, signal.SIGSTOP)
    other = start(SOON)
    try:
        assert all_succeeded([other])
        assert (tmp_path / NAME).read_bytes() == CONTENT
    finally:
        released.set()
        with contextlib.suppress(ProcessLookupError):  # awake before, and done
            os.kill(sleeper.pid, signal.SIGCONT)
    assert all_succeeded([sleeper])
    assert http_server.ranges == [None, "bytes=1000-"]
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert os.listdir(tmp_path) == [NAME]


def test_ctrl_c_in_a_process(start: Start, http_server: HttpServer, tmp_path: Path) -> None:
    stalled = behaviour.resumable(CONTENT, ETAG, sent=1000, then_stall=True)
    http_server.replies[PATH] = behaviour.in_turn(stalled, CONTENT)
    process = start()
    until(lambda: has_received(tmp_path, 1000))
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 1
    assert os.listdir(tmp_path) == []
