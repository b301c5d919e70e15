"""Frames of a video file, read with PyAV: the same ones whether it seeks or not.

Frame i is the i-th frame that comes out when the file is decoded from its start, which is
presentation order, whatever its timestamps say. Timestamps only ever save work: see `VideoFile`.
Edit lists are applied, and the display matrix by which phones turn and mirror what they record;
pixels are assumed to be square; colours follow the matrix that the stream names.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.archives import is_tar
from data.decoder import Decoder, UnexpectedFrameError, VideoSource, demuxed, import_av
from data.frames import RGB_LAYOUTS, FrameSource
from data.packets import PacketIndex

__all__ = ["VideoFile"]

logger = logging.getLogger(__name__)

_MAX_DELAY = 16
"""How many frames behind its own place a frame may come out after damage: what decoders hold."""

_CHECKED_FRAMES = 32
"""How many frames must be decoded in the order of their timestamps before these are believed."""


@dataclass(frozen=True)
class _Order:
    """Which packet each frame is in; replaced as a whole, so that threads may share a file.

    Attributes:
        frame_of_packet: int64, frame index of each packet, -1 for one without a frame.
        starts: int64, packets that decoding can start at.
        times: float64, seconds at which each frame is shown; None where timestamps are not sound.
        counted: whether all frames were decoded once, and counted as they came out.
        damaged: whether some of the frames, which timestamps count, do not come out.
    """

    length: int
    frame_of_packet: NDArray[np.int64]
    starts: NDArray[np.int64]
    times: NDArray[np.float64] | None
    counted: bool = False
    damaged: bool = False


class VideoFile(FrameSource):
    """A video file, read with PyAV: the video stream that FFmpeg would take.

    Opening reads the packets once without decoding them. Where the container states when each
    frame is shown, the number and order of the frames follow from that, and are checked by decoding
    the first ones. Where timestamps are missing, wrong or guessed (raw streams, B-frames in AVI),
    or the end is damaged, the file is decoded once to count its frames. So open a file once to read
    many clips from it; it holds no file handle, can be pickled and shared by threads.

    Reading jumps to the last key frame before a frame wherever that decodes less than going on
    does. Packets are numbered, and a frame carries the number of its packet out of the decoder. So
    it is noticed when a jump does not give the frames that decoding from the start gives (wrong key
    frame marks, intra refresh) or when the timestamps lied, and the file is decoded from its start.
    There, a frame that cannot be decoded shows the one before it, as in a player. Only what FFmpeg
    paints over damage inside a frame may depend on where decoding began. Where the size of frames
    changes, all are scaled to the size of the first.

    Args:
        file: the path, or a seekable binary file object, which must not be used elsewhere while
            frames are read, and decides whether this can be pickled and shared.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no file, is encrypted, or no frame of video can be decoded from it.
        ImportError: if PyAV is not installed.
    """

    channels = 3
    _order: _Order
    _size: tuple[int, int]

    def __init__(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        if isinstance(file, str | os.PathLike):
            self._source: VideoSource = Path(file).absolute()
            self.name = str(file)
        else:
            self._source = file
            self.name = "file object"
        self._size_changed = False
        if isinstance(self._source, Path) and not self._source.is_file():
            if self._source.exists():
                raise ValueError(
                    f"{self.name}: must be a regular file, not a pipe, folder or device"
                )
            raise FileNotFoundError(f"{self.name}: no such file")
        # FFmpeg would take the JPEGs in it for motion JPEG, in the order of the archive.
        if is_tar(str(self._source) if isinstance(self._source, Path) else self._source):
            raise ValueError(f"{self.name}: a tar, not a video: open_frames reads images in one")
        with Decoder(self._source) as decoder:
            container, stream = decoder.container, decoder.stream
            packets = demuxed(container, stream)
            self._packets = PacketIndex(packets, container, stream, import_av().FFmpegError)
            # Of MP4, the index knows of edit lists, which are no damage.
            kind = container.format.name
            of_mp4 = kind.startswith("mov") and stream.frames
            announced_frames: int = len(stream.index_entries) if of_mp4 else stream.frames
            if kind == "avi":  # which counts frames that are dropped, and have no packet, too
                announced_frames -= max(self._packets.last_tick + 1 - len(self._packets), 0)
            # Other streams may go on for longer, and other containers announce nothing.
            alone = len(container.streams) == 1 and kind in ("matroska,webm", "flv")
            announced_seconds = (container.duration or 0) / 1_000_000 if alone else 0.0
            start_seconds = (container.start_time or 0) / 1_000_000
            average_rate, guessed_rate = stream.average_rate, stream.guessed_rate
        if self._packets.encrypted:
            raise ValueError(
                f"{self.name}: the video is encrypted, and cannot be read without its key"
            )

        self._order = self._believed_order() or self._decoded_order()
        if not self._order.length:
            raise ValueError(
                f"{self.name}: no frame of video can be decoded from this file; accepted are "
                f"{RGB_LAYOUTS}"
            )
        timed = self._order.times is not None
        rate = (average_rate if timed else guessed_rate) or guessed_rate or average_rate
        self.fps = float(rate) if rate else None
        self._warn_if_cut_off(announced_frames, announced_seconds, start_seconds)

    def __len__(self) -> int:
        return self._order.length

    def index_at(self, seconds: float) -> int:
        """The frame on the screen at a time, found through timestamps, not through a frame rate.

        Args:
            seconds: time since the first frame, at least 0; one after the end gives the last frame.

        Returns:
            Frame index. Only where timestamps cannot be used, a constant frame rate is assumed.

        Raises:
            ValueError: for a negative time, or a file with neither timestamps nor a frame rate.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds must be at least 0, got {seconds!r}")
        times = self._order.times
        if times is not None:
            # Timestamps are rounded to ticks (in Matroska 1 ms): exact times must not miss them.
            tick = self._packets.tick
            tolerance = tick / 2 if tick * (self.fps or 0) < 0.2 else 1e-6
            index = int(np.searchsorted(times - times[0], seconds + tolerance, side="right")) - 1
        elif self.fps:
            index = int(min((seconds + 1e-6) * self.fps, len(self)))
        else:
            raise ValueError(f"{self.name}: neither timestamps nor a frame rate can be used")
        return min(index, len(self) - 1)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        waiting = deque(indices)  # a frame that was read is not read again after a new start
        if any(self._start_before(index) for index in indices):
            try:
                yield from self._frames_from_key_frames(waiting)
                return
            except UnexpectedFrameError as error:
                logger.info("%s: decoded from its start, because %s", self.name, error)
        try:
            yield from self._frames_from_start(waiting)
        except UnexpectedFrameError:
            order = self._decoded_order()
            # Where all frames are there, it was the timestamps that lied.
            lied = order.length == len(self)
            self._order = order if lied else replace(self._order, damaged=True)
            yield from self._frames_from_start(waiting)

    def _frames_from_key_frames(self, waiting: deque[int]) -> Iterator[tuple[int, Tensor]]:
        """Decodes as little as possible; raises `UnexpectedFrameError` unless all are right."""
        jumps, count = 0, len(waiting)
        with Decoder(self._source, self._packets) as decoder:
            frames = self._expected_frames(decoder, 0)
            while waiting:
                start = self._start_before(waiting[0])
                if start > decoder.next_packet:
                    decoder.jump(start)
                    jumps += 1
                    frames = self._expected_frames(decoder, start)
                for index, frame in frames:
                    if index == waiting[0]:
                        yield waiting.popleft(), self._rgb(decoder, frame)
                        break
                else:
                    raise UnexpectedFrameError(f"frame {waiting[0]} is missing")
            self._report(count, decoder.decoded, jumps)

    def _expected_frames(self, decoder: Decoder, start: int) -> Iterator[tuple[int, Any]]:
        """Index and frame from a starting packet on, without gaps, else `UnexpectedFrameError`."""
        first = max(int(self._order.frame_of_packet[start]), 0)
        expected, last = first, None
        for number, frame in decoder.frames():
            index = self._index_of(number)
            if index < first and expected == first:
                continue  # stored behind the key frame, shown before it, and in need of the skipped
            if start and expected == first and not (index == first and frame.key_frame):
                starts = self._order.starts
                self._order = replace(self._order, starts=starts[starts != start])  # not again
                raise UnexpectedFrameError(f"packet {start} is wrongly marked as a key frame")
            if index != expected or frame.is_corrupt:
                raise UnexpectedFrameError(f"frame {expected} did not come out sound and in place")
            if last is not None:
                yield expected - 1, last
            expected, last = expected + 1, frame  # held back until the next one confirms the order
        if expected < len(self):
            raise UnexpectedFrameError(f"frame {expected} did not come out")
        if last is not None:
            yield expected - 1, last

    def _frames_from_start(self, waiting: deque[int]) -> Iterator[tuple[int, Tensor]]:
        """Decodes from the start of the file, past damage where that is known of.

        Behind damage frames may come late, so that those after them have to wait.
        """
        shown, last, lost, count = -1, None, 0, len(waiting)
        wanted, sound, substitutes = set(waiting), dict[int, Any](), dict[int, Any]()
        with Decoder(self._source) as decoder:
            for number, frame in decoder.frames():
                index = shown + 1 if self._order.counted else self._index_of(number)
                if index != shown + 1 and not self._order.damaged:
                    raise UnexpectedFrameError(f"frame {index} came out after frame {shown}")
                for skipped in wanted.intersection(range(shown + 1, index)):
                    substitutes[skipped] = frame if last is None else last
                if index in wanted:
                    sound[index] = frame
                if index > shown:
                    shown, last = index, frame
                while waiting and (waiting[0] in sound or waiting[0] < shown - _MAX_DELAY):
                    place = waiting.popleft()
                    lost += place not in sound
                    substitute = substitutes.pop(place, None)
                    yield place, self._rgb(decoder, sound.pop(place, substitute))
                if not waiting:
                    break
            if waiting and last is None:
                raise ValueError(f"{self.name}: no frame of video can be decoded from this file")
            while waiting:
                place = waiting.popleft()
                lost += place not in sound
                substitute = substitutes.get(place, last)
                yield place, self._rgb(decoder, sound.get(place, substitute))
            self._report(count, decoder.decoded, jumps=0)
        if lost:
            logger.warning(
                "%s: %d of %d frames cannot be decoded, and show the frame before them",
                self.name, lost, count,
            )  # fmt: skip

    def _rgb(self, decoder: Decoder, frame: Any) -> Tensor:
        """uint8 tensor (3, H, W) of a frame, in the size of the first one."""
        size = (frame.width, frame.height)
        if size != self._size and not self._size_changed:
            self._size_changed = True
            logger.warning(
                "%s: the size of its frames changes from %d x %d to %d x %d (width x height): all "
                "are scaled to the first", self.name, *self._size, *size,
            )  # fmt: skip
        try:
            return decoder.rgb(frame, self._size)
        except import_av().FFmpegError as error:
            raise ValueError(
                f"{self.name}: its colours cannot be converted to RGB ({error.strerror}; "
                f"colorspace {frame.colorspace}, format {frame.format.name})"
            ) from error

    def _report(self, read: int, decoded: int, jumps: int) -> None:
        logger.debug("%s: %d frames read, %d decoded, %d jumps", self.name, read, decoded, jumps)

    def _start_before(self, index: int) -> int:
        """The packet from which decoding gives the frame with the least work; 0 is the start."""
        starts = self._order.starts
        frames = self._order.frame_of_packet[starts]
        position = int(np.searchsorted(frames, index, side="right")) - 1
        return int(starts[position]) if position >= 0 else 0

    def _index_of(self, number: int | None) -> int:
        """Frame index of a packet, -1 for one without a frame to show."""
        if number is None or not 0 <= number < len(self._packets):
            return -1
        return int(self._order.frame_of_packet[number])

    def _make_order(self, order: NDArray[np.int64], **found: bool) -> _Order:
        """What follows from the packet number of every frame."""
        frame_of_packet = self._packets.frame_indices(order)
        starts = self._packets.starting_points(frame_of_packet)
        times = self._packets.times(order)
        return _Order(int(order.size), frame_of_packet, starts, times, **found)

    def _believed_order(self) -> _Order | None:
        """The order of the timestamps, if the decoder bears out its beginning."""
        order = self._packets.frame_order()
        if order is None:
            return None
        try:
            numbers, failed = self._decoded_numbers(self._packets, _CHECKED_FRAMES)
        except UnexpectedFrameError:
            return None
        places = self._packets.frame_indices(order)[numbers]
        if places.tolist() == list(range(min(_CHECKED_FRAMES, order.size))):
            return self._make_order(order, damaged=failed > 0)
        # Frames lost to damage keep their numbers, as they do further on in the file. After it some
        # come late; without an error, frames that are missing are all there may be.
        if not places.size or places.min() < 0:
            return None
        missing = not self._packets.hides_frames and places[0] == 0 and (np.diff(places) > 0).all()
        return self._make_order(order, damaged=True) if failed or missing else None

    def _decoded_order(self) -> _Order:
        """The order in which all frames that can be decoded come out."""
        logger.info("%s: decoded once to count its frames", self.name)
        return self._make_order(self._decoded_numbers(None, None)[0], counted=True)

    def _decoded_numbers(
        self, expected: PacketIndex | None, count: int | None
    ) -> tuple[NDArray[np.int64], int]:
        """Packet numbers of the first `count` frames (None: all), and how many packets failed.

        The number is -1 where the decoder lost it.
        """
        numbers: list[int] = []
        with Decoder(self._source, expected) as decoder:
            for number, frame in islice(decoder.frames(), count):
                if not numbers:
                    self._size = frame.width, frame.height
                # A file that grows has packets that the index does not know.
                numbers.append(-1 if number is None or number >= len(self._packets) else number)
            return np.array(numbers, dtype=np.int64), decoder.failed

    def _warn_if_cut_off(
        self, announced_frames: int, announced_seconds: float, start_seconds: float
    ) -> None:
        if announced_frames > len(self._packets):
            logger.warning(
                "%s: its header announces %d frames, but %d can be shown",
                self.name, announced_frames, len(self),
            )  # fmt: skip
        elif not announced_frames and self._order.times is not None:
            # Some containers count from their own zero, others from the first packet.
            end = float(self._order.times[-1])
            missing = announced_seconds - max(end, end - start_seconds)
            if missing > max(1.0, 0.05 * announced_seconds):
                logger.warning(
                    "%s: its video ends %.1f seconds before the %.1f that its header announces",
                    self.name, missing, announced_seconds,
                )  # fmt: skip
