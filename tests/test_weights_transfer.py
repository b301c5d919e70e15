"""A download goes on where it stopped if server and hash prove it right, else begins at zero."""

import errno
import hashlib
import os
import random
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers import http_server as behaviour
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from weights import transfer
from weights.partial import PartialFile
from weights.transfer import TransferError, receive

CONTENT = random.Random(1).randbytes(3 * transfer._CHUNK_BYTES + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = bytes(byte ^ 1 for byte in CONTENT)
ETAG = {"ETag": '"v1"'}
DATE = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
REST = "bytes=1000-"


class Continued:
    """Has the rest of a file fetched of which 1000 bytes are there, and returns the whole."""

    def __init__(self, server: HttpServer, destination: Path) -> None:
        self.server = server
        self.destination = destination

    def __call__(
        self,
        reply: behaviour.Reply,
        *,
        version: str | None = '"v1"',
        there: bytes = CONTENT[:1000],
        timeout: float = 30.0,
    ) -> bytes:
        self.server.replies["/a.bin"] = reply
        with PartialFile(self.destination) as partial:
            if there:
                partial.start(version)
                partial.write(there)
            receive(
                self.server.url("/a.bin"),
                partial,
                sha256_prefix=SHA256,
                progress=False,
                timeout=timeout,
            )
            partial.publish()
        return self.destination.read_bytes()


@pytest.fixture
def continued(http_server: HttpServer, tmp_path: Path) -> Continued:
    return Continued(http_server, tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        (ETAG, '"v1"'),
        (DATE, DATE["Last-Modified"]),
        (ETAG | DATE, '"v1"'),
        ({"ETag": 'W/"v1"'} | DATE, DATE["Last-Modified"]),
    ],
    ids=["ETag", "Last-Modified", "both", "weak ETag"],
)
def test_only_the_rest_is_asked_for(
    headers: dict[str, str], version: str, continued: Continued
) -> None:
    assert continued(behaviour.resumable(CONTENT, headers), version=version) == CONTENT
    assert continued.server.ranges == [REST]


@pytest.mark.parametrize("sent", [0, 1, 1000, len(CONTENT) // 2, len(CONTENT) - 1])
@pytest.mark.parametrize("headers", [ETAG, DATE, ETAG | DATE], ids=["ETag", "date", "both"])
def test_what_a_server_sent_before_is_continued(
    sent: int, headers: dict[str, str], continued: Continued
) -> None:
    broken = behaviour.resumable(CONTENT, headers, sent=sent)
    continued.server.replies["/a.bin"] = behaviour.in_turn(
        broken, behaviour.resumable(CONTENT, headers)
    )
    url = continued.server.url("/a.bin")
    options = {"sha256_prefix": SHA256, "progress": False, "timeout": 30.0}
    with PartialFile(continued.destination) as partial:
        with pytest.raises(TransferError, match=f"{sent} bytes came") as error:
            receive(url, partial, **options)
        assert error.value.passing
        receive(url, partial, **options)
        assert partial.sha256() == SHA256
    assert continued.server.ranges == [None, f"bytes={sent}-"]


@pytest.mark.parametrize(
    "reply",
    [
        CONTENT,
        behaviour.resumable(CONTENT, {"ETag": '"v2"'}),
        behaviour.chunked(CONTENT),
        behaviour.without_length(CONTENT),
    ],
    ids=["no ranges", "changed file", "chunked", "no length"],
)
def test_a_server_that_sends_everything_is_taken_at_its_word(
    reply: behaviour.Reply, continued: Continued
) -> None:
    assert continued(reply, there=OTHER[:1000]) == CONTENT
    assert continued.server.ranges == [REST]


def partial_reply(content_range: str, body: bytes, **headers: str) -> behaviour.Reply:
    length = {"Content-Range": content_range, "Content-Length": str(len(body))}
    return behaviour.answering(206, length | headers, body)


@pytest.mark.parametrize(
    "first_reply",
    [
        416,
        partial_reply(f"bytes 999-{len(CONTENT) - 1}/{len(CONTENT)}", CONTENT[999:]),
        partial_reply(f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", CONTENT),
        partial_reply(f"bytes 1000-1999/{len(CONTENT)}", CONTENT[1000:2000]),
        partial_reply(f"bytes 1000-{len(CONTENT) - 1}/*", CONTENT[1000:]),
        partial_reply(f"bytes 1000-{'9' * 5000}/1{'0' * 5000}", CONTENT[1000:]),
        partial_reply("", CONTENT[1000:]),
        partial_reply(f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}", CONTENT[1000:], ETag='"v2"'),
        behaviour.resumable(CONTENT, {"ETag": '"v2"'}, without_conditions=True),
        behaviour.resumable(OTHER, ETAG),
        behaviour.resumable(CONTENT + b"longer", ETAG),
        behaviour.resumable(CONTENT[:-1], ETAG),
        behaviour.resumable(CONTENT[:1000], ETAG),
    ],
    ids=[
        "416",
        "starts too early",
        "sends everything as a part",
        "ends too early",
        "does not say how long the whole is",
        "numbers too long to read",
        "does not say which part",
        "another ETag",
        "ignores If-Range",
        "another file under the same ETag",
        "a longer file under the same ETag",
        "a shorter file under the same ETag",
        "nothing left under the same ETag",
    ],
)
def test_what_cannot_be_right_begins_again_at_zero(
    first_reply: behaviour.Reply, continued: Continued
) -> None:
    reply = behaviour.in_turn(first_reply, behaviour.resumable(CONTENT, ETAG))
    assert continued(reply) == CONTENT
    assert continued.server.ranges == [REST, None]


def test_a_damaged_beginning_is_found_by_the_hash_of_the_whole(continued: Continued) -> None:
    there = CONTENT[:500] + b"?" + CONTENT[501:1000]
    assert continued(behaviour.resumable(CONTENT, ETAG), there=there) == CONTENT
    assert continued.server.ranges == [REST, None]


def test_it_begins_again_only_once(continued: Continued) -> None:
    with pytest.raises(TransferError, match="should start with") as error:
        continued(behaviour.resumable(OTHER, ETAG))
    assert not error.value.passing
    assert continued.server.ranges == [REST, None]


def test_a_part_that_nobody_asked_for(continued: Continued) -> None:
    body = partial_reply(f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", CONTENT)
    with pytest.raises(TransferError, match="some other part") as error:
        continued(body, there=b"")
    assert not error.value.passing


@pytest.mark.parametrize("sha256_prefix", [None, SHA256])
def test_without_hash_or_version_nothing_is_continued(
    sha256_prefix: str | None, continued: Continued
) -> None:
    headers = ETAG if sha256_prefix is None else {}
    broken = behaviour.resumable(CONTENT, headers, sent=1000)
    continued.server.replies["/a.bin"] = behaviour.in_turn(
        broken, behaviour.resumable(CONTENT, headers)
    )
    url = continued.server.url("/a.bin")
    options = {"sha256_prefix": sha256_prefix, "progress": False, "timeout": 30.0}
    with PartialFile(continued.destination) as partial:
        with pytest.raises(TransferError, match="1000 bytes came"):
            receive(url, partial, **options)
        receive(url, partial, **options)
        assert partial.sha256() == SHA256
    assert continued.server.ranges == [None, None]


def test_a_version_that_no_header_can_have(continued: Continued) -> None:
    with pytest.raises(TransferError, match="Invalid header") as error:
        continued(CONTENT, version="v1\r\nX-Other: 1")
    assert not error.value.passing
    assert continued.server.requests == []


@pytest.mark.parametrize("asked", ["7", "0", "soon", "9" * 5000, "Wed, 21 Oct 2015 07:28:00 GMT"])
@pytest.mark.parametrize("status", [429, 503])
def test_what_a_busy_server_asks_for(asked: str, status: int, continued: Continued) -> None:
    with pytest.raises(TransferError, match=f"answered {status}") as error:
        continued(behaviour.answering(status, {"Retry-After": asked, "Content-Length": "0"}))
    assert error.value.passing
    assert error.value.pause == (7 if asked == "7" else 0)


@pytest.mark.parametrize(
    "reply",
    [
        behaviour.silent,
        behaviour.stalled(CONTENT, 0),
        behaviour.stalled(CONTENT, 5),
        behaviour.hang_up,
        behaviour.chunked(CONTENT, complete=False),
        408,
    ],
    ids=["silent", "stalls at once", "stalls later", "hangs up", "cut between chunks", "408"],
)
def test_failures_that_may_pass(reply: behaviour.Reply, continued: Continued) -> None:
    with pytest.raises(TransferError) as error:
        continued(reply, there=b"", timeout=0.2)  # a time-out in place of the others passes, too
    assert error.value.passing


def test_a_port_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused, PartialFile(tmp_path / "a.bin") as partial:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.bin"
        with pytest.raises(TransferError, match="refused") as error:
            receive(url, partial, sha256_prefix=SHA256, progress=False, timeout=30.0)
    assert error.value.passing
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), True),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), True),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), False),
        (OSError("Tunnel connection failed: 403 Forbidden"), False),
    ],
    ids=["name server busy", "no such host", "unreachable", "TLS cut", "certificate", "proxy"],
)
def test_failures_below_http(
    error: OSError, passing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError(error)

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with PartialFile(tmp_path / "a.bin") as partial, pytest.raises(TransferError) as failure:
        receive("http://a/b", partial, sha256_prefix=None, progress=False, timeout=1.0)
    assert failure.value.passing == passing


@pytest.mark.parametrize("status", [403, 404, 410])
def test_final_answers(status: int, continued: Continued) -> None:
    with pytest.raises(TransferError, match=f"answered {status}") as error:
        continued(status)
    assert not error.value.passing
    assert len(continued.server.requests) == 1
