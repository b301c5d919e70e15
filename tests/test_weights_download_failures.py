"""Servers that truncate, stall, lie and redirect, and interruptions, leave the file or nothing."""

import errno
import linecache
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
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


@pytest.mark.parametrize(
    "reply",
    [
        behaviour.without_length(CONTENT),
        behaviour.chunked(CONTENT),
        behaviour.announcing(CONTENT, "many"),
        behaviour.redirect("/elsewhere/other-name.bin"),
    ],
    ids=["no Content-Length", "chunked", "Content-Length not a number", "redirect"],
)
def test_a_complete_body_is_accepted(
    reply: behaviour.Reply, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies |= {PATH: reply, "/elsewhere/other-name.bin": CONTENT}
    path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert path == tmp_path / NAME, "the name is that of the first URL, as in torch.hub"
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (404, "the server answered 404 Not Found"),
        (500, "the server answered 500 Internal Server Error"),
        (b"", "empty file"),
        (behaviour.truncated(CONTENT, 0), f"0 bytes came, {len(CONTENT)} were announced"),
        (behaviour.truncated(CONTENT, 5), f"5 bytes came, {len(CONTENT)} were announced"),
        (
            behaviour.truncated(CONTENT, len(CONTENT) - 1),
            f"{len(CONTENT) - 1} bytes came, {len(CONTENT)} were announced",
        ),
        (behaviour.announcing(CONTENT, len(CONTENT) + 1), "were announced"),
        (behaviour.announcing(CONTENT, len(CONTENT) - 1), f"should start with {SHA256}"),
        (behaviour.without_length(CONTENT[:-1]), f"should start with {SHA256}"),
        (behaviour.without_length(b""), "empty file"),
        (behaviour.chunked(CONTENT, complete=False), "IncompleteRead"),
        (behaviour.redirect(PATH), "infinite loop"),
        (behaviour.redirect("/nothing-here"), "the server answered 404 Not Found"),
        (behaviour.redirect("file:///etc/hostname"), "not allowed"),
        (behaviour.hang_up, "closed connection"),
        (behaviour.silent, "did not answer in time"),
        (behaviour.stalled(CONTENT, 0), "did not answer in time"),
        (behaviour.stalled(CONTENT, len(CONTENT) // 2), "did not answer in time"),
    ],
    ids=[
        "404",
        "500",
        "empty",
        "cut before the first byte",
        "cut early",
        "cut before the last byte",
        "announces too much",
        "announces too little",
        "cut without announcement",
        "empty without announcement",
        "cut between chunks",
        "redirect to itself",
        "redirect to nothing",
        "redirect to a local file",
        "hangs up",
        "never answers",
        "stalls before the first byte",
        "stalls in the middle",
    ],
)
@pytest.mark.parametrize("cached", ["nothing", "empty file"])
def test_a_failure_is_explained_and_leaves_nothing(
    reply: behaviour.Reply, reason: str, cached: str, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = reply
    if cached == "empty file":
        (tmp_path / NAME).touch()
    before = os.listdir(tmp_path)
    timeout = 0.1 if "in time" in reason else 30.0  # a busy machine must not turn 404 into that
    with pytest.raises(DownloadError) as error:
        fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256, timeout=timeout)
    for part in (http_server.url(PATH), reason, f"save it as {tmp_path / NAME}"):
        assert part in str(error.value)
    assert "cannot write" not in str(error.value), "it is the network's fault"
    assert os.listdir(tmp_path) == before

    http_server.replies[PATH] = CONTENT  # and nothing is in the way of the next attempt
    path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT


def test_an_unreachable_server_is_explained(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}{PATH}"
        with pytest.raises(DownloadError, match=r"refused.*save it as .* network") as error:
            fetch_quietly(url, tmp_path)
    assert url in str(error.value)
    assert str(tmp_path / NAME) in str(error.value)
    assert os.listdir(tmp_path) == []


def test_what_an_error_advises_works(http_server: HttpServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as error:
        fetch_quietly(http_server.url(PATH), tmp_path)
    advised = re.search(r"save it as (.*):", str(error.value))
    assert advised is not None
    Path(advised.group(1)).write_bytes(b"brought on a stick")
    http_server.requests.clear()
    path = fetch_quietly(http_server.url(PATH), tmp_path)
    assert path.read_bytes() == b"brought on a stick"
    assert http_server.requests == []


@pytest.mark.parametrize(
    "url",
    ["http://", "http://127.0.0.1:port/a.bin", "http://127.0.0.1/a b.bin", "http://127.0.0.1/é"],
)
def test_urls_that_no_server_can_have(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=re.escape(f"cannot download {url}: ")):
        fetch_quietly(url, tmp_path, file_name="a.bin")
    assert os.listdir(tmp_path) == []


RETRIED = [
    500,
    408,
    429,
    behaviour.hang_up,
    behaviour.silent,
    behaviour.stalled(CONTENT, 0),
    behaviour.stalled(CONTENT, 5),
    behaviour.truncated(CONTENT, 5),
    behaviour.chunked(CONTENT, complete=False),
]


@pytest.mark.parametrize(
    "reply",
    RETRIED,
    ids=[
        "500",
        "408",
        "429",
        "hangs up",
        "silent",
        "stalls at once",
        "stalls later",
        "cut",
        "cut between chunks",
    ],
)
def test_failures_that_may_pass_are_retried_from_the_first_byte(
    reply: behaviour.Reply, http_server: HttpServer, tmp_path: Path
) -> None:
    waits = reply in (behaviour.silent, *RETRIED[5:7])
    options = {"sha256_prefix": SHA256, "timeout": 0.2 if waits else 30.0}
    http_server.replies[PATH] = behaviour.in_turn(reply, CONTENT)
    path = fetch_quietly(http_server.url(PATH), tmp_path, **options)
    assert path.read_bytes() == CONTENT
    assert len(http_server.requests) > 1
    assert os.listdir(tmp_path) == [NAME]

    path.unlink()
    http_server.requests.clear()
    http_server.replies[PATH] = reply
    with pytest.raises(DownloadError):
        fetch_quietly(http_server.url(PATH), tmp_path, **options)
    assert len(http_server.requests) == 4


@pytest.mark.parametrize(
    "reply",
    [404, 403, 410, b"wrong", b"", behaviour.redirect("/nothing-here")],
    ids=["404", "403", "410", "wrong", "empty", "redirect to nothing"],
)
def test_final_failures_are_not_retried(
    reply: behaviour.Reply, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = reply
    with pytest.raises(DownloadError):
        fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert http_server.requests.count(PATH) == 1


@pytest.mark.parametrize(
    ("error", "requests"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), 4),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), 1),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), 4),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), 4),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), 1),
        (OSError("Tunnel connection failed: 403 Forbidden"), 1),
    ],
    ids=["name server busy", "no such host", "unreachable", "TLS cut", "certificate", "proxy"],
)
def test_failures_below_http(
    error: OSError, requests: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    def fail(request: object, **_: object) -> None:
        made.append(request)
        raise urllib.error.URLError(error)

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(DownloadError, match=re.escape(str(error))):
        fetch_quietly("http://a/b", tmp_path)
    assert len(made) == requests


def test_a_part_that_nobody_asked_for(http_server: HttpServer, tmp_path: Path) -> None:
    headers = {"Content-Range": f"bytes 0-9/{len(CONTENT)}", "Content-Length": "10"}
    http_server.replies[PATH] = behaviour.answering(206, headers, CONTENT[:10])
    with pytest.raises(DownloadError, match="a part of the file, which nobody asked for"):
        fetch_quietly(http_server.url(PATH), tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "pauses"),
    [
        (None, [0.5, 1.0, 2.0]),
        ("7", [7, 7, 7]),
        ("1", [1, 1, 2]),
        ("3600", [30, 30, 30]),
        ("0", [0.5, 1.0, 2.0]),
        ("soon", [0.5, 1.0, 2.0]),
        ("9" * 5000, [0.5, 1.0, 2.0]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [0.5, 1.0, 2.0]),
    ],
    ids=["growing", "asked for", "never shorter", "bounded", "0", "a word", "too long", "a date"],
)
def test_pauses(
    retry_after: str | None,
    pauses: list[float],
    status: int,
    http_server: HttpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(download, "_FIRST_PAUSE", 0.5)
    monkeypatch.setattr(download.time, "sleep", slept.append)
    headers = {"Content-Length": "0"} | ({"Retry-After": retry_after} if retry_after else {})
    http_server.replies[PATH] = behaviour.answering(status, headers)
    with pytest.raises(DownloadError, match=str(status)):
        fetch_quietly(http_server.url(PATH), tmp_path)
    assert slept == pauses
    assert f"trying again in {pauses[0]:.1f} s" in caplog.text


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
