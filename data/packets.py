"""Packets of a video, and its frames as far as the packets tell without decoding."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameIndex", "PacketIndex"]

_SEEKABLE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers where seeking to a timestamp arrives at its packet, or before it."""

_TIMESTAMPED_FORMATS = (*_SEEKABLE_FORMATS, "mpegts", "flv", "avi", "asf", "mpeg", "ogg")
"""Containers that store presentation times or, without B-frames, at least decoding times."""

_ONE_FRAME_PER_PACKET_CODECS = (
    *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video"),
    *("flv1", "h263", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "vp6f"),
)
"""Codecs with one frame in each packet, in these containers; VP8 may mark it as not shown."""

_NO_SKIPPED_FRAMES_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg2video", "mpeg1video")
"""Those of them where a missing frame means damage; MPEG-4 and VP8 may leave frames out."""

_STATEFUL_SIDE_DATA = {"palette", "new_extradata"}
"""Side data on which all later frames depend."""

_UNKNOWN = np.iinfo(np.int64).min
"""In the place of a timestamp or file position that is not known."""


@dataclass(frozen=True)
class FrameIndex:
    """Frames in presentation order, and the packets that they are in.

    Attributes:
        length: number of frames.
        frame_of_packet: int64, frame index of each packet, -1 for one without a frame to show.
        seek_points: int64, packets that decoding can start at.
        times: float64, seconds at which each frame is shown; None where timestamps are wrong.
        counted: whether it comes from decoding the whole file, and not from timestamps.
        damaged: whether some of the frames cannot be decoded.
    """

    length: int
    frame_of_packet: NDArray[np.int64]
    seek_points: NDArray[np.int64]
    times: NDArray[np.float64] | None
    counted: bool = False
    damaged: bool = False

    def frame_in(self, packet: int | None) -> int:
        """Return the index of the frame in a packet, -1 if there is none to show."""
        if packet is None or not 0 <= packet < len(self.frame_of_packet):
            return -1
        return int(self.frame_of_packet[packet])

    def seek_point_before(self, frame: int) -> int:
        """Return the last packet from which decoding gives a frame; 0 is the start of the file."""
        frames = self.frame_of_packet[self.seek_points]
        position = int(np.searchsorted(frames, frame, side="right")) - 1
        return int(self.seek_points[position]) if position >= 0 else 0


class PacketIndex:
    """The packets of a video in file order, by number.

    Args:
        packets: the packets of a stream; an error among them ends the index.
        container: their PyAV container.
        stream: their PyAV stream.
        errors: what reading packets raises.

    Attributes:
        intact: whether the packets go on to the end of the file.
        may_skip_frames: whether an undamaged packet may have no frame to show.
        encrypted: whether packets are encrypted.
        sizes: int64, bytes.
        tick: seconds between two timestamps.
        declared_frames: number of frames that the file's header declares, 0 if none.
        declared_end: end of the video in seconds that the header declares, 0 if none.
    """

    def __init__(
        self, packets: Iterable[Any], container: Any, stream: Any, errors: type[Exception]
    ) -> None:
        codec = stream.codec_context.codec
        has_hidden = codec.canonical_name == "vp8"
        rows: list[tuple[int, ...]] = []
        side_data: set[str] = set()
        self.intact = True
        try:
            for packet in packets:
                times = (packet.pts, packet.dts, packet.pos)
                shown = not packet.is_discard  # set where an edit list cuts the frame off
                if has_hidden and shown:
                    shown = bool(memoryview(packet)[0] & 0x10)  # the bit "show_frame"
                flags = (packet.is_keyframe, shown, packet.is_corrupt, packet.size)
                rows.append((*(_UNKNOWN if time is None else time for time in times), *flags))
                types = {data.data_type for data in packet.iter_sidedata()}
                side_data |= types - {"new_extradata"} if len(rows) == 1 else types
        except errors:
            self.intact = False
        columns = np.array(rows, dtype=np.int64).reshape(-1, 7).T
        self._pts, self._dts, self._positions = columns[:3]
        self._keys, self._shown, damaged = columns[3:6].astype(bool)
        self.sizes = columns[6]
        self.encrypted = "encryption_info" in side_data
        self.intact = self.intact and not damaged[-1:].any()  # damaged where a file is truncated
        self._keys &= ~damaged
        self.tick = float(stream.time_base)
        self.may_skip_frames = codec.canonical_name not in _NO_SKIPPED_FRAMES_CODECS
        if not stream.codec_context.has_b_frames:  # AVI has only decoding times
            self._pts = np.where(self._pts == _UNKNOWN, self._dts, self._pts)

        self._seekable = container.format.name in _SEEKABLE_FORMATS
        self._intra_only = bool(getattr(codec, "intra_only", False))
        self._one_frame_each = self._intra_only or (
            container.format.name in _TIMESTAMPED_FORMATS
            and codec.canonical_name in _ONE_FRAME_PER_PACKET_CODECS
        )
        # Seeking would skip side data that later frames need.
        self._has_state = bool(side_data & _STATEFUL_SIDE_DATA)
        self.declared_frames, self.declared_end = self._read_header(container, stream)

    def __len__(self) -> int:
        return int(self.sizes.size)

    def index_by_timestamps(self) -> FrameIndex | None:
        """Return the frames in the order of their timestamps, None where only decoding tells it."""
        shown = np.flatnonzero(self._shown)
        if not self.intact or not self._one_frame_each or not shown.size:
            return None
        if self._intra_only:
            return self.index_frames(shown)
        pts = self._pts[shown]
        if not self._seekable and ((pts == _UNKNOWN).any() or np.unique(pts).size < pts.size):
            return None
        return self.index_frames(shown[np.argsort(pts, kind="stable")])

    def index_frames(self, packets: NDArray[np.int64]) -> FrameIndex:
        """Return the frames in a given order.

        Args:
            packets: int64, packet number of each frame, -1 where it is not known.
        """
        indices = np.full(len(self), -1, dtype=np.int64)
        known = np.flatnonzero(packets >= 0)[::-1]  # the first of several frames in a packet wins
        indices[packets[known]] = known
        return FrameIndex(packets.size, indices, self._seek_points(indices), self._times(packets))

    def _seek_points(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the packets that decoding can start at, given the frame index of each packet.

        These are the key frames where all packets before are shown earlier and all packets after
        are shown later. The frames that follow a key frame at once and are shown before it (an open
        group of pictures) do not count.
        """
        if self._has_state:
            return np.empty(0, dtype=np.int64)
        latest_before = np.maximum.accumulate(np.concatenate(([-1], indices)))
        shown = np.where(indices < 0, len(self), indices)
        earliest_from = np.minimum.accumulate(np.concatenate((shown, [len(self)]))[::-1])[::-1]
        keys = self._keys | self._intra_only
        candidates: list[int] = np.flatnonzero(keys & (indices >= 0)).tolist()
        points: list[int] = []
        for number in candidates:
            following = number + 1
            while following < len(self) and indices[following] < indices[number]:
                following += 1
            if latest_before[number] < indices[number] < earliest_from[following]:
                points.append(number)
        return np.array(points, dtype=np.int64)

    def _times(self, packets: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return the time in seconds at which each frame is shown, None if times are wrong."""
        pts = self._pts[packets]
        if (packets < 0).any() or (pts == _UNKNOWN).any() or (np.diff(pts) <= 0).any():
            return None
        seconds: NDArray[np.float64] = pts * self.tick
        return seconds

    def seek_time(self, number: int) -> int | None:
        """Return the timestamp to seek to for a packet, None where packets are skipped instead."""
        # Containers index decoding times; where those are guessed, a seek may arrive earlier.
        time = self._dts[number] if self._dts[number] != _UNKNOWN else self._pts[number]
        return int(time) if self._seekable and time != _UNKNOWN else None

    def matches(self, number: int, packet: Any) -> bool:
        """Return whether a packet can be the one of this number."""
        return number < len(self) and packet.size == int(self.sizes[number])

    def find(self, packet: Any) -> int | None:
        """Return a packet's number by its file position and size, None if that is ambiguous."""
        if packet.pos is None:
            return None
        same = np.flatnonzero((self._positions == packet.pos) & (self.sizes == packet.size))
        return int(same[0]) if same.size == 1 else None

    def _read_header(self, container: Any, stream: Any) -> tuple[int, float]:
        """Return `declared_frames` and `declared_end`."""
        name = container.format.name
        frames: int = stream.frames
        if name.startswith("mov") and frames:
            frames = len(stream.index_entries)  # without what an edit list cuts off
        if name == "avi":  # which counts dropped frames too, and has no packets for them
            last_tick = max(int(self._dts.max(initial=0)), 0)
            frames -= max(last_tick + 1 - len(self), 0)
        # A duration is that of the longest stream, and other containers only estimate it.
        if len(container.streams) > 1 or name not in ("matroska,webm", "flv"):
            return frames, 0.0
        # Counted from zero, or from the first packet where that is earlier.
        end = (container.duration or 0) + min(container.start_time or 0, 0)
        return frames, end / 1_000_000
