"""A video of every kind of file, codec and timestamps, each made once for the tests of a module.

from helpers.video_kinds import VIDEOS, videos_fixture  # noqa: F401 -- a fixture

@pytest.mark.parametrize("kind", VIDEOS)
def test_something(kind: str, videos: MakeVideo) -> None:
    path, expected = videos(kind)
"""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.videos import (
    X264,
    av,
    avi,
    cut,
    decoded,
    encode,
    matroska,
    mp4,
    patch,
    show_frames,
)

MakeVideo = Callable[[str], tuple[Path, torch.Tensor]]


def remux(source: Path, path: Path, change: Callable[[int, object], None], **muxer: str) -> Path:
    """Copy packets into another file, with the timestamps that `change(number, packet)` sets."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=muxer) as new:
        target = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            change(number, packet)
            packet.stream = target
            new.mux(packet)
    return path


def set_times(time_of: Callable[[int], int]) -> Callable[[int, object], None]:
    def change(number, packet):
        packet.pts = packet.dts = time_of(number)

    return change


def misplace(places: dict[int, int]) -> Callable[[int, object], None]:
    """Give frames the presentation times of others."""

    def change(number, packet):
        packet.pts = 1000 + 40 * places.get(number, number)
        packet.dts = number

    return change


def later(number, packet) -> None:
    packet.pts += 50_000
    packet.dts += 50_000


def announce_999_frames(data: bytearray) -> None:
    struct.pack_into("<I", data, data.find(b"strh") + 8 + 32, 999)


def forget_key_frames(data: bytearray) -> None:
    place = data.find(b"stss")  # without this box of an MP4 file, every packet is a key frame
    data[place : place + 4] = b"free"


def cut_inside(packet: int) -> Callable[[bytearray], bytes]:
    """Leave a stump of a packet of an MP4 file."""

    def change(data: bytearray) -> bytes:
        with av.open(io.BytesIO(bytes(data))) as container:
            place = [packet.pos for packet in container.demux(video=0)][packet]
        return bytes(data[: place + 5])

    return change


OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal:scenecut=0:threads=1"}
INTRA_REFRESH = {"x264-params": "intra-refresh=1:keyint=12:bframes=0:scenecut=0:threads=1"}
HEVC = {"x265-params": "open-gop=1:keyint=12:bframes=3:scenecut=0:log-level=none:pools=1"}
VP8 = {"lag-in-frames": "16", "auto-alt-ref": "1", "g": "12", "cpu-used": "8"}

VIDEOS: dict[str, Callable[[Path], Path]] = {
    "h264 in MP4": mp4,
    "h264 in fragmented MP4": lambda f: mp4(f, movflags="frag_keyframe+empty_moov"),
    "h264 in Matroska": matroska,
    "h264, open groups of pictures": lambda f: encode(f / "o.mkv", "libx264", options=OPEN_GOP),
    "h264, intra refresh": lambda f: encode(f / "i.mp4", "libx264", options=INTRA_REFRESH),
    "h264, interlaced": lambda f: encode(
        f / "l.mp4", "libx264", options={"x264-params": "interlaced=1:keyint=12:threads=1"}
    ),
    "h264, raw": lambda f: encode(f / "raw.h264", "libx264", options=X264),
    "h264 in AVI": lambda f: encode(f / "x.avi", "libx264", options=X264),
    "h264 in a transport stream": lambda f: encode(f / "x.ts", "libx264", options=X264),
    "hevc, open groups of pictures": lambda f: encode(f / "x.mp4", "libx265", options=HEVC),
    "mpeg4 in MP4": lambda f: encode(f / "m.mp4", "mpeg4", b_frames=2, key_frames_every=12),
    "mpeg4 in AVI": avi,
    "mpeg2 in a program stream": lambda f: encode(
        f / "m.mpg", "mpeg2video", b_frames=2, key_frames_every=12
    ),
    "motion jpeg in AVI": lambda f: encode(f / "j.avi", "mjpeg", pixels="yuvj420p"),
    "ffv1 in Matroska": lambda f: encode(f / "f.mkv", "ffv1"),
    "vp8 in WebM": lambda f: encode(f / "v.webm", "libvpx", options=VP8),
    "vp9 in WebM": lambda f: encode(
        f / "9.webm", "libvpx-vp9", options={"g": "12", "cpu-used": "8", "row-mt": "0"}
    ),
    "first timestamp above zero": lambda f: remux(
        mp4(f), f / "late.mp4", later, avoid_negative_ts="disabled"
    ),
    "duplicated timestamps": lambda f: remux(
        matroska(f), f / "twice.mkv", set_times(lambda number: number // 2 * 80)
    ),
    "timestamps in file order": lambda f: remux(
        matroska(f), f / "order.mkv", set_times(lambda number: number * 40)
    ),
    "timestamps that jump back": lambda f: patch(
        encode(f / "one.ts", "libx264", options=X264, count=25), f / "two.ts", lambda data: data * 2
    ),
    "timestamps that swap two late frames": lambda f: remux(
        encode(f / "x.mkv", "libx264", options=X264 | {"bf": "0"}),
        f / "swap.mkv",
        misplace({40: 41, 41: 40}),
    ),
    "timestamps that swap a late key frame": lambda f: remux(
        encode(f / "x.mkv", "libx264", options=X264 | {"bf": "0"}),
        f / "swap.mkv",
        misplace({48: 49, 49: 48}),
    ),
    "timestamps that put late frames earlier": lambda f: remux(
        encode(f / "x.mkv", "libx264", options=X264 | {"bf": "0"}),
        f / "early.mkv",
        misplace({number: (number - 36 + 10) % 14 + 36 for number in range(36, 50)}),
    ),
    "motion jpeg without sound timestamps": lambda f: remux(
        encode(f / "j.avi", "mjpeg", pixels="yuvj420p"),
        f / "j.mkv",
        misplace({3: 8, 8: 3}),
    ),
    "every packet marked as key frame": lambda f: patch(
        encode(f / "m.mp4", "mpeg4", b_frames=2, key_frames_every=12),
        f / "keys.mp4",
        forget_key_frames,
    ),
    "edit list": lambda f: patch(mp4(f), f / "edit.mp4", show_frames(17, 37)),
    "edit list in the first group": lambda f: patch(mp4(f), f / "edit.mp4", show_frames(5, 50)),
    "header announces too many frames": lambda f: patch(avi(f), f / "999.avi", announce_999_frames),
    "no index": lambda f: patch(
        avi(f), f / "noindex.avi", lambda data: bytes(data[: data.rfind(b"idx1")])
    ),
    "cut off MP4": lambda f: patch(mp4(f, movflags="faststart"), f / "cut.mp4", cut_inside(40)),
    "cut off Matroska": lambda f: patch(matroska(f), f / "cut.mkv", cut(0.7)),
    "cut off AVI": lambda f: patch(avi(f), f / "cut.avi", cut(0.8)),
    "a single frame": lambda f: encode(f / "one.mp4", "libx264", options=X264, count=1),
}


@pytest.fixture(scope="module", name="videos")
def videos_fixture(tmp_path_factory: pytest.TempPathFactory) -> MakeVideo:
    """Make each kind of video once: its path, and all frames as PyAV alone decodes them."""
    made: dict[str, tuple[Path, torch.Tensor]] = {}

    def make(kind: str) -> tuple[Path, torch.Tensor]:
        if kind not in made:
            path = VIDEOS[kind](tmp_path_factory.mktemp("video"))
            made[kind] = path, decoded(path)
        return made[kind]

    return make
