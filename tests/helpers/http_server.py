"""A real HTTP server on 127.0.0.1 that misbehaves as told.

from helpers.http_server import HttpServer, http_server_fixture

def test_something(http_server: HttpServer) -> None:
    http_server.replies["/a.bin"] = b"content"
    fetch(http_server.url("/a.bin"))
    assert http_server.requests == ["/a.bin"]
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Reply = bytes | int | Callable[["_Handler"], None]
"""A body to serve, a status to answer with, or one of the misbehaviours below."""


def in_turn(*replies: Reply) -> Reply:
    """Answer differently every time; the last reply is for all further requests."""
    left = list(replies)
    lock = threading.Lock()

    def reply(handler: "_Handler") -> None:
        with lock:
            chosen = left.pop(0) if len(left) > 1 else left[0]
        handler.answer(chosen)

    return reply


def answering(status: int, headers: dict[str, str], body: bytes = b"") -> Reply:
    """Send exactly this, then hang up."""

    def reply(handler: "_Handler") -> None:
        handler.start(status, headers)
        handler.wfile.write(body)

    return reply


def redirect(location: str) -> Reply:
    """Send the client elsewhere: to a path of this server or a whole URL."""
    return lambda handler: handler.start(302, {"Location": location, "Content-Length": "0"})


def announcing(body: bytes, length: object) -> Reply:
    """Send the body, then hang up, under a Content-Length that may be a lie or no number."""

    def reply(handler: "_Handler") -> None:
        handler.start(200, {"Content-Length": str(length)})
        handler.wfile.write(body)

    return reply


def truncated(body: bytes, sent: int) -> Reply:
    """Announce the whole body, send the first bytes of it, and hang up."""
    return announcing(body[:sent], len(body))


def without_length(body: bytes) -> Reply:
    """Send the body without saying how long it is; hanging up ends it."""

    def reply(handler: "_Handler") -> None:
        handler.start(200, {})
        handler.wfile.write(body)

    return reply


def chunked(body: bytes, *, complete: bool = True) -> Reply:
    """Send the body with `Transfer-Encoding: chunked`, with or without its last, empty chunk."""

    def reply(handler: "_Handler") -> None:
        handler.start(200, {"Transfer-Encoding": "chunked"})
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        if complete:
            handler.wfile.write(b"0\r\n\r\n")

    return reply


def stalled(body: bytes, sent: int) -> Reply:
    """Send the first bytes of the body, and the others much later."""

    def reply(handler: "_Handler") -> None:
        handler.start(200, {"Content-Length": str(len(body))})
        handler.wfile.write(body[:sent])
        handler.wait()
        handler.wfile.write(body[sent:])

    return reply


def silent(handler: "_Handler") -> None:
    """Accept the request, and hang up without an answer much later."""
    handler.wait()


def hang_up(handler: "_Handler") -> None:
    """Accept the request and hang up at once."""


class HttpServer:
    """Serves `replies` until it is closed, and records what is asked for.

    Attributes:
        replies: what to answer by path; other paths give 404. A client that takes this server
            for its proxy asks for whole URLs, which then stand in the place of paths.
        requests: the paths asked for, in order.
    """

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.requests: list[str] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def url(self, path: str) -> str:
        """URL of a path."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def close(self) -> None:
        """Stop, and wait for the replies under way."""
        self._server.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(name="http_server")
def http_server_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    """An `HttpServer` that is reached directly, whatever proxies, mirrors and folders are set."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("EPIC_MODELS_DIR", raising=False)
    monkeypatch.delenv("EPIC_MODELS_URL", raising=False)
    server = HttpServer()
    yield server
    server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for them
    owner: HttpServer

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.closing = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.requests.append(self.path)
        self.answer(owner.replies.get(self.path, 404))

    def answer(self, reply: Reply) -> None:
        if isinstance(reply, int):
            self.send_error(reply)
        elif isinstance(reply, bytes):
            announcing(reply, len(reply))(self)
        else:
            reply(self)

    def wait(self, seconds: float = 30.0) -> None:
        """Wait for longer than any test takes, or until the server is closed."""
        self.server.closing.wait(seconds)

    def start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet; tests look at `HttpServer.requests`."""

    def handle(self) -> None:
        """Answer; that the client has hung up, as after its time-out, is no error."""
        with contextlib.suppress(ConnectionError):
            super().handle()
