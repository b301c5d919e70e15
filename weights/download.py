"""Fetch a file once, check it, and keep it in torch.hub's cache directory.

Files lie where `torch.hub.load_state_dict_from_url` would put them, under the same names, so what
torch.hub downloaded earlier is found, and a file put there by hand works without a network.

Differences from `torch.hub.download_url_to_file`: a stalled server ends in an error instead of
waiting for ever, a body shorter than announced is refused even where no hash is known, an empty
file never counts as cached, and every error says which file to put where.
"""

import hashlib
import http.client
import logging
import math
import os
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

import torch.hub

# tqdm where it is installed, else torch's stand-in for it; torch.hub does not list it in __all__.
from torch.hub import tqdm  # type: ignore[attr-defined]

__all__ = ["DownloadError", "fetch"]

_logger = logging.getLogger(__name__)

_SCHEMES = ("http", "https", "file")
_CHUNK_BYTES = 128 * 1024


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
    """Return the cached copy of a file, downloading it where there is none.

    A file that is in the cache is trusted: it got there by a rename after all checks, or because
    the user put it there, and hashing it at every load would cost time whenever a model is made.
    An empty one is fetched anew: nothing worth fetching is empty, but a full disk or a crash of
    another program leaves such files.

    Proxies are those that `urllib.request.urlopen` uses (`https_proxy`, `no_proxy`, ...).

    Args:
        url: an http, https or file URL.
        sha256_prefix: first hexadecimal digits of the SHA-256 that a download must have, as in
            torch.hub's file names; None: not compared.
        file_name: name in the cache; default: torch.hub's, the last part of the URL's path.
        directory: where to keep the file; default: `torch.hub.get_dir()` + "/checkpoints". Made
            where it does not exist.
        progress: whether to show a progress bar on standard error.
        timeout: longest wait in seconds, for the connection and then for each piece of the file.

    Returns:
        Path of the complete file.

    Raises:
        ValueError: an argument cannot be (other kinds of URL, a file name with directories in it,
            a prefix that is not hexadecimal, a time-out that is not positive).
        DownloadError: the server cannot be reached, answers with an error, stalls, or sends
            something else than announced or expected; or the file cannot be written. Nothing
            is left in the directory then.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise ValueError(f"url must start with http://, https:// or file://, got {url!r}")
    if sha256_prefix is not None and not re.fullmatch("[0-9a-fA-F]{1,64}", sha256_prefix):
        raise ValueError(
            f"sha256_prefix must be 1 to 64 hexadecimal digits or None, got {sha256_prefix!r}"
        )
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
    destination = _destination(url, file_name, directory)
    try:
        if not _is_cached(destination):
            _download(url, destination, sha256_prefix, progress, timeout)
    except DownloadError:
        raise
    except OSError as error:  # on this side of the network: permissions, full disk, ...
        raise DownloadError(
            f"cannot write {destination}, to which {url} was to be downloaded: {error}. The "
            "environment variable TORCH_HOME moves the cache directory."
        ) from error
    return destination


def _destination(url: str, file_name: str | None, directory: str | os.PathLike[str] | None) -> Path:
    name = PurePosixPath(urlsplit(url).path).name if file_name is None else file_name
    if not name or name == ".." or Path(name).name != name:
        raise ValueError(
            "file_name must be a name without directories, and be given where the URL has none, "
            f"got {file_name!r} with {url!r}"
        )
    folder = Path(torch.hub.get_dir()) / "checkpoints" if directory is None else Path(directory)
    return folder.expanduser() / name


def _is_cached(destination: Path) -> bool:
    if destination.is_dir():  # found now rather than after the download
        raise IsADirectoryError("there is a directory of that name")
    return destination.is_file() and destination.stat().st_size > 0


def _download(
    url: str, destination: Path, sha256_prefix: str | None, progress: bool, timeout: float
) -> None:
    """Download one URL to one place, or raise and leave nothing there."""
    _logger.info("downloading %s to %s", url, destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _network_errors(url, destination):
        request = urllib.request.Request(url, headers={"User-Agent": "epic-kitchens-models"})
        response = urllib.request.urlopen(request, timeout=timeout)
    with response, _written_beside(destination) as file:
        announced = _announced_bytes(response.headers["Content-Length"])
        received = 0
        sha256 = hashlib.sha256()
        with tqdm(
            total=announced, disable=not progress, unit="B", unit_scale=True, unit_divisor=1024
        ) as bar:
            while True:
                with _network_errors(url, destination):
                    chunk = response.read(_CHUNK_BYTES)
                if not chunk:
                    break
                file.write(chunk)
                sha256.update(chunk)
                received += len(chunk)
                bar.update(len(chunk))
        # http.client ends a body that breaks off like a complete one: only counting shows it.
        if announced is not None and received != announced:
            reason = f"{received} bytes came, {announced} were announced"
            raise _failure(url, destination, reason)
        if received == 0:
            raise _failure(url, destination, "the server sent an empty file")
        _check_hash(url, destination, sha256_prefix, sha256.hexdigest())
    _logger.info("downloaded %s: %d bytes, SHA-256 %s", destination, received, sha256.hexdigest())


def _check_hash(url: str, destination: Path, sha256_prefix: str | None, found: str) -> None:
    if sha256_prefix is not None and not found.startswith(sha256_prefix.lower()):
        raise DownloadError(
            f"{url} was downloaded and thrown away, because its SHA-256 is {found}, and should "
            f"start with {sha256_prefix.lower()}. Either the file was damaged or replaced on the "
            "way (a proxy's error page?), or the expected digits are wrong. If you trust the file, "
            f"download it by hand and save it as {destination}: a file that is there is used "
            "without comparing hashes."
        )


@contextmanager
def _written_beside(destination: Path) -> Iterator[BinaryIO]:
    """A new file that becomes `destination` if the block succeeds, and vanishes otherwise."""
    # The same directory, because only within one file system is a rename atomic; an own name,
    # because others may be downloading the same file; not `tempfile`, whose files nobody else can
    # read, which would spoil a cache that people share.
    partial = destination.with_name(f"{destination.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "xb") as file:
            yield file
            # A cached file is trusted, so its content must reach the disk before its name does.
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, destination)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _network_errors(url: str, destination: Path) -> Iterator[None]:
    """Turn everything that urllib and http.client raise into a DownloadError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answered {error.code} {error.reason}"
        raise _failure(url, destination, reason) from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last: odd URLs
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            reason = "the server did not answer in time"
        else:
            reason = str(cause) or type(cause).__name__
        raise _failure(url, destination, reason) from error


def _failure(url: str, destination: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"cannot download {url}: {' '.join(reason.split())}. To do without the download, get "
        f"that file in another way and save it as {destination}: from there it is used without a "
        "network."
    )


def _announced_bytes(content_length: str | None) -> int | None:
    """Length of the body where the server gives one; http.client, too, ignores malformed ones."""
    return int(content_length) if content_length and content_length.isdecimal() else None
