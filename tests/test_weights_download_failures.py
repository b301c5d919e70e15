"""Servers that truncate, stall, lie and redirect leave the whole file or nothing."""

import errno
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

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
