"""Ctrl-C, a full disk, killed and faster processes leave the whole file or nothing."""

import linecache
import os
import re
import sys
import time
from pathlib import Path
from types import FrameType

import pytest
from helpers import http_server as behaviour
from helpers.downloads import CONTENT, NAME, PATH, SHA256, fetch_quietly
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from weights import download
from weights.download import DownloadError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_PAUSE", 0.001)


class InterruptedBar:
    """Stands in for the progress bar: Ctrl-C comes when the second chunk is in the file."""

    def __init__(self, **options: object) -> None:
        self.updates = 0

    def __enter__(self) -> "InterruptedBar":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, amount: int) -> None:
        self.updates += 1
        if self.updates == 2:
            raise KeyboardInterrupt


def test_ctrl_c_leaves_nothing(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_server.replies[PATH] = CONTENT
    monkeypatch.setattr(download, "tqdm", InterruptedBar)
    with pytest.raises(KeyboardInterrupt):
        fetch_quietly(http_server.url(PATH), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_not_blamed_on_the_network(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    http_server.replies[PATH] = CONTENT
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DownloadError, match=r"cannot write .*No space left on device"):
        fetch_quietly(http_server.url(PATH), tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_name_appears_only_when_the_file_is_complete(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.listdir(tmp_path)))
    http_server.replies[PATH] = CONTENT
    fetch_quietly(http_server.url(PATH), tmp_path)
    assert len(seen) == 1
    partial, locked = sorted(seen[0])
    assert re.fullmatch(re.escape(NAME) + r"\.[0-9a-f]{32}\.partial", partial)
    assert locked == NAME + ".lock"


def leftover(name: str, directory: Path, age: float = 0.0) -> Path:
    path = directory / f"{name}.{len(os.listdir(directory)):032x}.partial"
    path.write_bytes(CONTENT[:1000])
    written = time.time() - age
    os.utime(path, (written, written))
    return path


def test_leftovers_are_cleared_away_once_the_file_is_there(
    http_server: HttpServer, tmp_path: Path
) -> None:
    name = "a[1].pth"
    http_server.replies["/a"] = CONTENT
    leftover(name, tmp_path)
    leftover(name, tmp_path, age=1e6)
    others = [
        leftover("a1.pth", tmp_path),
        leftover(f"{name}.sig", tmp_path, age=1e6),
        tmp_path / f"{name}.mine.partial",
    ]
    others[-1].touch()
    undeletable = tmp_path / f"{name}.{99:032x}.partial"
    undeletable.mkdir()
    path = fetch_quietly(http_server.url("/a"), tmp_path, file_name=name, sha256_prefix=SHA256)
    assert set(tmp_path.iterdir()) == {path, undeletable, *others}


def test_a_failure_clears_old_leftovers_away(http_server: HttpServer, tmp_path: Path) -> None:
    leftover(NAME, tmp_path, age=2 * download._LEFTOVER_SECONDS)
    others_perhaps = leftover(NAME, tmp_path)
    with pytest.raises(DownloadError, match="404"):
        fetch_quietly(http_server.url(PATH), tmp_path)
    assert list(tmp_path.iterdir()) == [others_perhaps]


@pytest.mark.parametrize("status", [200, 404])
def test_whoever_was_overtaken_takes_what_the_other_one_brought(
    status: int, http_server: HttpServer, tmp_path: Path
) -> None:
    def overtaken(handler: behaviour._Handler) -> None:
        handler.start(status, {"Content-Length": str(len(CONTENT))})
        handler.wfile.write(CONTENT[:1000])
        while status == 200 and not (partials := list(tmp_path.glob("*.partial"))):
            time.sleep(0.001)
        (tmp_path / NAME).write_bytes(b"the other one's")
        for partial in partials if status == 200 else []:
            partial.unlink()
        handler.wfile.write(CONTENT[1000:])

    http_server.replies[PATH] = overtaken
    path = fetch_quietly(http_server.url(PATH), tmp_path)
    assert path.read_bytes() == b"the other one's"
    assert os.listdir(tmp_path) == [NAME]


class Interrupter:
    """Raises KeyboardInterrupt before the n-th line of the module, cleaning up aside, is run."""

    def __init__(self, when: int) -> None:
        self.left = when
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> "Interrupter | None":
        if frame.f_code.co_filename != download.__file__:
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # No signal is handled between the last instruction of a `with` block and __exit__, where
        # the line of `with` counts again, nor at `try:`, which does nothing.
        inert = ("with ", "try:", "if lock is not None:", "lock.release()")
        if event == "line" and not line.startswith(inert):
            self.left -= 1
            if self.left < 0 and not self.where:
                self.where = f"{frame.f_lineno} {line}"
                raise KeyboardInterrupt
        return self


def test_ctrl_c_at_any_line_leaves_nothing(http_server: HttpServer, tmp_path: Path) -> None:
    url = http_server.url(PATH)
    interrupted: set[str] = set()
    for when in range(10_000):
        http_server.replies[PATH] = behaviour.in_turn(behaviour.truncated(b"small", 3), b"small")
        interrupter = Interrupter(when)
        before = sys.gettrace()
        sys.settrace(interrupter)
        try:
            fetch_quietly(url, tmp_path)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        there = os.listdir(tmp_path)
        assert there in ([], [NAME]), interrupter.where
        if there:
            assert (tmp_path / NAME).read_bytes() == b"small", interrupter.where
            (tmp_path / NAME).unlink()
        if not interrupter.where:
            break
        interrupted.add(interrupter.where)
    assert len(interrupted) > 60
