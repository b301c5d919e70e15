"""Fill a partial file from one URL, once: over HTTP, and distrusting what the server says.

A download that broke off goes on where it stopped only if the server proves that it has the same
file (status 206, the right Content-Range, no other ETag or Last-Modified), and only where a hash
then proves the whole; otherwise it begins at zero.
"""

import errno
import http.client
import logging
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any

# tqdm where it is installed, else torch's stand-in for it; torch.hub does not list it in __all__.
from torch.hub import tqdm  # type: ignore[attr-defined]

from weights.partial import PartialFile

__all__ = ["TransferError", "progress_bar", "receive"]

_logger = logging.getLogger(__name__)

_CHUNK_BYTES = 128 * 1024


class TransferError(Exception):
    """A URL failed once; the message says why.

    Attributes:
        passing: whether trying again may help.
        pause: seconds until then that the server asks for, or 0.
    """

    def __init__(self, reason: str, *, passing: bool = False, pause: int = 0) -> None:
        super().__init__(" ".join(reason.split()))
        self.passing = passing
        self.pause = pause


class _NotContinuedError(TransferError):
    """What has arrived so far turns out to be no part of the file that the server has."""


def receive(
    url: str, partial: PartialFile, *, sha256_prefix: str | None, progress: bool, timeout: float
) -> None:
    """Complete a partial file, from where it ends if that is possible, else from zero.

    Args:
        url: an http, https or file URL.
        partial: what has arrived so far; may be empty.
        sha256_prefix: first hexadecimal digits of the whole file's SHA-256; None: not known.
        progress: whether to show a progress bar on standard error.
        timeout: longest wait in seconds, for the connection and then for each piece of the file.

    Raises:
        TransferError: for everything that the server or the network can do wrong.
        OSError: the partial file cannot be written.
    """
    try:
        _get(url, partial, sha256_prefix, progress, timeout)
    except _NotContinuedError as error:
        _logger.info("%s: %s; starting again at zero", url, error)
        partial.discard()  # so that this is a request for everything
        _get(url, partial, sha256_prefix, progress, timeout)


def _get(
    url: str, partial: PartialFile, sha256_prefix: str | None, progress: bool, timeout: float
) -> None:
    headers = {"User-Agent": "epic-kitchens-models"}
    if partial.version is not None:
        # If-Range: the rest if that is still the version that the server has, else everything.
        headers |= {"Range": f"bytes={partial.received}-", "If-Range": partial.version}
    with _network_errors():
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=timeout)
    with response:
        if response.status == 206:
            announced: int | None = _whole_length_if_continued(response.headers, partial)
        else:
            # Without a hash nothing could show that two pieces do not fit together.
            partial.start(_version(response.headers) if sha256_prefix else None)
            announced = _number(response.headers["Content-Length"])
        continued = partial.received > 0
        with progress_bar(progress, announced) as bar:
            if continued:
                bar.update(partial.received)
            while partial.received != announced:
                with _network_errors():
                    chunk = response.read1(_CHUNK_BYTES)  # what is there, so a crash loses little
                if not chunk:
                    break
                partial.write(chunk)
                bar.update(len(chunk))
    # http.client ends a body that breaks off like a complete one: only counting shows it.
    if announced is not None and partial.received != announced:
        reason = f"{partial.received} bytes came, {announced} were announced"
        raise TransferError(reason, passing=True)
    if partial.received == 0:
        raise TransferError("the server sent an empty file")
    if sha256_prefix and not partial.matches(sha256_prefix):
        reason = (
            f"what came has the SHA-256 {partial.sha256()}, which should start with "
            f"{sha256_prefix.lower()}; either it was damaged or replaced on the way (a proxy's "
            "error page?), or the expected digits are wrong"
        )
        raise _NotContinuedError(reason) if continued else TransferError(reason)


def _version(headers: Message) -> str | None:
    """The server's name for exactly this content, if it has one (RFC 9110, sections 8.8 and 13)."""
    etag = headers["ETag"]
    return etag if etag and not etag.startswith("W/") else headers["Last-Modified"]


def _whole_length_if_continued(headers: Message, partial: PartialFile) -> int:
    """Length of the whole file, if the server sends exactly the rest, and of the same version."""
    numbers = r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})"
    said = re.fullmatch(numbers, headers["Content-Range"] or "")
    first, last, whole = map(int, said.groups()) if said else (-1, -1, -1)
    same = partial.version is not None and _version(headers) in (None, partial.version)
    if not (same and first == partial.received and last + 1 == whole):
        raise _NotContinuedError("the server sent some other part of the file than asked for")
    return whole


def _number(header: str | None) -> int | None:
    """Value of a header that should be a number; http.client, too, ignores malformed ones."""
    return int(header) if header and re.fullmatch("[0-9]{1,18}", header) else None


def progress_bar(show: bool, total: int | None, description: str | None = None) -> Any:
    """A bar that counts bytes, to be used in a `with` statement."""
    return tqdm(
        total=total,
        desc=description,
        disable=not show,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
    )


@contextmanager
def _network_errors() -> Iterator[None]:
    """Turn everything that urllib and http.client raise into a TransferError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answered {error.code} {error.reason}"
        if error.code == 416:  # asked for bytes that the file does not have
            raise _NotContinuedError(reason) from error
        pause = _number(error.headers["Retry-After"]) or 0
        passing = error.code >= 500 or error.code in (408, 429)
        raise TransferError(reason, passing=passing, pause=pause) from error
    # UnicodeError: odd URLs. ValueError: odd headers, as from an odd name of a leftover.
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            reason = "the server did not answer in time"
        else:
            reason = str(cause) or type(cause).__name__
        raise TransferError(reason, passing=_may_pass(cause)) from error


def _may_pass(cause: object) -> bool:
    """Whether an error is one that may be gone the next time."""
    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_AGAIN
    broken_off = (TimeoutError, ConnectionError, ssl.SSLEOFError)
    not_http = (http.client.IncompleteRead, http.client.BadStatusLine)
    unreachable = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH)
    return isinstance(cause, broken_off + not_http) or (
        isinstance(cause, OSError) and cause.errno in unreachable
    )
