"""Decoding with PyAV: the video stream of a file, its packets in file order, its frames."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.archives import FileView
from data.frames import RGB_LAYOUTS
from data.packets import PacketIndex

__all__ = ["Decoder", "UnexpectedFrameError", "VideoSource", "demux", "import_av", "open_video"]

VideoSource: TypeAlias = str | BinaryIO
"""A video's absolute path, or a seekable binary file object."""

_NON_VIDEO_FORMATS = (
    *("concat", "dash", "hls", "imf", "sdp", "tty"),
    *("alias_pix", "brender_pix", "fits", "ico", "image2", "txd"),
)
"""Formats that FFmpeg opens as video: lists of other files, text art, still images."""

_STILL_IMAGE_BRANDS = ("avif", "heic", "heim", "heis", "heix", "mif1", "mif2")
"""Major brands of still images in MP4's container; image sequences have others."""

_DEFAULT_STREAM_BONUS = 5_000_000
"""Pixels added to the stream marked as default when choosing one, as FFmpeg does."""

_MAX_EMPTY_READS = 100_000
"""How many reads in a row may give no packet; FFmpeg skips 64 KiB or more in each."""


class UnexpectedFrameError(Exception):
    """Decoded frames are not the expected ones, or in another order.

    `VideoFile` catches it and decodes the file from its start.
    """


class Decoder:
    """One pass over a video: packets in file order to frames in presentation order.

    Packets that cannot be decoded are skipped.

    Args:
        source: the video file.
        expected: the packets it must have; where others come, `UnexpectedFrameError` is raised.

    Attributes:
        next_packet: number of the packet to be decoded next.
        decoded: number of frames decoded so far.
        failed: number of packets so far that could not be decoded, or whose frame is corrupt.
    """

    def __init__(self, source: VideoSource, expected: PacketIndex | None = None) -> None:
        av = import_av()
        self._errors: type[Exception] = av.FFmpegError
        self._converter = av.video.reformatter.VideoReformatter()
        self.container, self.stream = open_video(source)
        self._expected = expected
        self._packets = self._demux()
        self.next_packet = self.decoded = self.failed = 0

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
        """Yield packet number and frame, from the next packet to the end of the file."""
        for packet in self._packets:
            number, self.next_packet = self.next_packet, self.next_packet + 1
            if self._expected is not None and not self._expected.matches(number, packet):
                raise UnexpectedFrameError(f"packet {number} is another one than before")
            # A decoder passes each packet's timestamp on to its frame: the number goes with it.
            packet.pts = packet.dts = number
            yield from self._decode(packet)
        yield from self._decode(None)

    def rgb(self, frame: Any, size: tuple[int, int]) -> Tensor:
        """Convert a frame to uint8 (3, H, W): scaled to `size` (width, height), then upright."""
        width, height = size
        # A scaler with threads of its own would hang a forked process.
        scaled = self._converter.reformat(frame, width, height, format="rgb24", threads=1)
        pixels = np.ascontiguousarray(_apply_display_matrix(scaled.to_ndarray(), frame))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def seek(self, number: int) -> None:
        """Skip forward to a packet, and drop the frames that the decoder still holds."""
        assert self._expected is not None
        time = self._expected.seek_time(number)
        if time is not None:
            try:
                self.container.seek(time, stream=self.stream)
            except self._errors as error:
                raise UnexpectedFrameError(f"packet {number} cannot be sought ({error})") from error
            self._packets = self._demux()
            first = next(self._packets, None)
            found = None if first is None else self._expected.find(first)
            if found is None or found > number:
                raise UnexpectedFrameError(f"packet {number} cannot be found")
            self._packets, self.next_packet = chain([first], self._packets), found
        for _ in islice(self._packets, number - self.next_packet):
            self.next_packet += 1
        self.stream.codec_context.flush_buffers()

    def _demux(self) -> Iterator[Any]:
        return _stop_at_damage(demux(self.container, self.stream), self._errors)

    def _decode(self, packet: Any) -> list[tuple[int | None, Any]]:
        try:
            frames = self.stream.codec_context.decode(packet)
        except self._errors:
            self.failed += 1
            return []
        self.decoded += len(frames)
        self.failed += any(frame.is_corrupt for frame in frames)
        return [(frame.pts, frame) for frame in frames]


def demux(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream that hold data, in file order.

    Not a method of `Decoder`: the generator and the decoder would refer to one another, and keep
    the codec's threads and frames alive until the garbage collector runs.

    Raises:
        av.FFmpegError: where the file is damaged.
    """
    av = import_av()
    empty_reads = 0
    while empty_reads < _MAX_EMPTY_READS:
        try:
            for packet in container.demux(stream):
                empty_reads = 0
                if packet.size:  # an empty one would end decoding
                    yield packet
            return
        except av.BlockingIOError:  # a hole in the file, not its end
            empty_reads += 1
        except IndexError:  # a new stream begins here, on which PyAV before 19 fails
            empty_reads = 0


def _stop_at_damage(packets: Iterator[Any], errors: type[Exception]) -> Iterator[Any]:
    """Yield packets up to a damaged end, which `PacketIndex.intact` records."""
    with suppress(errors):
        yield from packets


def _apply_display_matrix(pixels: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Rotate and flip pixels (H, W, 3) as the frame's display matrix says, if it has one.

    The matrix maps (x, y) to (a x + c y, b x + d y). Only multiples of 90 degrees are applied.
    """
    # Not frame.side_data, which refers back to its frame: both would wait for the collector.
    data = import_av().sidedata.sidedata.SideDataContainer(frame).get("DISPLAYMATRIX")
    if data is None:
        return pixels
    (a, b, _), (c, d, _), _ = np.frombuffer(data, dtype=np.int32)[:9].reshape(3, 3).tolist()
    if max(abs(a), abs(d)) * 20 < min(abs(b), abs(c)):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    elif max(abs(b), abs(c)) * 20 >= min(abs(a), abs(d)):
        return pixels
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def open_video(source: VideoSource) -> tuple[Any, Any]:
    """Open a video.

    Returns:
        A PyAV container and the video stream that FFmpeg would take, by its default mark and its
        size; never a cover image or a thumbnail.

    Raises:
        ValueError: if it is not a video, or cannot be decoded.
        ImportError: if PyAV is not installed.
    """
    av = import_av()
    name = source if isinstance(source, str) else "file object"
    # PyAV before 19 refuses titles that are not UTF-8; newer versions have no such option.
    options = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        if isinstance(source, str):
            # "file:" and the white list: names that look like URLs are files too.
            container = av.open(f"file:{source}", options={"protocol_whitelist": "file"}, **options)
        else:
            container = av.open(FileView(source), **options)
    except av.FFmpegError as error:
        raise ValueError(
            f"{name}: not a video file that can be read ({error.strerror}); accepted are "
            f"{RGB_LAYOUTS}"
        ) from error
    file_format = container.format.name
    brand = container.metadata.get("major_brand", "").strip()
    not_video = file_format in _NON_VIDEO_FORMATS or file_format.endswith("_pipe")
    if not_video or brand in _STILL_IMAGE_BRANDS:
        streams = []
    else:
        streams = [stream for stream in container.streams.video if _is_decodable_video(stream)]
    if not streams:
        container.close()
        raise ValueError(
            f"{name}: a file of kind {brand or file_format!r} without a video stream that can be "
            f"decoded; accepted are {RGB_LAYOUTS}"
        )
    stream = max(streams, key=_rank_stream)
    # Starting threads takes longer than most reads, and data loaders have worker processes.
    stream.codec_context.thread_count = 1
    return container, stream


def _is_decodable_video(stream: Any) -> bool:
    flags = import_av().stream.Disposition
    image = flags.attached_pic | flags.timed_thumbnails | flags.still_image
    return stream.codec_context is not None and not stream.disposition & image


def _rank_stream(stream: Any) -> tuple[bool, int]:
    default = stream.disposition & import_av().stream.Disposition.default
    pixels = stream.codec_context.width * stream.codec_context.height
    return stream.frames != 1, pixels + _DEFAULT_STREAM_BONUS * bool(default)


def import_av() -> Any:
    """Import PyAV; the ImportError says how to install it."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "video files need PyAV: install the package `av` (pip install av)"
        ) from error
    return av
