"""What live sources are read from with PyAV: devices, URLs, pipes, and files that grow."""

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import Any, Literal

from data.decoder import demux, import_av, open_container, select_video_stream
from data.options import first_few
from data.waiting_file import WaitingFile, wait_readable

__all__ = ["LiveInput", "kind_of"]

_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_VIDEO_DEVICE = re.compile(r"/dev/video\d+")


def kind_of(source: str | os.PathLike[str]) -> Literal["device", "URL", "pipe", "file"]:
    """Return what a source is; standard input ("-") counts as a pipe, what is missing as a file."""
    source = os.fspath(source)
    if source == "-":
        return "pipe"
    if _URL.match(source):
        return "URL"
    try:
        mode = os.stat(source).st_mode
    except (OSError, ValueError):  # such as a null character
        return "device" if _VIDEO_DEVICE.fullmatch(source) else "file"
    return "device" if stat.S_ISCHR(mode) else "pipe" if stat.S_ISFIFO(mode) else "file"


class LiveInput:
    """An open source: the packets of its video, until it ends or breaks off.

    Args:
        source: the path of a device, pipe or file, "-" for standard input, or a URL.
        timeout: seconds to wait for data.
        follow: whether the source is a file that is still being written.
        options: FFmpeg's.
        stop: when another thread sets it, opening and reading end. Only a read from a URL cannot
            be broken off, and ends with its `timeout`.

    Attributes:
        name: the source, for messages: a URL without user and password.
        stream: the video stream, of PyAV.
        ended: why there are no more packets.
        broken: whether that is an error: pipes and files have an end, devices and URLs none.

    Raises:
        OSError: if the source cannot be opened; TimeoutError if nothing comes.
        ValueError: if it has no video that can be decoded, or FFmpeg cannot read such sources.
        ImportError: if PyAV is not installed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        timeout: float,
        follow: bool,
        options: Mapping[str, object],
        stop: Event,
    ) -> None:
        self._source, self._kind = os.fspath(source), kind_of(source)
        if follow and self._kind != "file":
            raise ValueError(f"follow=True is for files that grow, and {source} is a {self._kind}")
        self._timeout, self._stop = timeout, stop
        self._file: WaitingFile | None = None
        self.name = (
            "standard input" if self._source == "-" else re.sub("//[^/]*@", "//", self._source)
        )
        self.ended, self.broken = "", False
        with ExitStack() as opened:  # closes what is open if the rest fails
            self._container = self._open(opened, follow, options)
            opened.callback(self._container.close)
            self.stream: Any = select_video_stream(self._container)
            if self.stream is None:
                kinds = ", ".join(stream.type for stream in self._container.streams) or "nothing"
                raise ValueError(
                    f"{self.name}: has no video stream that can be decoded, but {kinds}"
                )
            self._device = _find_descriptor(self._source) if self._kind == "device" else None
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the source; no other thread may be reading it."""
        self._opened.close()

    def packets(self) -> Iterator[Any]:
        """Yield the packets of the video stream until it ends, and set `ended` and `broken`."""
        av = import_av()
        packets = demux(self._container)  # of all streams: between any two, reading can stop
        last, silent = time.monotonic(), False
        self.ended, self.broken = "end of data", self._kind in ("device", "URL")
        try:
            while self._wait_for_device():
                packet = next(packets, None)
                if packet is None:
                    silent = self._file is not None and self._file.timed_out
                    break
                if packet.stream_index == self.stream.index:
                    yield packet
                    last = time.monotonic()
                elif time.monotonic() - last >= self._timeout:
                    silent = True
                    break
            else:
                silent = True
        except av.FFmpegError as error:
            silent = isinstance(error, av.ExitError) or time.monotonic() - last >= self._timeout
            self.ended, self.broken = f"it broke off ({error.strerror or error})", True
        if self._stop.is_set():
            self.ended, self.broken = "it was closed", False
        elif silent:
            self.ended = f"no data for {self._timeout:g} seconds"
            self.broken = self._kind != "file"

    def _wait_for_device(self) -> bool:
        """Return whether to read on, once that will not block for ever; FFmpeg sees to others."""
        if self._device is not None:
            return wait_readable(self._device, self._timeout, self._stop)
        return not self._stop.is_set()

    def _open(self, opened: ExitStack, follow: bool, options: Mapping[str, object]) -> Any:
        """Return the PyAV container, and leave in `opened` what must be closed after it."""
        av = import_av()
        target: object = self._source
        arguments: dict[str, Any] = {"options": {key: str(options[key]) for key in options}}
        start = time.monotonic()
        try:
            if self._kind == "device":
                arguments["format"] = "v4l2"
            elif self._kind == "URL":
                arguments["timeout"] = self._timeout
            elif follow or self._kind == "pipe":
                # A pipe without a sender would block while it is opened, too.
                flags = os.O_RDONLY | os.O_NONBLOCK
                descriptor = os.dup(0) if self._source == "-" else os.open(self._source, flags)
                opened.callback(os.close, descriptor)
                self._file = target = WaitingFile(
                    descriptor, follow=follow, timeout=self._timeout, stop=self._stop
                )
            else:
                target = f"file:{self._source}"  # whatever its name looks like
            return open_container(target, **arguments)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._explain(error, time.monotonic() - start) from error

    def _explain(self, error: Exception, seconds: float) -> Exception:
        """Return an error that says what could not be opened, and why."""
        av = import_av()
        reason = getattr(error, "strerror", None) or error
        timed_out = self._file.timed_out if self._file else seconds >= self._timeout
        if timed_out and self._kind != "device":
            return TimeoutError(f"{self.name}: no video came within {self._timeout:g} seconds")
        if isinstance(error, av.error.ProtocolNotFoundError):
            return ValueError(
                f"{self.name}: the FFmpeg in PyAV {av.__version__} cannot read such URLs ({reason})"
            )
        if isinstance(error, ValueError):
            hint = " (MP4 only if it is fragmented)" * (self._file is not None)
            return ValueError(
                f"{self.name}: a {self._kind} without a video that FFmpeg can read as it comes"
                f"{hint}: {reason}"
            )
        message = f"{self.name}: the {self._kind} cannot be opened: {reason}"
        if self._kind == "device":
            devices = first_few(sorted(map(str, Path("/dev").glob("video*")))) or "none"
            message += f" (tried with FFmpeg's v4l2; video devices here: {devices})"
        return type(OSError(getattr(error, "errno", 0), ""))(message)  # a FileNotFoundError, ...


def _find_descriptor(device: str) -> int | None:
    """Return the descriptor with which FFmpeg, which does not tell, opened a device."""
    with suppress(OSError):  # no /proc: no Linux
        for entry in os.scandir("/proc/self/fd"):
            with suppress(OSError):  # closed meanwhile
                if os.path.realpath(entry.path) == os.path.realpath(device):
                    return int(entry.name)
    return None
