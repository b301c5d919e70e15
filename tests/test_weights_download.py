"""Files are found in the cache, in local folders or on mirrors, or are downloaded and kept."""

import logging
import os
import urllib.request
from pathlib import Path

import pytest
import torch.hub
from helpers import http_server as behaviour
from helpers.downloads import CONTENT, NAME, PATH, SHA256, WRONG_PREFIX, fetch_quietly
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from weights import download
from weights.download import DownloadError, fetch


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_PAUSE", 0.001)


@pytest.mark.essential
def test_a_file_is_downloaded_once(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = CONTENT
    for _ in range(2):
        path = fetch_quietly(http_server.url(PATH), tmp_path, sha256_prefix=SHA256[:8])
        assert path == tmp_path / NAME
        assert path.read_bytes() == CONTENT
    assert http_server.requests == [PATH]
    assert os.listdir(tmp_path) == [NAME]


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


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_others_may_read_what_the_umask_lets_them(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.replies[PATH] = CONTENT
    (tmp_path / "plain").touch()
    path = fetch_quietly(http_server.url(PATH), tmp_path)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


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
    monkeypatch.setattr(download, "_lock", written)
    try:
        assert fetch(http_server.url(PATH)) == folder / NAME
    finally:
        folder.chmod(0o755)
    assert os.listdir(folder) == [NAME]
