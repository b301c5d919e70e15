"""Fetch a file once, check it, and keep it in torch.hub's cache directory.

Files lie where `torch.hub.load_state_dict_from_url` would put them, under the same names, so what
torch.hub downloaded earlier is found, and a file put there by hand works without a network.

Two environment variables serve machines without internet. Both go by file names alone, and so
hold for everything that is fetched: published weights, ImageNet weights, lists of class names.

- EPIC_MODELS_DIR: a folder, or several with `os.pathsep` between them, that are looked through
  first. They are only read, and files in them are used as they are.
- EPIC_MODELS_URL: where a mirror has the files, such as `http://head-node:8000/epic`. It is tried
  before the original URL, which remains the way out.

Differences from `torch.hub.download_url_to_file`: of many processes that need a file one downloads
it and the others wait (see `weights.lock`); an interrupted download is tried again, and goes on
where it stopped, even after a crash (see `weights.partial`); a stalled server ends in an error
instead of waiting for ever; a body shorter than announced is refused even where no hash is known;
an empty file never counts as cached; and every error says which file to put where.
"""

import logging
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

import torch.hub

from weights.lock import LockFile
from weights.partial import PartialFile, find_partials
from weights.transfer import TransferError, progress_bar, receive

__all__ = ["DownloadError", "fetch"]

_logger = logging.getLogger(__name__)

_SCHEMES = ("http", "https", "file")

_ROUNDS = 4
"""How often each source is tried, as long as it fails for reasons that may pass."""

_FIRST_PAUSE = 0.5
"""Seconds before the second round; doubled before each further one."""

_LONGEST_PAUSE = 30.0
"""Seconds that a server's Retry-After can ask for."""

_PATIENCE_LOOKS = 600
"""Looks, two per second, at another process's download that does not grow: longer than four rounds
take with the default time-out."""


class DownloadError(OSError):
    """A file could not be fetched; the message gives the URL, the reason and what to do.

    An OSError, as are the errors of `urllib`, so code that handles those handles this one as well.
    """


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

    A file that is there is trusted: it got into the cache by a rename after all checks, or because
    the user put it there, and hashing it at every load would cost time whenever a model is made.
    An empty one is fetched anew: nothing worth fetching is empty, but a full disk or a crash of
    another program leaves such files. Nothing is written where the file is found.

    A download that breaks off, times out or is refused for the moment (status 408, 429, 5xx) is
    tried four times in all, with growing pauses between. Where `sha256_prefix` can prove the
    result, it goes on from where it stopped if the server still has the same file; this includes
    what a killed process left. Other failures are final at once.

    While another process on any host that shares the directory downloads the same file, this one
    waits, for as long as that download grows, and for five minutes after that. It takes over
    within about half a minute if the other one was killed.

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
        ValueError: an argument cannot be (other kinds of URL, a file name with directories in it,
            a prefix that is not hexadecimal, a time-out that is not positive), or EPIC_MODELS_URL.
        DownloadError: no server can be reached, or each answers with an error, stalls, or sends
            something else than announced or expected; or the file cannot be written. Nothing
            is left in the directory then.
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
    for local in _local_folders():
        if os.path.isfile(local / name) and os.path.getsize(local / name) > 0:
            return local / name
    folder = Path(torch.hub.get_dir()) / "checkpoints" if directory is None else Path(directory)
    destination = folder.expanduser() / name
    try:
        if not _is_cached(destination):
            sources = _sources(url, name)
            _fetch_once(_Wanted(sources, destination, sha256_prefix, progress, timeout))
    except DownloadError:
        raise
    except OSError as error:  # on this side of the network: permissions, full disk, ...
        raise DownloadError(
            f"cannot write {destination}, to which {url} was to be downloaded: {error}. The "
            "environment variable TORCH_HOME moves the cache directory."
        ) from error
    return destination


@dataclass(frozen=True)
class _Wanted:
    """What is to be downloaded, from where (best first) to where, and how."""

    sources: tuple[str, ...]
    destination: Path
    sha256_prefix: str | None
    progress: bool
    timeout: float


def _check_url(argument: str, url: str) -> None:
    if urlsplit(url).scheme not in _SCHEMES:
        raise ValueError(f"{argument} must start with http://, https:// or file://, got {url!r}")


def _local_folders() -> list[Path]:
    named = os.environ.get("EPIC_MODELS_DIR", "").split(os.pathsep)
    return [Path(os.path.expanduser(folder)) for folder in named if folder]


def _sources(url: str, name: str) -> tuple[str, ...]:
    mirror = os.environ.get("EPIC_MODELS_URL", "")
    if not mirror:
        return (url,)
    _check_url("EPIC_MODELS_URL", mirror)
    return tuple(dict.fromkeys((f"{mirror.rstrip('/')}/{quote(name, safe='=')}", url)))


def _is_cached(destination: Path) -> bool:
    if destination.is_dir():  # found now rather than after the download
        raise IsADirectoryError("there is a directory of that name")
    return destination.is_file() and destination.stat().st_size > 0


def _fetch_once(wanted: _Wanted) -> None:
    """Download the file, or wait until another process has."""
    wanted.destination.parent.mkdir(parents=True, exist_ok=True)
    with LockFile(wanted.destination.with_name(f"{wanted.destination.name}.lock")) as lock:
        while _is_our_turn(lock, wanted):
            try:
                _download(wanted)
            except OSError:
                if lock.is_ours():
                    raise
                # Taken for dead, like a laptop that slept, and overtaken: somebody else is at it.
                _logger.info("%s took over the download", lock.holder())
            else:
                return


def _is_our_turn(lock: LockFile, wanted: _Wanted) -> bool:
    """Wait until this process has to download (True), or until the file is there (False)."""
    if lock.acquire():
        return not _is_cached(wanted.destination)  # it may have come a moment ago
    holder = lock.holder()
    _logger.info("waiting for %s, which is downloading %s", holder, wanted.destination)
    arrived = quiet_looks = 0
    with progress_bar(wanted.progress, None, f"waiting for {holder}") as bar:
        while not _is_cached(wanted.destination):
            if lock.acquire():
                return not _is_cached(wanted.destination)
            if quiet_looks == _PATIENCE_LOOKS:
                reason = f"{lock.holder()} is downloading it, but nothing arrives any more"
                raise _error(wanted, {wanted.sources[-1]: reason})
            lock.wait()
            size = sum(partial.size for partial in find_partials(wanted.destination))
            quiet_looks = 0 if size > arrived else quiet_looks + 1
            bar.update(max(size - arrived, 0))
            arrived = size
    return False


def _download(wanted: _Wanted) -> None:
    """Download from the first source that has the file, or raise and leave nothing there."""
    failures: dict[str, TransferError] = {}
    sources = wanted.sources
    with PartialFile(wanted.destination) as partial:
        partial.inherit(use=wanted.sha256_prefix is not None)
        if wanted.sha256_prefix and partial.matches(wanted.sha256_prefix):
            partial.publish()  # somebody was killed between the last byte and this
            return
        for round_ in range(_ROUNDS):
            if round_:
                asked_for = max(failures[source].pause for source in sources)
                pause = max(_FIRST_PAUSE * 2 ** (round_ - 1), min(asked_for, _LONGEST_PAUSE))
                _logger.warning("%s; trying again in %.1f s", _explain(failures), pause)
                time.sleep(pause)
            for source in sources:
                try:
                    receive(
                        source,
                        partial,
                        sha256_prefix=wanted.sha256_prefix,
                        progress=wanted.progress,
                        timeout=wanted.timeout,
                    )
                except TransferError as failure:
                    failures[source] = failure
                else:
                    partial.publish()
                    unproved = "" if wanted.sha256_prefix else "; no hash is known to compare with"
                    _logger.log(
                        logging.WARNING if unproved else logging.INFO,
                        "downloaded %s: %d bytes, SHA-256 %s%s",
                        wanted.destination,
                        partial.received,
                        partial.sha256(),
                        unproved,
                    )
                    return
            sources = tuple(source for source in sources if failures[source].passing)
            if not sources:
                break
    raise _error(wanted, failures) from failures[wanted.sources[-1]]


def _explain(reasons: Mapping[str, object]) -> str:
    return "; ".join(f"cannot download {source}: {reasons[source]}" for source in reasons)


def _error(wanted: _Wanted, reasons: Mapping[str, object]) -> DownloadError:
    name, folders = wanted.destination.name, os.environ.get("EPIC_MODELS_DIR")
    return DownloadError(
        (f"{name} is not in EPIC_MODELS_DIR ({folders}), and " if folders else "")
        + f"{_explain(reasons)}. To do without the download, get that file by hand and save it as "
        f"{wanted.destination}: from there it is used without a network and without comparing "
        "hashes. It may also lie in a folder that EPIC_MODELS_DIR names, or on a mirror that "
        "EPIC_MODELS_URL names."
    )
