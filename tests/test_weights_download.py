"""Downloads from a server that truncates, stalls, lies and redirects leave the file or nothing.

Processes that need the same file at once, or are killed in the middle, are in
test_weights_download_processes.py.
"""

import hashlib
import linecache
import logging
import os
import random
import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
import torch.hub
from helpers import http_server as behaviour
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from weights import download, lock, partial, transfer
from weights.download import DownloadError, fetch
from weights.lock import LockFile

# Several chunks and a piece, so that every loop runs more than once.
CONTENT = random.Random(0).randbytes(3 * transfer._CHUNK_BYTES + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRONG_PREFIX = "0" * 8
PATH = "/files/weights-0a1b2c3d.pth.tar"
NAME = "weights-0a1b2c3d.pth.tar"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(lock, "_LOOK_SECONDS", 0.005)


def fetch_quietly(url: str, directory: Path, **options: object) -> Path:
    return fetch(url, directory=directory, progress=False, **options)


@pytest.mark.essential
def test_a_file_is_downloaded_once(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = CONTENT
    for _ in range(2):
        path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256[:8])
        assert path == tmp_path / NAME
        assert path.read_bytes() == CONTENT
    assert http_server.requests == [PATH]
    assert os.listdir(tmp_path) == [NAME]


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


@pytest.mark.essential
def test_a_wrong_hash_names_both_and_how_to_proceed(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = CONTENT
    with pytest.raises(DownloadError) as error:
        fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=WRONG_PREFIX)
    message = str(error.value)
    for part in (http_server.url(PATH), SHA256, WRONG_PREFIX, str(tmp_path / NAME), "by hand"):
        assert part in message
    assert os.listdir(tmp_path) == []

    (tmp_path / NAME).write_bytes(CONTENT)  # the advice: a file that is there is not hashed
    path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=WRONG_PREFIX)
    assert path.read_bytes() == CONTENT


def test_a_hash_in_capitals_is_the_same_hash(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = CONTENT
    fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256.upper())


def test_the_default_place_is_torch_hubs(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    http_server.replies[PATH] = CONTENT
    http_server.replies[PATH + "?dl=1"] = CONTENT
    path = fetch(http_server.url(PATH + "?dl=1"), progress=False)
    assert path == tmp_path / "hub" / "checkpoints" / NAME
    # torch.hub itself finds the file there.
    http_server.requests.clear()
    with pytest.raises(Exception):  # noqa: B017, PT011 -- random bytes; how torch says so is its own
        torch.hub.load_state_dict_from_url(http_server.url(PATH), progress=False)
    assert http_server.requests == []


def test_a_name_of_ones_own(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies["/"] = CONTENT
    path = fetch_quietly(http_server.url("/"), tmp_path / "new" / "folder", file_name="own.bin")
    assert path == tmp_path / "new" / "folder" / "own.bin"
    assert path.read_bytes() == CONTENT


def test_a_file_url(tmp_path: Path) -> None:
    source = tmp_path / "a b.bin"
    source.write_bytes(CONTENT)
    path = fetch_quietly(source.as_uri(), tmp_path / "cache", file_name="c.bin")
    assert path.read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="No such file"):
        fetch_quietly((tmp_path / "missing.bin").as_uri(), tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == ["c.bin"]


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ftp://host/a.bin", {}, "url must start with http://, https:// or file://, got 'ftp:"),
        ("/a.bin", {}, "url must start with .*, got '/a.bin'"),
        ("http://host/", {}, "file_name must be"),
        ("http://host/..", {}, "file_name must be"),
        ("http://host/a.bin", {"file_name": "../a.bin"}, r"file_name must be .*'\.\./a.bin'"),
        ("http://host/a.bin", {"file_name": ""}, "file_name must be"),
        ("http://host/a.bin", {"sha256_prefix": "xyz"}, "sha256_prefix must be .*'xyz'"),
        ("http://host/a.bin", {"sha256_prefix": ""}, "sha256_prefix must be"),
        ("http://host/a.bin", {"sha256_prefix": "0" * 65}, "sha256_prefix must be"),
        ("http://host/a.bin", {"timeout": 0}, "timeout must be .*got 0"),
        ("http://host/a.bin", {"timeout": float("inf")}, "timeout must be .*got inf"),
    ],
)
def test_bad_arguments(url: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fetch_quietly(url, tmp_path, **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    ["http://", "http://127.0.0.1:port/a.bin", "http://127.0.0.1/a b.bin", "http://127.0.0.1/é"],
)
def test_urls_that_no_server_can_have(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=re.escape(f"cannot download {url}: ")):
        fetch_quietly(url, tmp_path, file_name="a.bin")
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = CONTENT
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot write .*TORCH_HOME"):
        fetch_quietly(http_server.url(PATH), tmp_path / "file" / "folder")
    (tmp_path / NAME).mkdir()
    with pytest.raises(DownloadError, match=r"cannot write .*a directory of that name"):
        fetch_quietly(http_server.url(PATH), tmp_path)
    assert http_server.requests == []
    assert sorted(os.listdir(tmp_path)) == ["file", NAME]


def raise_once_written(error: BaseException) -> Callable[..., object]:
    """Stands in for the progress bar, and raises when the second chunk is in the file."""

    class Bar:
        updates = 0

        def __init__(self, **options: object) -> None:
            pass

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def update(self, amount: int) -> None:
            self.updates += 1
            if self.updates == 2:
                raise error

    return Bar


def test_ctrl_c_leaves_nothing(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_server.replies[PATH] = CONTENT
    monkeypatch.setattr(transfer, "tqdm", raise_once_written(KeyboardInterrupt()))
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


def test_threads_that_fetch_the_same_file(http_server: HttpServer, tmp_path: Path) -> None:
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
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_others_may_read_what_the_umask_lets_them(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = CONTENT
    (tmp_path / "plain").touch()
    path = fetch_quietly(http_server.url(PATH), tmp_path)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_progress_is_shown_only_when_asked_for(
    http_server: HttpServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    http_server.replies[PATH] = CONTENT
    caplog.set_level(logging.INFO)
    fetch(http_server.url(PATH), directory=tmp_path / "quiet", progress=False)
    assert capfd.readouterr() == ("", "")
    fetch(http_server.url(PATH), directory=tmp_path / "shown")
    assert "100" in capfd.readouterr().err
    assert SHA256 in caplog.text, "those who know no hash can note it down"


def test_the_bar_of_torch_hub_without_tqdm_will_do(
    http_server: HttpServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "tqdm", torch.hub._Faketqdm)
    http_server.replies |= {PATH: CONTENT, "/unknown": behaviour.without_length(CONTENT)}
    fetch(http_server.url(PATH), directory=tmp_path)
    assert "100.0%" in capfd.readouterr().err
    fetch(http_server.url("/unknown"), directory=tmp_path)
    assert f"{len(CONTENT)}.0 bytes" in capfd.readouterr().err
    fetch(http_server.url(PATH), directory=tmp_path / "quiet", progress=False)
    assert capfd.readouterr() == ("", "")


def test_proxies_are_honoured(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of first use
    monkeypatch.setenv("http_proxy", http_server.url(""))
    url = "http://weights.invalid/file.bin"
    http_server.replies[url] = CONTENT
    assert fetch_quietly(url, tmp_path).read_bytes() == CONTENT
    assert http_server.requests == [url]


@pytest.mark.parametrize(
    "reply",
    [
        500,
        behaviour.hang_up,
        behaviour.truncated(CONTENT, 5),
        behaviour.chunked(CONTENT, complete=False),
    ],
    ids=["500", "hangs up", "cut", "cut between chunks"],
)
def test_failures_that_may_pass_are_tried_again(
    reply: behaviour.Reply, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = behaviour.in_turn(reply, reply, reply, CONTENT)
    path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert len(http_server.requests) == 4

    path.unlink()
    http_server.requests.clear()
    http_server.replies[PATH] = reply
    with pytest.raises(DownloadError):
        fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert len(http_server.requests) == 4


@pytest.mark.parametrize(
    "reply",
    [404, 403, b"wrong", b"", behaviour.redirect("/nothing-here")],
    ids=["404", "403", "wrong", "empty", "redirect to nothing"],
)
def test_final_failures_are_not_tried_again(
    reply: behaviour.Reply, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = reply
    with pytest.raises(DownloadError):
        fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert http_server.requests.count(PATH) == 1


@pytest.mark.parametrize(
    ("headers", "pauses"),
    [
        ({}, [0.5, 1.0, 2.0]),
        ({"Retry-After": "7"}, [7, 7, 7]),
        ({"Retry-After": "1"}, [1, 1, 2]),
        ({"Retry-After": "3600"}, [30, 30, 30]),
    ],
    ids=["growing", "asked for", "never shorter", "bounded"],
)
def test_pauses(
    headers: dict[str, str],
    pauses: list[float],
    http_server: HttpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(download, "_FIRST_PAUSE", 0.5)
    monkeypatch.setattr(download.time, "sleep", slept.append)
    http_server.replies[PATH] = behaviour.answering(503, headers | {"Content-Length": "0"})
    with pytest.raises(DownloadError, match="503"):
        fetch_quietly(http_server.url(PATH), tmp_path)
    assert slept == pauses
    assert f"trying again in {pauses[0]:.1f} s" in caplog.text


@pytest.mark.parametrize("sent", [0, 1, transfer._CHUNK_BYTES, len(CONTENT) // 2, len(CONTENT) - 1])
def test_a_download_that_broke_off_goes_on(
    sent: int, http_server: HttpServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    headers = {"ETag": '"v1"'}
    broken = behaviour.resumable(CONTENT, headers, sent=sent)
    http_server.replies[PATH] = behaviour.in_turn(broken, behaviour.resumable(CONTENT, headers))
    path = fetch(http_server.url(PATH), directory=tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert http_server.ranges == [None, f"bytes={sent}-"]
    assert "100" in capfd.readouterr().err
    assert os.listdir(tmp_path) == [NAME]


def test_a_download_that_breaks_off_everywhere_goes_on_everywhere(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = behaviour.resumable(CONTENT, {"ETag": '"v1"'}, sent=100_000)
    path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert http_server.ranges == [None] + [f"bytes={n}00000-" for n in (1, 2, 3)]


def test_a_file_that_changes_in_the_middle_begins_again(
    http_server: HttpServer, tmp_path: Path
) -> None:
    old = behaviour.resumable(CONTENT[::-1], {"ETag": '"v1"'}, sent=1000)
    new = behaviour.resumable(CONTENT, {"ETag": '"v2"'})
    http_server.replies[PATH] = behaviour.in_turn(old, new)
    path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert http_server.ranges == [None, "bytes=1000-"]


SMALL = bytes(range(64))
SMALL_SHA256 = hashlib.sha256(SMALL).hexdigest()


@pytest.mark.parametrize(
    "reply",
    [
        behaviour.resumable(SMALL, {"ETag": "v1"}),
        behaviour.resumable(SMALL, {"ETag": "v2"}),
        behaviour.resumable(SMALL, {"ETag": "v2"}, without_conditions=True),
        SMALL,
    ],
    ids=["same", "changed", "changed, and ignores If-Range", "no ranges"],
)
@pytest.mark.parametrize("content", [SMALL, SMALL[::-1]], ids=["right", "damaged"])
def test_what_is_left_by_a_crash_at_any_byte(
    reply: behaviour.Reply, content: bytes, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.replies[PATH] = reply
    for size in range(len(SMALL) + 1):
        (tmp_path / f"{NAME}.{size:032x}.v1.partial").write_bytes(content[:size])
        path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SMALL_SHA256)
        assert path.read_bytes() == SMALL
        assert os.listdir(tmp_path) == [NAME]
        path.unlink()
    if content == SMALL:
        assert len(http_server.requests) <= 2 * len(SMALL), "the complete one needs no request"


def test_leftovers_are_cleared_away_when_the_download_fails(
    http_server: HttpServer, tmp_path: Path
) -> None:
    (tmp_path / f"{NAME}.{1:032x}.v1.partial").write_bytes(CONTENT[:10])
    (tmp_path / f"{NAME}.{2:032x}.partial").write_bytes(CONTENT[:20])
    with pytest.raises(DownloadError, match="404"):
        fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert os.listdir(tmp_path) == []


ORIGINAL = "/original/" + NAME


def set_mirror(server: HttpServer, monkeypatch: pytest.MonkeyPatch, base: str = "/mirror") -> str:
    monkeypatch.setenv("EPIC_MODELS_URL", server.url(base))
    return "/mirror/" + NAME


@pytest.mark.parametrize("base", ["/mirror", "/mirror/"])
def test_a_mirror_is_asked_first(
    base: str, http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = set_mirror(http_server, monkeypatch, base)
    http_server.replies |= {mirrored: CONTENT, ORIGINAL: CONTENT}
    path = fetch_quietly(http_server.url(ORIGINAL), tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert http_server.requests == [mirrored]


@pytest.mark.parametrize(
    "reply",
    [404, 500, b"", b"a log-in page", behaviour.hang_up, behaviour.truncated(CONTENT, 9)],
    ids=["404", "500", "empty", "wrong file", "hangs up", "cut"],
)
def test_a_mirror_that_fails_is_passed_over(
    reply: behaviour.Reply,
    http_server: HttpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirrored = set_mirror(http_server, monkeypatch)
    http_server.replies |= {mirrored: reply, ORIGINAL: CONTENT}
    path = fetch_quietly(http_server.url(ORIGINAL), tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert http_server.requests == [mirrored, ORIGINAL]


def test_mirror_and_original_continue_each_others_work(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = set_mirror(http_server, monkeypatch)
    headers = {"ETag": '"v1"'}
    http_server.replies[mirrored] = behaviour.resumable(CONTENT, headers, sent=1000)
    http_server.replies[ORIGINAL] = behaviour.resumable(CONTENT, headers)
    fetch_quietly(http_server.url(ORIGINAL), tmp_path, sha256_prefix=SHA256)
    assert http_server.ranges == [None, "bytes=1000-"]


def test_nobody_has_the_file(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = set_mirror(http_server, monkeypatch)
    http_server.replies[mirrored] = 500
    monkeypatch.setenv("EPIC_MODELS_DIR", str(tmp_path / "models"))
    with pytest.raises(DownloadError) as error:
        fetch_quietly(http_server.url(ORIGINAL), tmp_path / "cache")
    for part in (
        f"{NAME} is not in EPIC_MODELS_DIR ({tmp_path / 'models'})",
        f"cannot download {http_server.url(mirrored)}: the server answered 500",
        f"cannot download {http_server.url(ORIGINAL)}: the server answered 404",
        f"save it as {tmp_path / 'cache' / NAME}",
    ):
        assert part in str(error.value)
    assert http_server.requests == [mirrored, ORIGINAL] + 3 * [mirrored], "404 is final, 500 not"
    assert os.listdir(tmp_path / "cache") == []


def test_names_in_the_mirrors_url_are_quoted(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_mirror(http_server, monkeypatch)
    http_server.replies["/mirror/TSN_arch=a%20b%3F%23.pth"] = CONTENT
    path = fetch_quietly(http_server.url("/x"), tmp_path, file_name="TSN_arch=a b?#.pth")
    assert path.read_bytes() == CONTENT


def test_a_mirror_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / NAME).write_bytes(CONTENT)
    monkeypatch.setenv("EPIC_MODELS_URL", (tmp_path / "mirror").as_uri())
    path = fetch_quietly("http://weights.invalid/" + NAME, tmp_path, sha256_prefix=SHA256)
    assert path == tmp_path / NAME
    assert path.read_bytes() == CONTENT


def test_a_mirror_that_is_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIC_MODELS_URL", "head-node/epic")
    with pytest.raises(ValueError, match=r"EPIC_MODELS_URL must start with .*'head-node/epic'"):
        fetch_quietly("http://weights.invalid/" + NAME, tmp_path)
    assert os.listdir(tmp_path) == []


def test_local_folders_are_looked_through_first(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, cache = (tmp_path / name for name in ("first", "second", "cache"))
    for folder in (first, second, cache):
        folder.mkdir()
    (cache / NAME).write_bytes(b"cached")
    (second / NAME).write_bytes(b"local")
    (first / NAME).touch()  # nothing worth having is empty
    monkeypatch.chdir(second)  # an empty part of the variable is not the working directory
    folders = ["", str(tmp_path / "missing"), "~no-such-user/models", "~/first"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EPIC_MODELS_DIR", os.pathsep.join(folders))
    fetched = fetch_quietly(http_server.url(PATH), cache, sha256_prefix=WRONG_PREFIX)
    assert fetched == cache / NAME
    monkeypatch.setenv("EPIC_MODELS_DIR", os.pathsep.join([*folders, str(second)]))
    fetched = fetch_quietly(http_server.url(PATH), cache, sha256_prefix=WRONG_PREFIX)
    assert fetched == second / NAME
    (first / NAME).write_bytes(b"found")
    fetched = fetch_quietly(http_server.url("/x"), cache, file_name=NAME)
    assert fetched == first / NAME
    assert http_server.requests == []
    for folder in (first, second, cache):
        assert os.listdir(folder) == [NAME]


@pytest.mark.parametrize("variable", ["EPIC_MODELS_DIR", "TORCH_HOME"])
def test_nothing_is_written_where_the_file_lies(
    variable: str, http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(*_: object, **__: object) -> None:
        pytest.fail("something was written")

    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv(variable, str(tmp_path))
    folder = tmp_path if variable == "EPIC_MODELS_DIR" else tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(CONTENT)
    folder.chmod(0o555)
    monkeypatch.setattr(Path, "mkdir", written)  # root may write in spite of the mode
    monkeypatch.setattr(LockFile, "acquire", written)
    try:
        assert fetch(http_server.url(PATH)) == folder / NAME
    finally:
        folder.chmod(0o755)
    assert os.listdir(folder) == [NAME]


FOREIGN = "0123 process 4711 on node12\n"


def test_whoever_waits_says_so_and_takes_over_from_the_dead(
    http_server: HttpServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    http_server.replies[PATH] = CONTENT
    (tmp_path / f"{NAME}.lock").write_text(FOREIGN)
    fetch(http_server.url(PATH), directory=tmp_path)
    assert "waiting for process 4711 on node12" in capfd.readouterr().err
    assert "waiting for process 4711 on node12" in caplog.text
    assert os.listdir(tmp_path) == [NAME]


def test_whoever_waits_is_patient_while_the_file_grows(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = tmp_path / f"{NAME}.{1:032x}.partial"

    def look(lock: LockFile) -> None:
        with open(partial, "ab") as file:
            file.write(b"x")
        if partial.stat().st_size == 50:
            partial.rename(tmp_path / NAME)

    monkeypatch.setattr(download, "_PATIENCE_LOOKS", 2)
    monkeypatch.setattr(LockFile, "wait", look)
    (tmp_path / f"{NAME}.lock").write_text(FOREIGN)
    path = fetch_quietly(http_server.url(PATH), tmp_path)
    assert path.stat().st_size == 50
    assert http_server.requests == []


@pytest.mark.parametrize("waits", [True, False])
def test_whoever_gets_the_lock_looks_whether_the_file_has_come(
    waits: bool, http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = LockFile.acquire
    answers = [False, True] if waits else [True]

    def acquire_at_last(lock: LockFile) -> bool:
        if not answers.pop(0):
            return False
        (tmp_path / NAME).write_bytes(CONTENT)  # between the look at the file and the lock
        return acquire(lock)

    monkeypatch.setattr(LockFile, "acquire", acquire_at_last)
    assert fetch_quietly(http_server.url(PATH), tmp_path).read_bytes() == CONTENT
    assert http_server.requests == []
    assert os.listdir(tmp_path) == [NAME]


def test_whoever_waits_gives_up_when_nothing_arrives(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    monkeypatch.setattr(download, "_PATIENCE_LOOKS", 5)
    monkeypatch.setattr(LockFile, "wait", lambda lock: looks.append(lock))
    (tmp_path / f"{NAME}.lock").write_text(FOREIGN)
    (tmp_path / f"{NAME}.{1:032x}.partial").write_bytes(b"x")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(DownloadError) as error:
        fetch_quietly(http_server.url(PATH), tmp_path)
    reason = "process 4711 on node12 is downloading it, but nothing arrives any more"
    for part in (http_server.url(PATH), reason, f"save it as {tmp_path / NAME}"):
        assert part in str(error.value)
    assert len(looks) == 6, "one that sees what is there, and five without more"
    assert sorted(os.listdir(tmp_path)) == before
    assert http_server.requests == []


@pytest.mark.parametrize("finished", [True, False])
def test_whoever_was_overtaken_takes_what_the_other_one_brings(
    finished: bool, http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = download.receive
    locked = tmp_path / f"{NAME}.lock"

    def overtaken(*arguments: object, **options: object) -> None:
        monkeypatch.setattr(download, "receive", receive)
        receive(*arguments, **options)
        for path in tmp_path.iterdir():
            path.unlink()
        locked.write_text(FOREIGN)
        if finished:
            (tmp_path / NAME).write_bytes(CONTENT)

    http_server.replies[PATH] = CONTENT
    monkeypatch.setattr(download, "receive", overtaken)
    path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT
    assert len(http_server.requests) == (1 if finished else 2)
    assert locked.exists() == finished, "it belongs to somebody else"


class Interrupter:
    """Raises KeyboardInterrupt before the n-th line of our code, other than cleaning up, is run."""

    def __init__(self, when: int) -> None:
        self.left = when
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> "Interrupter | None":
        if Path(frame.f_code.co_filename) not in OUR_FILES:
            return None
        # No signal is handled between the last instruction of a `with` block and __exit__, where
        # the line of `with` counts again, nor at `try:`, which does nothing.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        inert = line.startswith(("with ", "try:"))
        if event == "line" and not inert and not is_cleaning_up(frame):
            self.left -= 1
            if self.left < 0 and not self.where:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {line}"
                raise KeyboardInterrupt
        return self


def is_cleaning_up(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in ("__exit__", "discard"):
            return True
        frame = frame.f_back
    return False


OUR_FILES = {Path(module.__file__) for module in (download, lock, partial, transfer)}


@pytest.mark.parametrize("left", ["nothing", "a leftover"])
def test_ctrl_c_at_any_line_leaves_nothing(
    left: str, http_server: HttpServer, tmp_path: Path
) -> None:
    headers = {"ETag": "v1"}
    url = http_server.url(PATH)
    leftover = tmp_path / f"{NAME}.{1:032x}.v1.partial"
    interrupted: set[str] = set()
    for when in range(10_000):
        http_server.replies[PATH] = behaviour.in_turn(
            behaviour.resumable(SMALL, headers, sent=9), behaviour.resumable(SMALL, headers)
        )
        if left != "nothing":
            leftover.write_bytes(SMALL[:5])
        interrupter = Interrupter(when)
        before = sys.gettrace()
        sys.settrace(interrupter)
        try:
            fetch_quietly(url, tmp_path, sha256_prefix=SMALL_SHA256)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        there = set(os.listdir(tmp_path))
        assert there <= {NAME, leftover.name}, interrupter.where
        if NAME in there:
            assert (tmp_path / NAME).read_bytes() == SMALL, interrupter.where
            (tmp_path / NAME).unlink()
        if not interrupter.where:
            break
        interrupted.add(interrupter.where)
    assert len(interrupted) > 100
