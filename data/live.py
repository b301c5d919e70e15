"""Frames of cameras, network streams, pipes, and files that are still being written, as they come.

`data.video` reads finished files, in any order; these can be read once, from now on.
"""

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

from torch import Tensor

from data.decoder import import_av
from data.live_input import LiveInput, kind_of
from data.live_times import LiveTimes
from data.options import positive_number
from data.rgb import to_rgb

__all__ = ["LiveFrame", "LiveFrames", "is_live"]

logger = logging.getLogger(__name__)

_BUFFER_SIZE = 4
"""Frames that wait to be taken: some come in bursts, and of more the first would be too old."""


@dataclass(frozen=True)
class LiveFrame:
    """A frame and its time.

    Attributes:
        seconds: since the first frame, ascending.
        image: uint8 tensor (3, H, W), RGB, upright.
    """

    seconds: float
    image: Tensor


class LiveFrames:
    """The frames of a live source, once, in order: an iterator, and a context manager.

    A thread reads and decodes all the time. Who takes frames too slowly loses the oldest ones of a
    device or network stream, and always gets one of the last few; pipes and files wait instead.
    The iteration ends when the source ends or breaks off. The logger `data.live` says why: as a
    warning, unless it is the end of a pipe or file.

    Frames have their own size, which may change, and the time of their timestamps. A frame whose
    timestamp is missing, or not later than the last, gets the time that has gone by instead.

        >>> with LiveFrames("rtsp://192.168.1.20/stream", rate=10) as frames:  # doctest: +SKIP
        ...     for frame in frames:
        ...         print(frame.seconds, frame.image.shape)

    Args:
        source: the path of a V4L2 device ("/dev/video0"), a named pipe or a file, "-" for standard
            input, or a URL that FFmpeg can read (rtsp, http, https, udp, tcp, rtp, ...).
        rate: frames per second at most, chosen by their times; all of them if None.
        timeout: seconds without data after which a source counts as broken, or as finished if it
            is a file that grows; also for the first frames to come.
        drop: whether frames are dropped; by default from devices and URLs, except recordings,
            which have a duration and come as fast as they are read.
        follow: whether the source is a file that is still being written.
        options: FFmpeg's, such as {"video_size": "640x480", "framerate": "30"} for devices or
            {"rtsp_transport": "tcp"}.

    Attributes:
        name: the source, for messages: a URL without user and password.

    Raises:
        OSError: if the source cannot be opened; TimeoutError if nothing comes; while iterating, if
            the source ends before its first frame.
        ValueError: for other values of the arguments, or a source without a video that FFmpeg can
            decode as it comes.
        ImportError: if PyAV is not installed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        rate: float | None = None,
        timeout: float = 10.0,
        drop: bool | None = None,
        follow: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> None:
        for argument, value in (("rate", rate), ("timeout", timeout)):
            if value is not None:
                positive_number(argument, value)
        arguments = {"timeout": timeout, "follow": follow, "options": options or {}}
        self._reader = _Reader(source, arguments, rate, drop)
        weakref.finalize(self, self._reader.request_stop)  # where close() is forgotten
        try:
            self._reader.start()
            self.name = self._reader.wait_until_open()
        except BaseException:
            self._reader.request_stop()  # and no wait: a read of the network would go on
            raise

    @property
    def dropped(self) -> int:
        """Number of frames dropped so far; those that `rate` leaves out do not count."""
        return self._reader.dropped

    def __iter__(self) -> Iterator[LiveFrame]:
        return self

    def __next__(self) -> LiveFrame:
        return self._reader.take()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration, and close the source; any thread may, once or more often.

        It returns when the source is closed: at once, except where a network stream is silent,
        whose read ends with its `timeout`.
        """
        self._reader.close()


class _Reader(threading.Thread):
    """The thread that opens, reads and decodes a source, and the frames that wait to be taken."""

    def __init__(
        self, source: object, arguments: dict[str, Any], rate: float | None, drop: bool | None
    ) -> None:
        # As a daemon it cannot keep alive a program that forgets to close it.
        super().__init__(name="LiveFrames", daemon=True)
        self.dropped = 0
        self._stop_event = threading.Event()
        self._arguments = {**arguments, "source": source, "stop": self._stop_event}
        self._rate, self._drop = rate, drop
        self._changed = threading.Condition()
        self._frames: deque[LiveFrame] = deque()
        self._source_name: str | None = None
        self._error: Exception | None = None
        self._ended = False

    def wait_until_open(self) -> str:
        """Return the source's name once it is open; raise what opening raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._source_name is not None or self._ended)
            if self._source_name is None and self._error is not None:
                raise self._error
            return str(self._source_name)

    def take(self) -> LiveFrame:
        """Wait for the next frame; raise StopIteration at the end, or what reading raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended)
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return frame
            error, self._error = self._error, None
            raise error or StopIteration

    def request_stop(self) -> None:
        """Let the thread end soon, and drop the frames that wait."""
        with self._changed:
            self._stop_event.set()
            self._ended = True
            self._frames.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and wait until the source is closed."""
        self.request_stop()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """Read the source to its end."""
        try:
            source = LiveInput(**self._arguments)
            try:
                if self._drop is None:
                    self._drop = source.endless
                with self._changed:
                    self._source_name = source.name
                    self._changed.notify_all()
                self._read(source)
            finally:
                source.close()
        except Exception as error:  # for the thread that takes frames
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read(self, source: LiveInput) -> None:
        """Decode all packets; those that cannot be decoded are skipped with one warning."""
        av = import_av()
        converter = av.video.reformatter.VideoReformatter()
        times = LiveTimes(self._rate)
        count, warned = 0, False
        # None in the end, for the frames that the decoder holds back.
        for packet in chain(source.packets(), [None]):
            try:
                for frame in source.stream.codec_context.decode(packet):
                    count += 1
                    seconds = times.seconds(frame.time)
                    if times.is_due(seconds):
                        image = to_rgb(frame, (frame.width, frame.height), converter)
                        self._put(LiveFrame(seconds, image))
            except av.FFmpegError as error:
                if count and not warned:  # a stream joined in the middle begins with damage
                    logger.warning("%s: skipping damaged data (%s)", source.name, error.strerror)
                    warned = True
        if not count and not self._stop_event.is_set():
            raise OSError(
                f"{source.name}: no frame could be decoded (an MP4 from a pipe must be fragmented, "
                f"or have its index in front): {source.ended}"
            )
        level = logging.WARNING if source.broken else logging.INFO
        logger.log(level, "%s: ended after %d frames: %s", source.name, count, source.ended)

    def _put(self, frame: LiveFrame) -> None:
        """Add a frame to those that wait: in the place of the oldest, or when there is room."""
        with self._changed:
            if self._drop and len(self._frames) == _BUFFER_SIZE:
                self._frames.popleft()
                self.dropped += 1
            self._changed.wait_for(
                lambda: len(self._frames) < _BUFFER_SIZE or self._stop_event.is_set()
            )
            if not self._stop_event.is_set():
                self._frames.append(frame)
                self._changed.notify_all()


def is_live(source: object) -> bool:
    """Return whether a source can only be read as it comes: a device, a URL or a pipe.

    Args:
        source: as for `LiveFrames`; what is no path is not live.
    """
    return isinstance(source, str | os.PathLike) and kind_of(source) != "file"
