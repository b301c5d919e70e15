"""The lock saves downloads, and never keeps one from happening."""

import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from helpers.downloads import CONTENT, NAME, PATH, SHA256, fetch_quietly
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from weights import download

filelock = pytest.importorskip("filelock", minversion="3.30")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_POLL_SECONDS", 0.005)


@pytest.fixture
def lock_path(http_server: HttpServer, tmp_path: Path) -> Path:
    http_server.replies[PATH] = CONTENT
    return tmp_path / f"{NAME}.lock"


@pytest.fixture
def owner(lock_path: Path) -> Iterator[filelock.SoftFileLease]:
    """Another download's lock."""
    lock = filelock.SoftFileLease(lock_path, lease_duration=download._LEASE_SECONDS)
    with lock:
        yield lock


@pytest.mark.parametrize("locked", [True, False])
def test_threads_that_fetch_the_same_file(
    locked: bool, http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locked:
        monkeypatch.setitem(sys.modules, "filelock", None)
    http_server.replies[PATH] = CONTENT
    found: list[bytes] = []

    def work() -> None:
        path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
        found.append(path.read_bytes())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 8
    assert len(http_server.requests) == 1 or not locked
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize("installed", [None, ModuleType("filelock")], ids=["none", "an old one"])
def test_without_filelock_nobody_waits(
    installed: ModuleType | None,
    owner: filelock.SoftFileLease,
    http_server: HttpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "filelock", installed)
    assert fetch_quietly(http_server.url(PATH), tmp_path).read_bytes() == CONTENT
    assert "waiting" not in caplog.text


@pytest.mark.parametrize("method", ["__init__", "acquire", "release"])
@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), RuntimeError("a bug of the lock's")]
)
def test_a_lock_that_fails_keeps_nobody_from_downloading(
    method: str,
    error: Exception,
    lock_path: Path,
    http_server: HttpServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(filelock.SoftFileLease, method, fail)
    path = fetch_quietly(http_server.url(PATH), lock_path.parent)
    assert path.read_bytes() == CONTENT


def test_whoever_waits_says_for_whom_and_goes_on_after_the_time_out(
    owner: filelock.SoftFileLease,
    http_server: HttpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(download, "_LOCK_TIMEOUT", 0.05)
    path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    [line] = [record.message for record in caplog.records if record.name == "weights.download"]
    whom = f"process {os.getpid()} on {socket.gethostname()}"
    assert line == f"waiting for {whom}, which is downloading {path}"
    assert owner.is_lock_held_by_us, "it is the other one's to give back"


def test_whoever_waits_takes_over_from_the_dead(
    lock_path: Path,
    http_server: HttpServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="weights.download")
    monkeypatch.setattr(download, "_LEASE_SECONDS", 0.2)
    monkeypatch.setattr(download, "_HEARTBEAT_SECONDS", 0.05)
    with filelock.SoftFileLease(lock_path, lease_duration=0.2):
        marker = lock_path.read_text()
    lock_path.write_text(marker.replace(socket.gethostname(), "node12"))
    path = fetch_quietly(http_server.url(PATH), lock_path.parent, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert f"waiting for process {os.getpid()} on node12" in caplog.text
    assert "without a lock" not in caplog.text
    assert os.listdir(lock_path.parent) == [NAME]


@pytest.mark.parametrize("left", ["0123 process 4711 on node12\n....", "not a lock"])
def test_a_lock_file_of_another_kind_is_taken_away_or_waited_out(
    left: str, lock_path: Path, http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_LOCK_TIMEOUT", 0.05)
    lock_path.write_text(left)
    path = fetch_quietly(http_server.url(PATH), lock_path.parent)
    assert path.read_bytes() == CONTENT


def test_whoever_waits_uses_the_file_that_appears(
    owner: filelock.SoftFileLease,
    http_server: HttpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def waiting(*_: object) -> None:
        (tmp_path / NAME).write_bytes(b"the other one's")

    monkeypatch.setattr(download._logger, "warning", waiting)
    path = fetch_quietly(http_server.url(PATH), tmp_path)
    assert path.read_bytes() == b"the other one's"
    assert http_server.requests == []


def test_whoever_gets_the_lock_looks_whether_the_file_has_come(
    lock_path: Path, http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = filelock.SoftFileLease.acquire

    def acquire_late(lock: filelock.SoftFileLease, *arguments: object, **options: object) -> object:
        lock_path.with_name(NAME).write_bytes(b"the other one's")
        return acquire(lock, *arguments, **options)

    monkeypatch.setattr(filelock.SoftFileLease, "acquire", acquire_late)
    path = fetch_quietly(http_server.url(PATH), lock_path.parent)
    assert path.read_bytes() == b"the other one's"
    assert http_server.requests == []
    assert os.listdir(lock_path.parent) == [NAME]
