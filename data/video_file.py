"""Frames of a video file, read with PyAV: the same ones whether it seeks or not.

Frame i is the i-th frame that comes out when the file is decoded from its start, which is
presentation order, whatever its timestamps say. Timestamps only ever save work: see `VideoFile`.
Edit lists and the rotation that phones record (multiples of 90 degrees, not mirrored) are applied;
pixels are assumed to be square; colours follow the matrix that the stream names.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.frames import RGB_LAYOUTS, FrameSource

__all__ = ["VideoFile"]

logger = logging.getLogger(__name__)

_TIMESTAMPED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers that store when each frame is shown, rather than leaving it to be guessed."""

_ONE_FRAME_PER_PACKET = ("h264", "hevc", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video")
"""Codecs whose packets, in these containers, each hold one frame to show (VP8's may hide it)."""

_NOT_VIDEO = ("concat", "dash", "hls", "image2", "imf", "sdp", "tty")
"""What FFmpeg also opens: lists of other files, single pictures, and text drawn as pictures."""

_CHECKED_FRAMES = 32
"""How many frames must be decoded in the order of their timestamps before these are believed."""

_UNKNOWN = np.iinfo(np.int64).min
"""Stands for a timestamp or a file position that is not known."""


class VideoFile(FrameSource):
    """A video file, read with PyAV: its first video stream that is not a cover picture.

    Opening reads the packets once without decoding them. Where the container states when each
    frame is shown, the number and order of the frames follow from that, and are checked by decoding
    the first ones. Where timestamps are missing, wrong or guessed (AVI, raw streams), or the end is
    damaged, the file is decoded once to count its frames. So open a file once to read many clips
    from it; it holds no file handle and can be pickled.

    Reading jumps to the last key frame before a frame wherever that decodes less than going on
    does. Packets are numbered, and a frame carries the number of its packet out of the decoder. So
    it is noticed when a jump does not give the frames that decoding from the start gives (wrong key
    frame marks, intra refresh) or when the timestamps lied, and the file is decoded from its start.
    There, a frame that cannot be decoded shows the one before it, as in a player. Only what FFmpeg
    paints over damage inside a frame may depend on where decoding began.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no frame of video can be decoded from it.
        ImportError: if PyAV is not installed.
    """

    channels = 3
    _frame_of_packet: NDArray[np.int64]
    _starts: NDArray[np.int64]
    _times: NDArray[np.float64] | None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = str(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.name}: no such file")
        with _Decoder(self.path) as decoder:
            stream = decoder.stream
            self._packets = _Packets(decoder.container, stream)
            announced_frames: int = stream.frames
            announced_seconds = (decoder.container.duration or 0) / 1_000_000
            average_rate, guessed_rate = stream.average_rate, stream.guessed_rate

        order = self._packets.frame_order()
        self._counted = order is None or not self._begins_with(order)
        if order is None or self._counted:
            order = self._decoded_order()
        if not order.size:
            raise ValueError(
                f"{self.name}: no frame of video can be decoded from this file; accepted are "
                f"{RGB_LAYOUTS}"
            )
        self._set_order(order)
        timed = self._times is not None
        rate = (average_rate if timed else guessed_rate) or guessed_rate or average_rate
        self.fps = float(rate) if rate else None
        self._warn_if_cut_off(announced_frames, announced_seconds)

    def __len__(self) -> int:
        return self._length

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
        if self._times is not None:
            # Timestamps are rounded to ticks (in Matroska 1 ms): exact times must not miss them.
            tick = self._packets.tick
            tolerance = tick / 2 if tick * (self.fps or 0) < 0.2 else 1e-6
            index = int(np.searchsorted(self._times, seconds + tolerance, side="right")) - 1
        elif self.fps:
            index = int(min((seconds + 1e-6) * self.fps, self._length))
        else:
            raise ValueError(f"{self.name}: neither timestamps nor a frame rate can be used")
        return min(index, self._length - 1)

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        if any(self._start_before(index) for index in indices):
            try:
                yield from self._frames_from_key_frames(indices)
                return
            except _UnexpectedFrame as error:
                logger.info("%s: decoded from its start, because %s", self.name, error)
        try:
            yield from self._frames_from_start(indices)
        except _UnexpectedFrame:
            order = self._decoded_order()
            if order.size == self._length:  # all are there: it was the timestamps that lied
                self._set_order(order)
            self._counted = True
            yield from self._frames_from_start(indices)

    def _frames_from_key_frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Decodes as little as possible; raises `_UnexpectedFrame` unless every frame is right."""
        jumps = 0
        with _Decoder(self.path, self._packets) as decoder:
            frames = self._expected_frames(decoder, 0)
            for wanted in indices:
                start = self._start_before(wanted)
                if start > decoder.next_packet:
                    decoder.jump(start)
                    jumps += 1
                    frames = self._expected_frames(decoder, start)
                for index, frame in frames:
                    if index == wanted:
                        yield index, decoder.rgb(frame)
                        break
                else:
                    raise _UnexpectedFrame(f"frame {wanted} is missing")
            self._report(len(indices), decoder.decoded, jumps)

    def _expected_frames(self, decoder: "_Decoder", start: int) -> Iterator[tuple[int, Any]]:
        """Index and frame from a starting packet on, without gaps, else `_UnexpectedFrame`."""
        first = max(int(self._frame_of_packet[start]), 0)
        expected, last = first, None
        for number, frame in decoder.frames():
            index = self._index_of(number)
            if index < first and expected == first:
                continue  # stored behind the key frame, shown before it, and in need of the skipped
            if start and expected == first and not (index == first and frame.key_frame):
                self._starts = self._starts[self._starts != start]  # not to be tried again
                raise _UnexpectedFrame(f"packet {start} is wrongly marked as a key frame")
            if index != expected or frame.is_corrupt:
                raise _UnexpectedFrame(f"frame {expected} did not come out sound and in its place")
            if last is not None:
                yield expected - 1, last
            expected, last = expected + 1, frame  # held back until the next one confirms the order
        if last is not None:
            yield expected - 1, last

    def _frames_from_start(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Decodes from the start of the file, and once its frames are counted, past damage."""
        waiting, shown, last, lost = deque(indices), -1, None, 0
        with _Decoder(self.path) as decoder:
            for number, frame in decoder.frames():
                index = self._index_of(number)
                if index != shown + 1 and not self._counted:
                    raise _UnexpectedFrame(f"frame {index} came out after frame {shown}")
                shown = max(index, shown + 1)
                while waiting and waiting[0] < shown:
                    lost += 1
                    yield waiting.popleft(), decoder.rgb(frame if last is None else last)
                if waiting and waiting[0] == shown:
                    yield waiting.popleft(), decoder.rgb(frame)
                if not waiting:
                    break
                last = frame
            if waiting and last is None:
                raise ValueError(f"{self.name}: no frame of video can be decoded from this file")
            for wanted in waiting:
                lost += 1
                yield wanted, decoder.rgb(last)
            self._report(len(indices), decoder.decoded, jumps=0)
        if lost:
            logger.warning(
                "%s: %d of %d frames cannot be decoded, and show the frame before them",
                self.name, lost, len(indices),
            )  # fmt: skip

    def _report(self, read: int, decoded: int, jumps: int) -> None:
        logger.debug("%s: %d frames read, %d decoded, %d jumps", self.name, read, decoded, jumps)

    def _start_before(self, index: int) -> int:
        """The packet from which decoding gives the frame with the least work; 0 is the start."""
        starts = self._starts
        position = int(np.searchsorted(self._frame_of_packet[starts], index, side="right")) - 1
        return int(starts[position]) if position >= 0 else 0

    def _index_of(self, number: int | None) -> int:
        """Frame index of a packet, -1 for one without a frame to show."""
        if number is None or not 0 <= number < len(self._packets):
            return -1
        return int(self._frame_of_packet[number])

    def _begins_with(self, order: NDArray[np.int64]) -> bool:
        """Whether the decoder gives the first frames in this order."""
        head: list[int | None] = order[:_CHECKED_FRAMES].tolist()
        try:
            with _Decoder(self.path, self._packets) as decoder:
                numbers = [number for number, _ in islice(decoder.frames(), len(head))]
        except _UnexpectedFrame:
            return False
        return numbers == head

    def _set_order(self, order: NDArray[np.int64]) -> None:
        """Takes over the packet number of every frame."""
        self._length = int(order.size)
        self._frame_of_packet = self._packets.frame_indices(order)
        self._starts = self._packets.starting_points(self._frame_of_packet)
        self._times = self._packets.times(order)

    def _decoded_order(self) -> NDArray[np.int64]:
        """The packet number of every frame that can be decoded, -1 where the decoder lost it."""
        logger.info("%s: decoded once to count its frames", self.name)
        with _Decoder(self.path) as decoder:
            numbers = [-1 if number is None else number for number, _ in decoder.frames()]
        return np.array(numbers, dtype=np.int64)

    def _warn_if_cut_off(self, announced_frames: int, announced_seconds: float) -> None:
        if announced_frames > self._length + int(self._packets.discarded.sum()):
            logger.warning(
                "%s: its header announces %d frames, but %d can be shown",
                self.name, announced_frames, self._length,
            )  # fmt: skip
        elif not announced_frames and self._times is not None:
            end = float(self._times[-1])
            if announced_seconds - end > max(1.0, 0.05 * announced_seconds):
                logger.warning(
                    "%s: its video ends after %.1f of the %.1f seconds that its header announces",
                    self.name, end, announced_seconds,
                )  # fmt: skip


class _UnexpectedFrame(Exception):  # noqa: N818 - never leaves this module: a reason to start over
    """Decoding does not give the frames that were expected, or not in the expected order."""


class _Packets:
    """What reading a video's packets without decoding them tells, in file order.

    Attributes:
        intact: whether reading ended where the file does, with no packet marked as damaged.
        discarded: bool, packets that the file says to decode and not to show (edit lists).
        sizes: int64, bytes.
        tick: seconds between two timestamps.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        av = _import_av()
        rows: list[tuple[int, ...]] = []
        self.intact = True
        try:
            for packet in container.demux(stream):
                if packet.size:  # the others are dropped frames of AVI, and the end of the file
                    times = (packet.pts, packet.dts, packet.pos)
                    flags = (packet.is_keyframe, packet.is_discard, packet.is_corrupt, packet.size)
                    rows.append((*(_UNKNOWN if time is None else time for time in times), *flags))
        except av.FFmpegError:
            self.intact = False
        columns = np.array(rows, dtype=np.int64).reshape(-1, 7).T
        self._pts, self._dts, self._positions = columns[:3]
        self._keys, self.discarded, damaged = columns[3:6].astype(bool)
        self.sizes = columns[6]
        self.intact = self.intact and not damaged.any()
        self._keys &= ~damaged
        self.tick = float(stream.time_base)

        codec = stream.codec_context.codec
        self._timestamped = container.format.name in _TIMESTAMPED_CONTAINERS
        self._intra_only = bool(getattr(codec, "intra_only", False))
        self._one_frame_each = self._intra_only or (
            self._timestamped and codec.canonical_name in _ONE_FRAME_PER_PACKET
        )

    def __len__(self) -> int:
        return int(self.sizes.size)

    def frame_order(self) -> NDArray[np.int64] | None:
        """Packet numbers in presentation order, None where only decoding can tell."""
        shown = np.flatnonzero(~self.discarded)
        if not self.intact or not self._one_frame_each or not shown.size:
            return None
        if self._intra_only:
            return shown
        return shown[np.argsort(self._pts[shown], kind="stable")]

    def frame_indices(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frame index of each packet, -1 for one without a frame to show."""
        indices = np.full(len(self), -1, dtype=np.int64)
        known = np.flatnonzero(order >= 0)[::-1]  # of several frames in a packet, the first counts
        indices[order[known]] = known
        return indices

    def starting_points(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the packets that decoding can start at, given the frame index of each packet.

        Those are key frames such that whatever comes in front of them in the file is shown earlier,
        and whatever comes behind them later, except for the frames directly behind them: these are
        shown earlier still, and belong to the group in front (an open group of pictures).
        """
        latest_before = np.maximum.accumulate(np.concatenate(([-1], indices)))
        shown = np.where(indices < 0, len(self), indices)
        earliest_from = np.minimum.accumulate(np.concatenate((shown, [len(self)]))[::-1])[::-1]
        starts: list[int] = []
        candidates: list[int] = np.flatnonzero(
            (self._keys | self._intra_only) & (indices >= 0)
        ).tolist()
        for number in candidates:
            behind = number + 1
            while behind < len(self) and indices[behind] < indices[number]:
                behind += 1
            if latest_before[number] < indices[number] < earliest_from[behind]:
                starts.append(number)
        return np.array(starts, dtype=np.int64)

    def times(self, order: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Seconds since the first frame at which each one is shown, None if they are not sound."""
        pts = self._pts[order]
        if (order < 0).any() or (pts == _UNKNOWN).any() or (np.diff(pts) <= 0).any():
            return None
        seconds: NDArray[np.float64] = (pts - pts[0]) * self.tick
        return seconds

    def seek_time(self, number: int) -> int | None:
        """Timestamp to seek to for a packet; None to skip packets instead, which always works."""
        # Containers index decoding times; where those are guessed, a seek may land earlier.
        time = self._dts[number] if self._dts[number] != _UNKNOWN else self._pts[number]
        return int(time) if self._timestamped and time != _UNKNOWN else None

    def has(self, number: int, packet: Any) -> bool:
        """Whether a packet can be the one of this number."""
        return number < len(self) and packet.size == int(self.sizes[number])

    def number_of(self, packet: Any) -> int | None:
        """Number of a packet met after seeking, recognised by its place in the file and size."""
        if packet.pos is None:
            return None
        same = np.flatnonzero((self._positions == packet.pos) & (self.sizes == packet.size))
        return int(same[0]) if same.size == 1 else None


class _Decoder:
    """One pass over a video: packets in file order go in, frames in presentation order come out.

    Packets that cannot be decoded are passed over.

    Args:
        path: the video file.
        expected: the packets it should have; where others come, `_UnexpectedFrame` is raised.

    Attributes:
        next_packet: number of the packet that is decoded next.
        decoded: number of frames that came out so far.
    """

    def __init__(self, path: Path, expected: _Packets | None = None) -> None:
        av = _import_av()
        self._errors: type[Exception] = av.FFmpegError
        self._converter = av.video.reformatter.VideoReformatter()
        self.container, self.stream = _open_video(path)
        self._expected = expected
        self._packets = _demuxed(self.container, self.stream)
        self.next_packet = 0
        self.decoded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.container.close()

    def frames(self) -> Iterator[tuple[int | None, Any]]:
        """Packet number and frame, from the next packet to the end of the file."""
        for packet in self._packets:
            number, self.next_packet = self.next_packet, self.next_packet + 1
            if self._expected is not None and not self._expected.has(number, packet):
                raise _UnexpectedFrame(f"packet {number} is another one than before")
            # Decoders carry timestamps through reordering, and unlike the file's these are sound.
            packet.pts = packet.dts = number
            yield from self._decode(packet)
        yield from self._decode(None)

    def rgb(self, frame: Any) -> Tensor:
        """uint8 tensor (3, H, W), turned upright."""
        # With threads of its own, the scaler would hang a process forked from this one.
        pixels = self._converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        quarter_turns, rest = divmod(frame.rotation, 90)  # counter-clockwise
        if rest == 0:
            pixels = np.rot90(pixels, quarter_turns)
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)

    def jump(self, number: int) -> None:
        """Makes a packet ahead the next one, and forgets the frames that are still to come out."""
        assert self._expected is not None
        time = self._expected.seek_time(number)
        if time is not None:
            try:
                self.container.seek(time, stream=self.stream)
            except self._errors as error:
                raise _UnexpectedFrame(f"packet {number} cannot be sought ({error})") from error
            self._packets = _demuxed(self.container, self.stream)
            landed = next(self._packets, None)
            found = None if landed is None else self._expected.number_of(landed)
            if found is None or found > number:
                raise _UnexpectedFrame(f"packet {number} cannot be found")
            self._packets, self.next_packet = chain([landed], self._packets), found
        for _ in islice(self._packets, number - self.next_packet):
            self.next_packet += 1
        self.stream.codec_context.flush_buffers()

    def _decode(self, packet: Any) -> list[tuple[int | None, Any]]:
        try:
            frames = self.stream.codec_context.decode(packet)
        except self._errors:
            return []
        self.decoded += len(frames)
        return [(frame.pts, frame) for frame in frames]


def _demuxed(container: Any, stream: Any) -> Iterator[Any]:
    """Packets that hold data, up to a damaged end, of which `_Packets` has taken note.

    No method: a generator that holds its `_Decoder`, which holds it, would keep the codec's threads
    and frames until the garbage collector runs.
    """
    with suppress(_import_av().FFmpegError):
        for packet in container.demux(stream):
            if packet.size:  # an empty one would end decoding
                yield packet


def _open_video(path: Path) -> tuple[Any, Any]:
    """A PyAV container and its video stream."""
    av = _import_av()
    # Titles in any encoding: PyAV 19 takes them, and has no option; before, it refused the file.
    lenient = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        # "file:" and the white list keep names from being taken for network addresses.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, **lenient)
    except av.FFmpegError as error:
        raise ValueError(
            f"{path}: not a video file that can be read ({error.strerror}); accepted are "
            f"{RGB_LAYOUTS}"
        ) from error
    container_name = container.format.name
    cover = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        picture = container_name in _NOT_VIDEO or container_name.endswith("_pipe")
        if not (picture or stream.disposition & cover or stream.codec_context is None):
            # Starting threads takes longer than most reads, and data loaders have processes.
            stream.codec_context.thread_count = 1
            return container, stream
    container.close()
    raise ValueError(
        f"{path}: a file of kind {container_name!r} without a video stream that can be decoded; "
        f"accepted are {RGB_LAYOUTS}"
    )


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "reading video files needs PyAV: install the package `av` (pip install av)"
        ) from error
    return av
