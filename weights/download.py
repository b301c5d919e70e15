"""Download a file once, check it, and keep it in torch.hub's cache directory.

Files lie where `torch.hub.load_state_dict_from_url` would put them, under the same names, so what
torch.hub downloaded earlier is found, and a file put there by hand works without a network.

Two environment variables serve machines without internet. Both go by file names alone, and so
hold for everything that is fetched: published weights, ImageNet weights, lists of class names.

- EPIC_MODELS_DIR: a folder, or several with `os.pathsep` between them, that are looked through
  first. They are only read, and files in them are used as they are.
- EPIC_MODELS_URL: where a mirror has the files, such as `http://head-node:8000/epic`. It is tried
  before the original URL, which remains the fallback.
"""

import errno
import glob
import hashlib
import http.client
import logging
import math
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

import torch.hub

# tqdm where it is installed, else torch's stand-in for it; torch.hub does not list it in __all__.
from torch.hub import tqdm  # type: ignore[attr-defined]

from checkpoints.files import atomic_write

__all__ = ["DownloadError", "fetch"]

_logger = logging.getLogger(__name__)

_CHUNK_BYTES = 128 * 1024
_ROUNDS = 4  # tries of each source that fails for reasons that may pass
_FIRST_PAUSE = 0.5  # seconds before the second round; doubled before each further one
_MAX_PAUSE = 30.0  # seconds that a server's Retry-After can ask for
_LEASE_SECONDS = 30.0
"""Silence after which a lock's owner counts as dead: six missed heartbeats, so that a file server
may hang for a moment. All who share a cache must agree on it, or they go on without the lock."""
_HEARTBEAT_SECONDS = 5.0
_POLL_SECONDS = 0.5  # between two looks at another process's lock; hundreds may be looking
_LOCK_TIMEOUT = 300.0  # another process needs 250 if a mirror and the original both stall
_LEFTOVER_SECONDS = 3600.0  # age of a partial file that nobody writes to, whatever the clocks


class DownloadError(OSError):
    """A file could not be fetched; the message gives the URL, the reason and what to do."""


class _TransferError(Exception):
    """A failed request; another one may succeed if `retryable`, after the pause asked for."""

    def __init__(self, reason: str, *, retryable: bool = False, retry_after: int = 0) -> None:
        super().__init__(" ".join(reason.split()))
        self.retryable = retryable
        self.retry_after = retry_after


def fetch(
    url: str,
    *,
    sha256_prefix: str | None = None,
    file_name: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> Path:
    """Return the copy of a file in EPIC_MODELS_DIR or in the cache, or download it into the cache.

    A file that is there is trusted, and not hashed again. An empty one is fetched anew, since a
    full disk leaves such files. A download that breaks off, stalls, is shorter than announced or is
    refused for the moment (status 408, 429, 5xx) is tried four times in all, from the first byte.

    While another process on any host that shares the directory downloads the same file, this one
    waits; if that takes five minutes, it downloads the file as well. It takes over within half a
    minute if the other one was killed. Without filelock 3.30 or newer nobody waits.

    Proxies are those that `urllib.request.urlopen` uses (`https_proxy`, `no_proxy`, ...).

    Args:
        url: an http, https or file URL.
        sha256_prefix: first hexadecimal digits of the SHA-256 that a download must have, as in
            torch.hub's file names; None: not compared, and the whole hash is logged as a warning.
        file_name: name in the cache; default: torch.hub's, the last part of the URL's path.
        directory: where to keep the file; default: `torch.hub.get_dir()` + "/checkpoints". Made
            where it does not exist.
        progress: whether to show a progress bar on standard error.
        timeout: longest wait in seconds, for the connection and then for each piece of the file.

    Returns:
        Path of the complete file.

    Raises:
        ValueError: an argument cannot be, or EPIC_MODELS_URL.
        DownloadError: no server can be reached, or each answers with an error, stalls, or sends
            something else than announced or expected; or the file cannot be written. Nothing of
            this download is left in the directory then.
    """
    _check_url("url", url)
    if sha256_prefix is not None and not re.fullmatch("[0-9a-fA-F]{1,64}", sha256_prefix):
        raise ValueError(
            f"sha256_prefix must be 1 to 64 hexadecimal digits or None, got {sha256_prefix!r}"
        )
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
    name = PurePosixPath(urlsplit(url).path).name if file_name is None else file_name
    if not name or name == ".." or Path(name).name != name:
        raise ValueError(
            "file_name must be a name without directories, and be given where the URL has none, "
            f"got {file_name!r} with {url!r}"
        )
    folder = Path(torch.hub.get_dir()) / "checkpoints" if directory is None else Path(directory)
    destination = folder.expanduser() / name
    local_folders = filter(None, os.environ.get("EPIC_MODELS_DIR", "").split(os.pathsep))
    for path in (*(Path(os.path.expanduser(local), name) for local in local_folders), destination):
        if _is_complete(path):
            return path
    sources = [url]
    if mirror := os.environ.get("EPIC_MODELS_URL"):
        _check_url("EPIC_MODELS_URL", mirror)
        sources.insert(0, f"{mirror.rstrip('/')}/{quote(name, safe='=')}")
    try:
        if destination.is_dir():  # said now rather than after the download
            raise IsADirectoryError("there is a directory of that name")
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _lock(destination):
            if not _is_complete(destination):  # it may have come meanwhile
                try:
                    _download(sources, destination, sha256_prefix, progress, timeout)
                finally:
                    _remove_leftovers(destination)
    except OSError as error:
        if _is_complete(destination):  # another process was faster, and cleared this one's away
            return destination
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(  # this side of the network: permissions, full disk, ...
            f"cannot write {destination}, to which {url} was to be downloaded: {error}. The "
            "environment variable TORCH_HOME moves the cache directory."
        ) from error
    return destination


def _check_url(argument: str, url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise ValueError(f"{argument} must start with http://, https:// or file://, got {url!r}")


def _is_complete(path: Path) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) > 0


@contextmanager
def _lock(destination: Path) -> Iterator[None]:
    """Run the block when no other process is downloading the file, as far as that can be told.

    The lock saves work and protects nothing: without filelock, after the time-out, or where the
    lock itself fails, the block runs all the same. It is a lease because a killed owner's file
    stays, and because `flock` depends on how each host has mounted a shared home directory.
    """
    lock = None
    try:
        try:
            from filelock import SoftFileLease, Timeout

            lock = SoftFileLease(
                f"{destination}.lock",
                lease_duration=_LEASE_SECONDS,
                heartbeat_interval=_HEARTBEAT_SECONDS,
                poll_interval=_POLL_SECONDS,
            )
            try:
                lock.acquire(blocking=False)
            except Timeout:
                owner = lock.owner
                who = f"process {owner.pid} on {owner.hostname}" if owner else "another process"
                _logger.warning("waiting for %s, which is downloading %s", who, destination)
                lock.acquire(_LOCK_TIMEOUT, cancel_check=lambda: _is_complete(destination))
        except Exception as error:
            _logger.info("going on without a lock for %s: %s", destination, error)
        yield
    finally:
        if lock is not None:
            with suppress(Exception):  # what ended the block matters more
                lock.release()


def _download(
    sources: list[str], destination: Path, sha256_prefix: str | None, progress: bool, timeout: float
) -> None:
    """Download from the first source that has the file."""
    failures: dict[str, _TransferError] = {}
    for round_ in range(1, _ROUNDS + 1):
        for source in sources:
            try:
                return _transfer(source, destination, sha256_prefix, progress, timeout)
            except _TransferError as failure:
                failures[source] = failure
        reasons = "; ".join(f"cannot download {url}: {failures[url]}" for url in failures)
        sources = [source for source in sources if failures[source].retryable]
        if not sources or round_ == _ROUNDS:
            break
        asked_for = max(failures[source].retry_after for source in sources)
        pause = max(_FIRST_PAUSE * 2 ** (round_ - 1), min(asked_for, _MAX_PAUSE))
        _logger.warning("%s; trying again in %.1f s", reasons, pause)
        time.sleep(pause)
    folders = os.environ.get("EPIC_MODELS_DIR")
    raise DownloadError(
        (f"{destination.name} is not in EPIC_MODELS_DIR ({folders}), and " if folders else "")
        + f"{reasons}. To do without the download, get that file by hand and save it as "
        f"{destination}: then no network is needed, and no hash compared. A folder that "
        "EPIC_MODELS_DIR names, or a mirror that EPIC_MODELS_URL names, will do as well."
    ) from next(reversed(failures.values()))


def _transfer(
    url: str, destination: Path, sha256_prefix: str | None, progress: bool, timeout: float
) -> None:
    """Request a file once, and keep what comes if it is complete and right."""
    with _network_errors():
        request = urllib.request.Request(url, headers={"User-Agent": "epic-kitchens-models"})
        response = urllib.request.urlopen(request, timeout=timeout)
    announced = getattr(response, "length", None)  # file URLs have none; it counts down from here
    digest, received = hashlib.sha256(), 0
    bar = tqdm(total=announced, disable=not progress, unit="B", unit_scale=True, unit_divisor=1024)
    with response, atomic_write(destination) as file, bar:
        while True:
            with _network_errors():
                chunk = response.read(_CHUNK_BYTES)
            if not chunk:
                break
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            bar.update(len(chunk))
        # http.client ends a body that breaks off like a complete one: only counting shows it.
        if announced is not None and received != announced:
            reason = f"{received} bytes came, {announced} were announced"
            raise _TransferError(reason, retryable=True)
        if response.status == 206:
            raise _TransferError("the server sent a part of the file, which nobody asked for")
        if not received:
            raise _TransferError("the server sent an empty file")
        sha256 = digest.hexdigest()
        if sha256_prefix and not sha256.startswith(sha256_prefix.lower()):
            raise _TransferError(
                f"what came has the SHA-256 {sha256}, which should start with {sha256_prefix}; "
                "it was damaged or replaced on the way (a proxy's error page?), or the expected "
                "digits are wrong"
            )
    log = _logger.info if sha256_prefix else _logger.warning  # nothing else proves the file
    log("downloaded %s: %d bytes, SHA-256 %s", destination, received, sha256)


@contextmanager
def _network_errors() -> Iterator[None]:
    """Turn everything that urllib and http.client raise into a `_TransferError`."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        pause = re.fullmatch("[0-9]{1,9}", error.headers["Retry-After"] or "")  # or a date
        raise _TransferError(
            f"the server answered {error.code} {error.reason}",
            retryable=error.code >= 500 or error.code in (408, 429),
            retry_after=int(pause[0]) if pause else 0,
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: odd URLs
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = str(cause) or type(cause).__name__
        if isinstance(cause, TimeoutError):
            reason = "the server did not answer in time"
        raise _TransferError(reason, retryable=_is_transient(cause)) from error


def _is_transient(cause: object) -> bool:
    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_AGAIN
    unreachable = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH)
    if isinstance(cause, OSError) and cause.errno in unreachable:
        return True
    dropped = (ConnectionError, ssl.SSLEOFError, http.client.BadStatusLine)
    return isinstance(cause, (TimeoutError, http.client.IncompleteRead, *dropped))


def _remove_leftovers(destination: Path) -> None:
    """Remove what killed processes left: all once the file is there, until then what is old.

    A process that still downloads a file that is there loses nothing: it finds that out at its end.
    """
    is_complete = _is_complete(destination)
    pattern = f"{glob.escape(destination.name)}.{'[0-9a-f]' * 32}.partial"  # of `atomic_write`
    for partial in destination.parent.glob(pattern):
        with suppress(OSError):  # gone by now, or somebody else's in a shared cache
            if is_complete or time.time() - partial.stat().st_mtime > _LEFTOVER_SECONDS:
                partial.unlink()
