"""Decoding with PyAV: the video stream of a file, its packets in file order, its frames."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

from torch import Tensor

from data.archives import FileView
from data.frames import RGB_LAYOUTS
from data.packets import PacketIndex
from data.rgb import to_rgb

__all__ = [
    "Decoder",
    "UnexpectedFrameError",
    "VideoSource",
    "demux",
    "import_av",
    "open_container",
    "open_video",
    "select_video_stream",
]

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
        return to_rgb(frame, size, self._converter)

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


def demux(container: Any, *streams: Any) -> Iterator[Any]:
    """Yield the packets of some streams, of all if none is given, that hold data, in file order.

    Not a method of `Decoder`: the generator and the decoder would refer to one another, and keep
    the codec's threads and frames alive until the garbage collector runs.

    Raises:
        av.FFmpegError: where the file is damaged.
    """
    av = import_av()
    empty_reads = 0
    while empty_reads < _MAX_EMPTY_READS:
        try:
            for packet in container.demux(*streams):
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
    try:
        if isinstance(source, str):
            # "file:" and the white list: names that look like URLs are files too.
            container = open_container(f"file:{source}", options={"protocol_whitelist": "file"})
        else:
            container = open_container(FileView(source))
    except av.FFmpegError as error:
        raise ValueError(
            f"{name}: not a video file that can be read ({error.strerror}); accepted are "
            f"{RGB_LAYOUTS}"
        ) from error
    file_format = container.format.name
    brand = container.metadata.get("major_brand", "").strip()
    not_video = file_format in _NON_VIDEO_FORMATS or file_format.endswith("_pipe")
    stream = None
    if not not_video and brand not in _STILL_IMAGE_BRANDS:
        stream = select_video_stream(container)
    if stream is None:
        container.close()
        raise ValueError(
            f"{name}: a file of kind {brand or file_format!r} without a video stream that can be "
            f"decoded; accepted are {RGB_LAYOUTS}"
        )
    # Starting threads takes longer than most reads, and data loaders have worker processes.
    stream.codec_context.thread_count = 1
    return container, stream


def open_container(file: Any, **arguments: Any) -> Any:
    """Return `av.open(file, **arguments)`, which may have titles that are not UTF-8."""
    av = import_av()
    # PyAV before 19 refuses such titles; newer versions have no such option.
    if int(av.__version__.split(".")[0]) < 19:
        arguments["metadata_errors"] = "ignore"
    return av.open(file, **arguments)


def select_video_stream(container: Any) -> Any | None:
    """Return the video stream that FFmpeg would take, None if none can be decoded."""
    streams = [stream for stream in container.streams.video if _is_decodable_video(stream)]
    return max(streams, key=_rank_stream, default=None)


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
