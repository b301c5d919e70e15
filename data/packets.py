"""What the packets of a video tell of its frames, without decoding them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PacketIndex"]

_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers in which seeking to a timestamp lands at its packet, or before."""

_TIMESTAMPED = (*_SEEKABLE, "mpegts", "flv", "avi", "asf", "mpeg", "ogg")
"""Containers that store when each frame is shown or, without B-frames, in which order."""

_ONE_FRAME_PER_PACKET = (
    *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video"),
    *("flv1", "h263", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "vp6f"),
)
"""Codecs whose packets, in these containers, each hold one frame to show (VP8's may hide it)."""

_EVERY_PACKET_SHOWS = ("h264", "hevc", "vp9", "av1", "mpeg2video", "mpeg1video")
"""Codecs of these in which a frame that does not come out is damaged; MPEG-4 may skip one."""

_STATE = {"palette", "new_extradata"}
"""Side data of packets on which all later frames depend."""

_UNKNOWN = np.iinfo(np.int64).min
"""Stands for a timestamp or a file position that is not known."""


class PacketIndex:
    """What reading a video's packets tells, in file order.

    Args:
        packets: the packets of a stream; an error among them ends the index.
        container: their PyAV container.
        stream: their PyAV stream.
        errors: what reading packets raises.

    Attributes:
        intact: whether reading ended where the file does.
        hides_frames: whether a sound packet may have no frame to show.
        last_tick: the latest decoding time; 0 if none is known.
        encrypted: whether packets are.
        sizes: int64, bytes.
        tick: seconds between two timestamps.
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
                shown = not packet.is_discard  # otherwise an edit list says to decode it only
                if has_hidden and shown:
                    shown = bool(memoryview(packet)[0] & 0x10)  # the bit "show_frame"
                flags = (packet.is_keyframe, shown, packet.is_corrupt, packet.size)
                rows.append((*(_UNKNOWN if time is None else time for time in times), *flags))
                kinds = {data.data_type for data in packet.iter_sidedata()}
                side_data |= kinds - {"new_extradata"} if len(rows) == 1 else kinds
        except errors:
            self.intact = False
        columns = np.array(rows, dtype=np.int64).reshape(-1, 7).T
        self._pts, self._dts, self._positions = columns[:3]
        self._keys, self._shown, damaged = columns[3:6].astype(bool)
        self.sizes = columns[6]
        self.encrypted = "encryption_info" in side_data
        self.intact = self.intact and not damaged[-1:].any()  # the file is cut off
        self._keys &= ~damaged
        self.tick = float(stream.time_base)
        self.last_tick = max(int(self._dts.max(initial=0)), 0)
        self.hides_frames = codec.canonical_name not in _EVERY_PACKET_SHOWS
        if not stream.codec_context.has_b_frames:  # AVI has decoding times alone
            self._pts = np.where(self._pts == _UNKNOWN, self._dts, self._pts)

        self._seekable = container.format.name in _SEEKABLE
        self._intra_only = bool(getattr(codec, "intra_only", False))
        self._one_frame_each = self._intra_only or (
            container.format.name in _TIMESTAMPED and codec.canonical_name in _ONE_FRAME_PER_PACKET
        )
        # Frames behind a jump would lack what the packets before it changed.
        self._has_state = bool(side_data & _STATE)

    def __len__(self) -> int:
        return int(self.sizes.size)

    def frame_order(self) -> NDArray[np.int64] | None:
        """Packet numbers in presentation order, None where only decoding can tell."""
        shown = np.flatnonzero(self._shown)
        if not self.intact or not self._one_frame_each or not shown.size:
            return None
        if self._intra_only:
            return shown
        pts = self._pts[shown]
        if not self._seekable and ((pts == _UNKNOWN).any() or np.unique(pts).size < pts.size):
            return None
        return shown[np.argsort(pts, kind="stable")]

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
        if self._has_state:
            return np.empty(0, dtype=np.int64)
        latest_before = np.maximum.accumulate(np.concatenate(([-1], indices)))
        shown = np.where(indices < 0, len(self), indices)
        earliest_from = np.minimum.accumulate(np.concatenate((shown, [len(self)]))[::-1])[::-1]
        keys = self._keys | self._intra_only
        candidates: list[int] = np.flatnonzero(keys & (indices >= 0)).tolist()
        starts: list[int] = []
        for number in candidates:
            behind = number + 1
            while behind < len(self) and indices[behind] < indices[number]:
                behind += 1
            if latest_before[number] < indices[number] < earliest_from[behind]:
                starts.append(number)
        return np.array(starts, dtype=np.int64)

    def times(self, order: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Seconds at which each frame is shown, None if they are not sound."""
        pts = self._pts[order]
        if (order < 0).any() or (pts == _UNKNOWN).any() or (np.diff(pts) <= 0).any():
            return None
        seconds: NDArray[np.float64] = pts * self.tick
        return seconds

    def seek_time(self, number: int) -> int | None:
        """Timestamp to seek to for a packet; None to skip packets instead, which always works."""
        # Containers index decoding times; where those are guessed, a seek may land earlier.
        time = self._dts[number] if self._dts[number] != _UNKNOWN else self._pts[number]
        return int(time) if self._seekable and time != _UNKNOWN else None

    def has(self, number: int, packet: Any) -> bool:
        """Whether a packet can be the one of this number."""
        return number < len(self) and packet.size == int(self.sizes[number])

    def number_of(self, packet: Any) -> int | None:
        """Number of a packet met after seeking, recognised by its place in the file and size."""
        if packet.pos is None:
            return None
        same = np.flatnonzero((self._positions == packet.pos) & (self.sizes == packet.size))
        return int(same[0]) if same.size == 1 else None
