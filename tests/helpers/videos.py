"""Videos that say which frame is which, made with PyAV, and what decoding them in order gives.

Each frame shows its number as eight black or white bars over a moving texture, so that a test can
read which frame it got.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from data.video import VideoFile

av = pytest.importorskip("av", reason="PyAV (package `av`) is not installed")

WIDTH, HEIGHT, COUNT = 64, 48, 50
X264 = {"g": "12", "bf": "3", "sc_threshold": "0", "preset": "fast", "threads": "1"}


def picture(number: int) -> np.ndarray:
    """Return RGB (HEIGHT, WIDTH, 3): bars with the number above, a texture that moves below."""
    texture = np.random.default_rng(0).integers(0, 255, (9, 30, 3), dtype=np.uint8)
    texture = np.kron(texture, np.ones((8, 8, 1), dtype=np.uint8))
    frame = np.ascontiguousarray(texture[number % 20 :, 2 * number % 150 :][:HEIGHT, :WIDTH])
    for bit in range(8):
        frame[:16, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    return frame


def number_in(frame: torch.Tensor | np.ndarray) -> int:
    """Read the number that a decoded frame (3, H, W) shows."""
    bars = np.asarray(frame)[:, 4:12].mean(axis=(0, 1)).reshape(8, 8)[:, 2:6].mean(axis=1)
    return sum(1 << bit for bit in range(8) if bars[bit] > 128)


def encode(
    path: Path,
    codec: str,
    *,
    pictures: Sequence[np.ndarray] | None = None,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    b_frames: int | None = None,
    key_frames_every: int | None = None,
    count: int = COUNT,
    rate: int | Fraction = 25,
    time_base: Fraction | None = None,
    times: Iterable[int] | None = None,
    muxer: dict[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    """Write a video of the pictures, or of the first `count` numbered ones, and return its path."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    pictures = pictures or [picture(number) for number in range(count)]
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if key_frames_every is not None:
            stream.codec_context.gop_size = key_frames_every
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        for shown, time in zip(pictures, times or range(len(pictures)), strict=True):
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts = time
            if time_base is not None:
                frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def mp4(folder: Path, **muxer: str) -> Path:
    return encode(folder / "plain.mp4", "libx264", options=X264, muxer=muxer)


def matroska(folder: Path) -> Path:
    return encode(folder / "plain.mkv", "libx264", options=X264)


def avi(folder: Path) -> Path:
    return encode(folder / "plain.avi", "mpeg4", b_frames=2, key_frames_every=12)


def decoded(path: Path) -> torch.Tensor:
    """Return all frames (n, 3, H, W), decoded one after the other with PyAV alone."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            try:
                frames += packet.decode()
            except av.FFmpegError:
                continue
    pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def read_numbers(path: Path) -> list[int]:
    """Return the numbers in all frames, read in sequence; one by one they have to be the same."""
    source = VideoFile(path)
    found = [number_in(frame) for frame in source.read(range(len(source)))]
    alone = [number_in(VideoFile(path).read([index])[0]) for index in range(0, len(source), 3)]
    assert alone == found[::3]
    return found


# Changes of files


def patch(source: Path, path: Path, change: Callable[[bytearray], bytes | None]) -> Path:
    """Write a copy whose bytes `change` edits in place, or replaces by what it returns."""
    data = bytearray(source.read_bytes())
    changed = change(data)
    path.write_bytes(bytes(data if changed is None else changed))
    return path


def cut(share: float) -> Callable[[bytearray], bytes]:
    """Leave the first part of a file."""
    return lambda data: bytes(data[: int(len(data) * share)])


def erase_packets(source: Path, path: Path, *numbers: int) -> Path:
    """Write a copy in which these packets, in the order of the file, are zeros."""
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packets[number].pos, packets[number].size) for number in numbers]

    def erase(data: bytearray) -> None:
        for place, size in places:
            data[place : place + size] = bytes(size)

    return patch(source, path, erase)


def show_frames(start: int, stop: int, count: int = COUNT) -> Callable[[bytearray], None]:
    """Set the edit list of an MP4 file of `count` frames."""

    def change(data: bytearray) -> None:
        place = data.find(b"elst") + 12
        length, first = struct.unpack_from(">Ii", data, place)
        length = length * (stop - start) // count
        struct.pack_into(">Ii", data, place, length, first + start * 512)

    return change
