"""Frames of a video file, read with PyAV; seeking never changes which frames are read.

Frame i is the i-th frame that decoding the file from its start gives, in presentation order,
whatever its timestamps are. Timestamps only save work: see `VideoFile`. Edit lists and the display
matrix (rotation and flip, set by phones) are applied; pixels are assumed to be square; colours are
converted with the matrix that the stream names.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.archives import is_tar
from data.decoder import Decoder, UnexpectedFrameError, VideoSource, demux, import_av
from data.frames import RGB_LAYOUTS, FrameSource
from data.packets import FrameIndex, PacketIndex

__all__ = ["VideoFile"]

logger = logging.getLogger(__name__)

_MAX_REORDER_DELAY = 16
"""How many frames late a frame may come after damage: as many as decoders hold."""

_NUM_CHECKED_FRAMES = 32
"""How many frames must be decoded in the order of their timestamps before these are trusted."""


class VideoFile(FrameSource):
    """A video file, read with PyAV: the video stream that FFmpeg would take.

    Opening reads the packets once without decoding them. Where the container stores timestamps,
    they give the number and order of the frames, and decoding the first frames checks them. Where
    timestamps are missing, wrong or guessed (raw streams, B-frames in AVI), or the end is damaged,
    the whole file is decoded once to count its frames. So open a file once to read many clips from
    it: it holds no file handle, can be pickled, and threads may share it.

    Reading seeks to the last key frame before a frame where that decodes fewer frames. Each frame
    carries the number of its packet through the decoder, which shows when a seek gives other frames
    than decoding from the start (key frames marked wrongly, intra refresh) or when timestamps were
    wrong. The file is then decoded from its start. There, a frame that cannot be decoded shows the
    one before it, as in a player. Only how FFmpeg conceals damage inside a frame may depend on
    where decoding began. If frames change their size, all are scaled to the size of the first.

    Args:
        file: the path, or a seekable binary file object. Nothing else may use the object while
            frames are read; pickling and sharing need one that allows them.
        strict: whether reading a frame that cannot be decoded is an error, instead.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a regular file, is encrypted, or no frame of video can be decoded
            from it.
        ImportError: if PyAV is not installed.
    """

    channels = 3
    _index: FrameIndex
    _size: tuple[int, int]

    def __init__(self, file: str | os.PathLike[str] | BinaryIO, *, strict: bool = False) -> None:
        self._strict = strict
        self._source: VideoSource
        if isinstance(file, str | os.PathLike):
            self._source, self.name = str(Path(file).absolute()), str(file)
            if not os.path.exists(self._source):
                raise FileNotFoundError(f"{self.name}: no such file")
            if not os.path.isfile(self._source):
                raise ValueError(
                    f"{self.name}: must be a regular file, not a pipe, folder or device"
                )
        else:
            self._source, self.name = file, "file object"
        self._size_changed = False
        if is_tar(self._source):  # FFmpeg would take its JPEGs for a video, in the tar's order
            raise ValueError(f"{self.name}: a tar, not a video: open_frames reads images in one")
        with Decoder(self._source) as decoder:
            container, stream = decoder.container, decoder.stream
            packets = demux(container, stream)
            self._packets = PacketIndex(packets, container, stream, import_av().FFmpegError)
            average_rate, guessed_rate = stream.average_rate, stream.guessed_rate
        if self._packets.encrypted:
            raise ValueError(
                f"{self.name}: the video is encrypted, and cannot be read without its key"
            )

        self._index = self._index_from_timestamps() or self._index_from_decoding()
        if not self._index.length:
            raise ValueError(
                f"{self.name}: no frame of video can be decoded from this file; accepted are "
                f"{RGB_LAYOUTS}"
            )
        likely_rate = guessed_rate if self._index.times is None else average_rate
        rate = likely_rate or guessed_rate or average_rate
        self.fps = float(rate) if rate else None
        self._warn_if_truncated()

    def __len__(self) -> int:
        return self._index.length

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds from the first frame to each, ascending, float64 (frames,).

        Only where timestamps are wrong, a constant frame rate is assumed.

        Raises:
            ValueError: for a file with neither timestamps nor a frame rate.
        """
        times = self._index.times
        if times is not None:
            seconds: NDArray[np.float64] = times - times[0]
            return seconds
        if self.fps:
            return np.arange(len(self)) / self.fps
        raise ValueError(f"{self.name}: neither timestamps nor a frame rate can be used")

    def index_at(self, seconds: float) -> int:
        """Return the index of the frame that is shown at a time, by timestamps.

        Args:
            seconds: time since the first frame, at least 0; after the end, the last frame is shown.

        Returns:
            Frame index. Only where timestamps are wrong, a constant frame rate is assumed.

        Raises:
            ValueError: for a negative time, or a file with neither timestamps nor a frame rate.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds must be at least 0, got {seconds!r}")
        # Timestamps are rounded to ticks (in Matroska 1 ms): exact times must not miss them.
        tick = self._packets.tick
        rounded = self._index.times is not None and tick * (self.fps or 0) < 0.2
        tolerance = tick / 2 if rounded else 1e-6
        return int(np.searchsorted(self.times, seconds + tolerance, side="right")) - 1

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        waiting = deque(indices)  # what one way of reading has yielded, the next does not read
        if any(self._index.seek_point_before(index) for index in indices):
            try:
                yield from self._read_with_seeks(waiting)
                return
            except UnexpectedFrameError as error:
                logger.info("%s: decoded from its start, because %s", self.name, error)
        try:
            yield from self._read_from_start(waiting)
        except UnexpectedFrameError:
            counted = self._index_from_decoding()
            # If no frame is lost, the timestamps were wrong.
            complete = counted.length == len(self)
            self._index = counted if complete else replace(self._index, damaged=True)
            yield from self._read_from_start(waiting)

    def _read_with_seeks(self, waiting: deque[int]) -> Iterator[tuple[int, Tensor]]:
        """Decode as few frames as possible; raise `UnexpectedFrameError` unless all are right."""
        seeks, count = 0, len(waiting)
        with Decoder(self._source, self._packets) as decoder:
            frames = self._check_frames(decoder, 0)
            while waiting:
                start = self._index.seek_point_before(waiting[0])
                if start > decoder.next_packet:
                    decoder.seek(start)
                    seeks += 1
                    frames = self._check_frames(decoder, start)
                for index, frame in frames:
                    if index == waiting[0]:
                        yield waiting.popleft(), self._to_rgb(decoder, frame)
                        break
                else:
                    raise UnexpectedFrameError(f"frame {waiting[0]} is missing")
            self._log_work(count, decoder.decoded, seeks)

    def _check_frames(self, decoder: Decoder, start: int) -> Iterator[tuple[int, Any]]:
        """Yield index and frame from a packet on; raise `UnexpectedFrameError` at a gap."""
        first = max(int(self._index.frame_of_packet[start]), 0)
        expected, last = first, None
        for number, frame in decoder.frames():
            index = self._index.frame_in(number)
            if index < first and expected == first:
                continue  # of an open group of pictures: shown before its key frame, not decodable
            if start and expected == first and not (index == first and frame.key_frame):
                points = self._index.seek_points
                self._index = replace(self._index, seek_points=points[points != start])
                raise UnexpectedFrameError(f"packet {start} is wrongly marked as a key frame")
            if index != expected or frame.is_corrupt:
                raise UnexpectedFrameError(f"frame {expected} is damaged or out of order")
            if last is not None:
                yield expected - 1, last
            expected, last = expected + 1, frame  # held back until the next one confirms the order
        if expected < len(self):
            raise UnexpectedFrameError(f"frame {expected} is missing")
        if last is not None:
            yield expected - 1, last

    def _read_from_start(self, waiting: deque[int]) -> Iterator[tuple[int, Tensor]]:
        """Decode from the start of the file; raise `UnexpectedFrameError` at unknown damage.

        After damage a frame may come late, and those after it are held back.
        """
        shown, last, lost, count = -1, None, 0, len(waiting)
        wanted, decoded, substitutes = set(waiting), dict[int, Any](), dict[int, Any]()

        def finished(end: float) -> Iterator[tuple[int, Tensor]]:
            """Yield the frames that are decoded, or that are lost since they come before `end`."""
            nonlocal lost
            while waiting and (waiting[0] in decoded or waiting[0] < end):
                index = waiting.popleft()
                lost += index not in decoded
                if self._strict and (index not in decoded or decoded[index].is_corrupt):
                    raise ValueError(f"{self.name}: frame {index} (from 0) cannot be decoded")
                substitute = substitutes.pop(index, last)
                yield index, self._to_rgb(decoder, decoded.pop(index, substitute))

        with Decoder(self._source) as decoder:
            for number, frame in decoder.frames():
                index = shown + 1 if self._index.counted else self._index.frame_in(number)
                if index != shown + 1 and not self._index.damaged:
                    raise UnexpectedFrameError(f"frame {index} follows frame {shown}")
                for skipped in wanted.intersection(range(shown + 1, index)):
                    substitutes[skipped] = frame if last is None else last
                if index in wanted:
                    decoded[index] = frame
                if index > shown:
                    shown, last = index, frame
                yield from finished(shown - _MAX_REORDER_DELAY)
                if not waiting:
                    break
            if waiting and last is None:
                raise ValueError(f"{self.name}: no frame of video can be decoded from this file")
            yield from finished(math.inf)
            self._log_work(count, decoder.decoded, 0)
        if lost:
            logger.warning(
                "%s: %d of %d frames cannot be decoded, and show the frame before them",
                self.name, lost, count,
            )  # fmt: skip

    def _to_rgb(self, decoder: Decoder, frame: Any) -> Tensor:
        """Convert a frame to uint8 (3, H, W), in the size of the first one."""
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

    def _log_work(self, read: int, decoded: int, seeks: int) -> None:
        logger.debug("%s: %d frames read, %d decoded, %d seeks", self.name, read, decoded, seeks)

    def _index_from_timestamps(self) -> FrameIndex | None:
        """Return the index by timestamps, None unless decoding the first frames confirms it."""
        index = self._packets.index_by_timestamps()
        if index is None:
            return None
        try:
            numbers, failed = self._decode_numbers(self._packets, _NUM_CHECKED_FRAMES)
        except UnexpectedFrameError:
            return None
        frames = index.frame_of_packet[numbers]
        if frames.tolist() == list(range(min(_NUM_CHECKED_FRAMES, index.length))):
            return replace(index, damaged=failed > 0)
        # Frames lost to damage keep their indices, and some of those after them come late. Missing
        # frames are damage if packets failed, or if the codec never leaves a frame out.
        if not frames.size or frames.min() < 0:
            return None
        in_order = frames[0] == 0 and (np.diff(frames) > 0).all()
        if failed or (in_order and not self._packets.may_skip_frames):
            return replace(index, damaged=True)
        return None

    def _index_from_decoding(self) -> FrameIndex:
        """Decode the whole file, and return the index of the frames that come out."""
        logger.info("%s: decoded once to count its frames", self.name)
        numbers, _ = self._decode_numbers(None, None)
        return replace(self._packets.index_frames(numbers), counted=True)

    def _decode_numbers(
        self, expected: PacketIndex | None, count: int | None
    ) -> tuple[NDArray[np.int64], int]:
        """Return the packet numbers of the first `count` frames, and how many packets failed.

        A number is -1 where the decoder lost it; a `count` of None means all frames.
        """
        numbers: list[int] = []
        with Decoder(self._source, expected) as decoder:
            for number, frame in islice(decoder.frames(), count):
                if not numbers:
                    self._size = frame.width, frame.height
                # A file that has grown since has packets without an entry in the index.
                numbers.append(-1 if number is None or number >= len(self._packets) else number)
            return np.array(numbers, dtype=np.int64), decoder.failed

    def _warn_if_truncated(self) -> None:
        declared = self._packets.declared_frames
        if declared > len(self._packets):
            logger.warning(
                "%s: its header announces %d frames, but %d can be shown",
                self.name, declared, len(self),
            )  # fmt: skip
        elif not declared and self._index.times is not None:
            end = self._packets.declared_end
            missing = end - float(self._index.times[-1])
            if missing > max(1.0, 0.05 * end):
                logger.warning(
                    "%s: its video ends %.1f seconds before the %.1f that its header announces",
                    self.name, missing, end,
                )  # fmt: skip
