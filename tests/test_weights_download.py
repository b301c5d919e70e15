"""Downloads from a server that truncates, stalls, lies and redirects leave the file or nothing."""

import hashlib
import logging
import os
import random
import re
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import http_server as behaviour
import pytest
import torch.hub
from http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from weights import download
from weights.download import DownloadError, fetch

# Several chunks and a piece, so that every loop runs more than once.
CONTENT = random.Random(0).randbytes(3 * download._CHUNK_BYTES + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRONG_PREFIX = "0" * 8
PATH = "/files/weights-0a1b2c3d.pth.tar"
NAME = "weights-0a1b2c3d.pth.tar"


def fetch_quietly(url: str, directory: Path, **options: object) -> Path:
    return fetch(url, directory=directory, progress=False, **options)


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
    timeout = 0.2 if "in time" in reason else 30.0  # a busy machine must not turn 404 into that
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
    monkeypatch.setattr(download, "tqdm", raise_once_written(KeyboardInterrupt()))
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
    assert re.fullmatch(re.escape(NAME) + r"\.[0-9a-f]{32}\.partial", seen[0][0])


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
    monkeypatch.setattr(download, "tqdm", torch.hub._Faketqdm)
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
