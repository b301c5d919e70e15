"""Video files opened with PyAV: the right stream, its packets in file order, and its frames."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.archives import FileView
from data.frames import RGB_LAYOUTS
from data.packets import PacketIndex

__all__ = ["Decoder", "UnexpectedFrameError", "VideoSource", "demuxed", "import_av", "open_video"]

VideoSource: TypeAlias = Path | BinaryIO
"""What videos are read from: a path, or a seekable binary file object."""

_NO_VIDEO = (
    *("concat", "dash", "hls", "imf", "sdp", "tty"),
    *("alias_pix", "brender_pix", "fits", "ico", "image2", "txd"),
)
"""What FFmpeg also opens: lists of other files, text drawn as pictures, and still pictures."""

_STILL_BRANDS = ("avif", "heic", "heim", "heis", "heix", "mif1", "mif2")
"""Major brands of still pictures in the container of MP4; sequences of pictures have others."""

_DEFAULT_BONUS = 5_000_000
"""Pixels that the stream marked as default counts more, as in FFmpeg's own choice."""

_MAX_STALLS = 100_000
"""How often in a row the file may hold no packet: each time FFmpeg passes over 64 KiB or more."""


class UnexpectedFrameError(Exception):
    """Decoding does not give the frames that were expected, or not in the expected order.

    A reason to start over, which no caller of `data` sees.
    """


class Decoder:
    """One pass over a video: packets in file order go in, frames in presentation order come out.

    Packets that cannot be decoded are passed over.

    Args:
        source: the video file.
        expected: the packets it should have; where others come, `UnexpectedFrameError` is raised.

    Attributes:
        next_packet: number of the packet that is decoded next.
        decoded: number of frames that came out so far.
        failed: number of packets so far that could not be decoded, or not soundly.
    """

    def __init__(self, source: VideoSource, expected: PacketIndex | None = None) -> None:
        av = import_av()
        self._errors: type[Exception] = av.FFmpegError
        self._converter = av.video.reformatter.VideoReformatter()
        self.container, self.stream = open_video(source)
        self._expected = expected
        self._packets = self._demuxed()
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
        """Packet number and frame, from the next packet to the end of the file."""
        for packet in self._packets:
            number, self.next_packet = self.next_packet, self.next_packet + 1
            if self._expected is not None and not self._expected.has(number, packet):
                raise UnexpectedFrameError(f"packet {number} is another one than before")
            # Decoders carry timestamps through reordering, and unlike the file's these are sound.
            packet.pts = packet.dts = number
            yield from self._decode(packet)
        yield from self._decode(None)

    def rgb(self, frame: Any, size: tuple[int, int]) -> Tensor:
        """uint8 tensor (3, H, W) of a frame, scaled to `size` (width, height), then upright."""
        width, height = size
        # With threads of its own, the scaler would hang a process forked from this one.
        scaled = self._converter.reformat(frame, width, height, format="rgb24", threads=1)
        pixels = np.ascontiguousarray(_upright(scaled.to_ndarray(), frame))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def jump(self, number: int) -> None:
        """Makes a packet ahead the next one, and forgets the frames that are still to come out."""
        assert self._expected is not None
        time = self._expected.seek_time(number)
        if time is not None:
            try:
                self.container.seek(time, stream=self.stream)
            except self._errors as error:
                raise UnexpectedFrameError(f"packet {number} cannot be sought ({error})") from error
            self._packets = self._demuxed()
            landed = next(self._packets, None)
            found = None if landed is None else self._expected.number_of(landed)
            if found is None or found > number:
                raise UnexpectedFrameError(f"packet {number} cannot be found")
            self._packets, self.next_packet = chain([landed], self._packets), found
        for _ in islice(self._packets, number - self.next_packet):
            self.next_packet += 1
        self.stream.codec_context.flush_buffers()

    def _demuxed(self) -> Iterator[Any]:
        return _until_damage(demuxed(self.container, self.stream), self._errors)

    def _decode(self, packet: Any) -> list[tuple[int | None, Any]]:
        try:
            frames = self.stream.codec_context.decode(packet)
        except self._errors:
            self.failed += 1
            return []
        self.decoded += len(frames)
        self.failed += any(frame.is_corrupt for frame in frames)
        return [(frame.pts, frame) for frame in frames]


def demuxed(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a stream that hold data, in file order.

    No method of `Decoder`: a generator that holds the object that holds it would keep the codec's
    threads and frames until the garbage collector runs.

    Raises:
        av.FFmpegError: where the file is damaged.
    """
    av = import_av()
    stalls = 0
    while stalls < _MAX_STALLS:
        try:
            for packet in container.demux(stream):
                stalls = 0
                if packet.size:  # an empty one would end decoding
                    yield packet
            return
        except av.BlockingIOError:  # a hole in the file, not its end
            stalls += 1
        except IndexError:  # a packet of a stream that begins here, which PyAV before 19 trips over
            stalls = 0


def _until_damage(packets: Iterator[Any], errors: type[Exception]) -> Iterator[Any]:
    """Packets up to a damaged end, of which `PacketIndex` has taken note."""
    with suppress(errors):
        yield from packets


def _upright(pixels: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Turn and mirror pixels (H, W, 3) by the display matrix of their frame, if it has one.

    The matrix takes (x, y) to (a x + c y, b x + d y). Angles between the quarter turns stay.
    """
    # Not frame.side_data, which holds its frame, so that neither goes before the collector comes.
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
        A PyAV container and its video stream: the one that FFmpeg would take, by its mark as
        default and its size, no cover picture and no thumbnail.

    Raises:
        ValueError: if it is no video, or none that can be decoded.
        ImportError: if PyAV is not installed.
    """
    av = import_av()
    name = str(source) if isinstance(source, Path) else "file object"
    # Titles in any encoding: PyAV 19 takes them, and has no option; before, it refused the file.
    options = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        if isinstance(source, Path):
            # "file:" and the white list keep names from being taken for network addresses.
            container = av.open(f"file:{source}", options={"protocol_whitelist": "file"}, **options)
        else:
            container = av.open(FileView(source), **options)
    except av.FFmpegError as error:
        raise ValueError(
            f"{name}: not a video file that can be read ({error.strerror}); accepted are "
            f"{RGB_LAYOUTS}"
        ) from error
    kind = container.format.name
    brand = container.metadata.get("major_brand", "").strip()
    if kind in _NO_VIDEO or kind.endswith("_pipe") or brand in _STILL_BRANDS:
        streams = []
    else:
        streams = [stream for stream in container.streams.video if _can_be_shown(stream)]
    if not streams:
        container.close()
        raise ValueError(
            f"{name}: a file of kind {brand or kind!r} without a video stream that can be decoded; "
            f"accepted are {RGB_LAYOUTS}"
        )
    stream = max(streams, key=_preference)
    # Starting threads takes longer than most reads, and data loaders have processes.
    stream.codec_context.thread_count = 1
    return container, stream


def _can_be_shown(stream: Any) -> bool:
    kinds = import_av().stream.Disposition
    picture = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image
    return stream.codec_context is not None and not stream.disposition & picture


def _preference(stream: Any) -> tuple[bool, int]:
    default = stream.disposition & import_av().stream.Disposition.default
    pixels = stream.codec_context.width * stream.codec_context.height
    return stream.frames != 1, pixels + _DEFAULT_BONUS * bool(default)


def import_av() -> Any:
    """Import PyAV, or say how to install it."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "reading video files needs PyAV: install the package `av` (pip install av)"
        ) from error
    return av
