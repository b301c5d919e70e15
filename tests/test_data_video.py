"""Frames by index from every kind of clip; videos are made here and say which frame is which.

Each frame of a made video shows its number as eight black or white bars over a moving texture, so
that a test can read which frame it got. What decoding gives is established with PyAV alone, by
`decoded`; the library must give the same frames for every index, whatever it jumps over.
"""

import gc
import io
import logging
import multiprocessing
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import wave
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.numbered_images import values
from PIL import Image

from data.decoder import Decoder
from data.sampling import segment_indices
from data.video import (
    FrameArray,
    FrameRange,
    FrameSource,
    VideoFile,
    load_clip,
    open_frames,
)

av = pytest.importorskip("av", reason="PyAV (package `av`) is not installed")

REPOSITORY = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, COUNT = 64, 48, 50
X264 = {"g": "12", "bf": "3", "sc_threshold": "0", "preset": "fast", "threads": "1"}


# --- making videos -------------------------------------------------------------------------------


def picture(number: int) -> np.ndarray:
    """RGB (HEIGHT, WIDTH, 3): bars with the number above, a texture that moves below."""
    texture = np.random.default_rng(0).integers(0, 255, (9, 30, 3), dtype=np.uint8)
    texture = np.kron(texture, np.ones((8, 8, 1), dtype=np.uint8))
    frame = np.ascontiguousarray(texture[number % 20 :, 2 * number % 150 :][:HEIGHT, :WIDTH])
    for bit in range(8):
        frame[:16, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    return frame


def number_in(frame: torch.Tensor | np.ndarray) -> int:
    """The number that a decoded frame (3, H, W) shows."""
    bars = np.asarray(frame)[:, 4:12].mean(axis=(0, 1)).reshape(8, 8)[:, 2:6].mean(axis=1)
    return sum(1 << bit for bit in range(8) if bars[bit] > 128)


def encode(
    path: Path,
    codec: str,
    *,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    b_frames: int | None = None,
    key_frames_every: int | None = None,
    count: int = COUNT,
    rate: int = 25,
    time_base: tuple[int, int] | None = None,
    times: list[int] | None = None,
    muxer: dict[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if key_frames_every is not None:
            stream.codec_context.gop_size = key_frames_every
        if time_base is not None:
            stream.codec_context.time_base = Fraction(*time_base)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number if times is None else times[number]
            if time_base is not None:
                frame.time_base = Fraction(*time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source: Path, path: Path, change: Callable[[int, object], None], **muxer: str) -> Path:
    """Copies packets into another file, with the timestamps that `change(number, packet)` sets."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=muxer) as new:
        target = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            change(number, packet)
            packet.stream = target
            new.mux(packet)
    return path


def patch(source: Path, path: Path, change: Callable[[bytearray], object]) -> Path:
    data = bytearray(source.read_bytes())
    changed = change(data)
    path.write_bytes(bytes(data if changed is None else changed))
    return path


def set_times(time_of: Callable[[int], int]) -> Callable[[int, object], None]:
    def change(number, packet):
        packet.pts = packet.dts = time_of(number)

    return change


def misplace(places: dict[int, int]) -> Callable[[int, object], None]:
    """Gives frames the presentation times of others."""

    def change(number, packet):
        packet.pts = 1000 + 40 * places.get(number, number)
        packet.dts = number

    return change


def later(number, packet) -> None:
    packet.pts += 50_000
    packet.dts += 50_000


def mp4(folder: Path, **muxer: str) -> Path:
    return encode(folder / "plain.mp4", "libx264", options=X264, muxer=muxer)


def matroska(folder: Path) -> Path:
    return encode(folder / "plain.mkv", "libx264", options=X264)


def avi(folder: Path) -> Path:
    return encode(folder / "plain.avi", "mpeg4", b_frames=2, key_frames_every=12)


def show_frames(start: int, stop: int) -> Callable[[bytearray], None]:
    """Sets the edit list of an MP4 file."""

    def change(data: bytearray) -> None:
        place = data.find(b"elst") + 12
        length, first, rate = struct.unpack_from(">IiI", data, place)
        length = length * (stop - start) // COUNT
        struct.pack_into(">IiI", data, place, length, first + start * 512, rate)

    return change


def announce_999_frames(data: bytearray) -> None:
    struct.pack_into("<I", data, data.find(b"strh") + 8 + 32, 999)


def forget_key_frames(data: bytearray) -> None:
    place = data.find(b"stss")  # without this box of an MP4 file, every packet is a key frame
    data[place : place + 4] = b"free"


def cut_inside(packet: int) -> Callable[[bytearray], bytes]:
    """Leaves a stump of a packet of an MP4 file."""

    def change(data: bytearray) -> bytes:
        with av.open(io.BytesIO(bytes(data))) as container:
            place = [packet.pos for packet in container.demux(video=0)][packet]
        return bytes(data[: place + 5])

    return change


def cut(share: float) -> Callable[[bytearray], bytes]:
    return lambda data: bytes(data[: int(len(data) * share)])


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


def decoded(path: Path) -> torch.Tensor:
    """All frames (n, 3, H, W), decoded one after the other with PyAV alone."""
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


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Callable[[str], tuple[Path, torch.Tensor]]:
    """Makes each kind of video once: its path, and all frames as PyAV alone decodes them."""
    made: dict[str, tuple[Path, torch.Tensor]] = {}

    def make(kind: str) -> tuple[Path, torch.Tensor]:
        if kind not in made:
            path = VIDEOS[kind](tmp_path_factory.mktemp("video"))
            made[kind] = path, decoded(path)
        return made[kind]

    return make


def work(caplog) -> list[tuple[int, int]]:
    """(frames decoded, jumps) of each pass over a file since the last call."""
    done = [record.args[2:] for record in caplog.records if "frames read" in record.msg]
    caplog.clear()
    return done


# --- video files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VIDEOS)
def test_every_frame_is_the_one_that_decoding_from_the_start_gives(kind, videos):
    path, expected = videos(kind)
    source = VideoFile(path)
    assert len(source) == len(expected)
    chance = random.Random(0)
    for index in chance.sample(range(len(source)), len(source)):
        assert torch.equal(source.read([index])[0], expected[index]), index
    for _ in range(5):
        indices = [chance.randrange(len(source)) for _ in range(6)]
        assert torch.equal(source.read(indices), expected[indices])
    assert torch.equal(source.read(range(len(source))), expected)


@pytest.mark.parametrize("kind", VIDEOS)
def test_the_first_read_of_a_source_is_right_wherever_it_begins(kind, videos):
    path, expected = videos(kind)
    for index in range(len(expected) * 3 // 4, len(expected)):
        assert torch.equal(VideoFile(path).read([index])[0], expected[index]), index


@pytest.mark.parametrize("kind", VIDEOS)
def test_frames_come_in_presentation_order(kind, videos):
    path, _ = videos(kind)
    source = VideoFile(path)
    numbers = [number_in(frame) for frame in source.read(range(len(source)))]
    if "cut off" in kind:  # among the last ones, those stored behind the cut are missing
        assert 10 < len(source) < COUNT
        assert numbers[:-4] == list(range(len(source) - 4))
    else:
        others = {
            "edit list": list(range(17, 37)),
            "edit list in the first group": list(range(5, 50)),
            "a single frame": [0],
            "timestamps that jump back": [*range(25), *range(25)],
        }
        assert numbers == others.get(kind, list(range(COUNT)))


@pytest.mark.parametrize(
    ("kind", "counted"),
    {
        "h264 in MP4": False,
        "h264, open groups of pictures": False,
        "hevc, open groups of pictures": False,
        "mpeg4 in MP4": False,
        "motion jpeg in AVI": False,
        "motion jpeg without sound timestamps": False,
        "edit list": False,
        "edit list in the first group": False,
        "first timestamp above zero": False,
        "h264, raw": True,
        "mpeg4 in AVI": False,
        "vp8 in WebM": False,
        "h264 in a transport stream": False,
        "duplicated timestamps": True,
        "timestamps in file order": True,
        "timestamps that jump back": True,
        "cut off MP4": True,
    }.items(),
)
def test_only_what_cannot_be_trusted_is_decoded_to_count(kind, counted, videos, caplog):
    with caplog.at_level(logging.INFO):
        VideoFile(videos(kind)[0])
    assert ("decoded once to count its frames" in caplog.text) == counted


@pytest.mark.parametrize(
    "kind",
    [
        "h264 in MP4",
        "h264 in Matroska",
        "h264, open groups of pictures",
        "h264, raw",
        "h264 in AVI",
        "h264 in a transport stream",
        "mpeg4 in AVI",
        "motion jpeg in AVI",
        "duplicated timestamps",
        "timestamps in file order",
        "no index",
    ],
)
def test_few_frames_of_a_video_are_read_with_few_decoded(kind, videos, caplog):
    source = VideoFile(videos(kind)[0])
    with caplog.at_level(logging.DEBUG):
        source.read([COUNT - 2, 1])
        ((frames_decoded, jumps),) = work(caplog)
    assert jumps >= 1
    assert frames_decoded < COUNT // 2


@pytest.mark.essential
def test_going_on_is_preferred_to_jumping_where_it_decodes_as_little(videos, caplog):
    source = VideoFile(videos("h264 in MP4")[0])
    with caplog.at_level(logging.DEBUG):
        source.read(range(COUNT))
        assert work(caplog) == [(COUNT, 0)]
        source.read(list(range(13, 36)))
        ((frames_decoded, jumps),) = work(caplog)
    assert jumps == 1
    assert frames_decoded < 36


def test_a_jump_that_fails_falls_back_and_is_not_tried_again(videos, caplog):
    path, expected = videos("h264, intra refresh")  # nothing can be decoded from its marks on
    source = VideoFile(path)
    with caplog.at_level(logging.DEBUG):
        for again in (True, True, False):  # from the marks at 24, 12 and 0
            caplog.clear()
            assert torch.equal(source.read([30])[0], expected[30])
            assert ("decoded from its start" in caplog.text) == again


def test_a_lost_frame_shows_the_one_before_it(tmp_path, caplog):
    options = X264 | {"bf": "0", "g": "10"}
    path = encode(tmp_path / "sound.mp4", "libx264", options=options)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[39].pos, packets[39].size

    def destroy(data: bytearray) -> None:
        data[place : place + size] = bytes(size)

    source = VideoFile(patch(path, tmp_path / "damaged.mp4", destroy))
    assert len(source) == COUNT
    for indices in ([39], [45, 39], list(range(COUNT))):
        frames = source.read(indices)
        assert "show the frame before" in caplog.text
        caplog.clear()
        shown = dict(zip(indices, map(number_in, frames), strict=True))
        assert shown == {index: 38 if index == 39 else index for index in indices}


@pytest.mark.parametrize("kind", ["cut off MP4", "cut off Matroska", "cut off AVI"])
def test_a_file_that_is_cut_off_is_reported(kind, videos, caplog):
    path, _ = videos(kind)
    if kind == "cut off Matroska":  # its header announces a time alone: 2 seconds
        path = encode(path.parent / "long.mkv", "libx264", options=X264, count=150)
        path = patch(path, path.parent / "short.mkv", cut(0.5))
    caplog.clear()
    source = VideoFile(path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(path) in record.getMessage()
    assert "header announces" in record.getMessage()
    assert source.read([len(source) - 1]).shape == (1, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "kind",
    ["h264 in MP4", "h264 in Matroska", "edit list in the first group", "mpeg4 in AVI", "no index"],
)
def test_a_sound_file_is_read_without_warnings(kind, videos, caplog):
    VideoFile(videos(kind)[0]).read([3, 40])
    assert not caplog.records


def test_reading_leaves_no_file_open_and_a_source_can_be_pickled(videos):
    path, expected = videos("h264 in MP4")
    source = pickle.loads(pickle.dumps(VideoFile(path)))
    assert torch.equal(source.read([30, 2, 30]), expected[[30, 2, 30]])


def threads_and_bytes() -> tuple[int, int]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(list(Path("/proc/self/task").iterdir())), pages * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_leaves_nothing_behind_before_the_collector_runs(tmp_path, monkeypatch):
    """Threads would hang a process that is forked later; memory would grow with every read."""
    path, count = tmp_path / "large.mp4", 12
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1920, 1088, "yuv420p"
        for number in range(count):
            grey = np.full((1088, 1920, 3), 9 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    decoders = []

    def noted(*arguments):
        decoder = Decoder(*arguments)
        decoders.append(weakref.ref(decoder))
        return decoder

    monkeypatch.setattr("data.video_file.Decoder", noted)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):  # the allocator settles
            load_clip(path, num_segments=2)
        threads, memory = threads_and_bytes()
        for _ in range(20):
            load_clip(path, num_segments=2)
            with pytest.raises(ValueError, match="indices"):
                VideoFile(path).read([count])
        assert threads_and_bytes()[0] == threads
        assert threads_and_bytes()[1] - memory < 50e6
        assert len(decoders) > 60
        assert not any(decoder() for decoder in decoders)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "method",
    ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("forkserver", "spawn"))],
)
def test_data_loaders_work_after_videos_were_read(method, videos, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    program = (
        "import sys\n"
        "from torch.utils.data import DataLoader\n"
        "from data.video import VideoFile, load_clip\n"
        "class Clips(list):\n"
        "    def __getitem__(self, index):\n"
        "        return load_clip(list.__getitem__(self, index), num_segments=2)\n"
        "if __name__ == '__main__':\n"
        "    path, method = sys.argv[1:]\n"
        "    for _ in range(50): expected = load_clip(path, num_segments=2)\n"
        "    workers = {'num_workers': 2, 'multiprocessing_context': method}\n"
        "    for batch in DataLoader(Clips([path] * 4), **workers):\n"
        "        assert batch[0].equal(expected)\n"
    )
    script = tmp_path / "loader.py"
    script.write_text(program)
    path, _ = videos("h264 in MP4")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, script, path, method], check=True, timeout=120, env=environment)


def test_titles_in_any_encoding_are_no_reason_to_refuse_a_file(videos, tmp_path):
    path, expected = videos("mpeg4 in MP4")

    def spoil(data: bytearray) -> None:
        place = data.find(b"Lavf")
        data[place : place + 4] = b"\xff\xfe\xe9f"

    assert VideoFile(patch(path, tmp_path / "title.mp4", spoil)).read([5]).equal(expected[5:6])


def test_a_file_that_vanishes_is_named(videos, tmp_path):
    path = tmp_path / "vanishing.mp4"
    path.write_bytes(videos("h264 in MP4")[0].read_bytes())
    source = VideoFile(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"vanishing\.mp4: .*No such file"):
        source.read([0])


# Where the bright corner of the upper left goes when the picture is turned counter-clockwise.
@pytest.mark.parametrize(
    ("degrees", "row", "column"), [(0, 0, 0), (90, -1, 0), (180, -1, -1), (-90, 0, -1)]
)
def test_rotation_metadata_is_applied(degrees, row, column, tmp_path, monkeypatch):
    def corner(number: int) -> np.ndarray:
        frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        frame[:16, :16] = 255
        return frame

    monkeypatch.setitem(globals(), "picture", corner)
    path = encode(tmp_path / "x.mp4", "libx264", options=X264, count=15, rotation=degrees)
    for frame in VideoFile(path).read([0, 13]):
        upright = degrees in (0, 180)
        assert frame.shape[1:] == ((HEIGHT, WIDTH) if upright else (WIDTH, HEIGHT))
        corners = (frame[:, [4, -5]][:, :, [4, -5]] > 128).all(dim=0).nonzero().tolist()
        assert corners == [[row % 2, column % 2]]


def test_first_timestamp_does_not_shift_times(videos):
    for kind in ("h264 in MP4", "h264 in Matroska", "first timestamp above zero", "h264 in AVI"):
        source = VideoFile(videos(kind)[0])
        assert source.fps == pytest.approx(25)
        assert [source.index_at(number / 25) for number in range(COUNT)] == list(range(COUNT))
        assert [source.index_at((number + 0.9) / 25) for number in range(3)] == [0, 1, 2]
        assert source.index_at(1e9) == COUNT - 1


def test_times_follow_timestamps_where_the_rate_varies(tmp_path):
    times = [0, 10, 500, 520, 2000, 2017, 3000]  # milliseconds
    path = encode(
        tmp_path / "vfr.mkv", "libx264", options=X264, count=7, time_base=(1, 1000), times=times
    )
    source = VideoFile(path)
    assert [source.index_at(time / 1000) for time in times] == list(range(7))
    assert source.index_at(1.9) == 3
    assert source.index_at(0.499) == 1


@pytest.mark.parametrize("rate", [(30000, 1001), (60000, 1001), (48, 1)])
def test_labels_in_sixtieths_of_a_second_find_their_frames(rate, tmp_path):
    path = encode(tmp_path / "x.mp4", "libx264", options=X264, count=30, rate=Fraction(*rate))
    source = VideoFile(path)
    for label in range(1, 25):
        seconds = Fraction(label, 60)
        shown = min(int(seconds * Fraction(*rate)), 29)
        assert source.index_at(label / 60) == shown


def test_times_must_not_be_negative(videos):
    source = VideoFile(videos("h264 in MP4")[0])
    for seconds in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            source.index_at(seconds)


def cover_art(path: Path) -> Path:
    """Sound with a picture that FFmpeg presents as a stream of video."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24")
        frame.pts = 0
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 9000), np.int16), "s16", "mono")
        silence.rate = 44100
        for stream, data in ((cover, frame), (cover, None), (sound, silence), (sound, None)):
            container.mux(stream.encode(data))
    return path


def silence(path: Path) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    return path


def filled(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def play_list(folder: Path) -> Path:
    mp4(folder)
    return filled(folder / "list.ffconcat", b"ffconcat version 1.0\nfile plain.mp4\n")


def image_file(path: Path) -> Path:
    Image.fromarray(picture(1)).save(path)
    return path


@pytest.mark.parametrize(
    "make",
    {
        "empty": lambda f: filled(f / "a.mp4", b""),
        "text": lambda f: filled(f / "a.txt", b"frame,verb\n1,take\n" * 50),
        "noise": lambda f: filled(f / "a.mp4", random.Random(0).randbytes(20_000)),
        "noise called motion jpeg": lambda f: filled(
            f / "a.mjpeg", random.Random(0).randbytes(500_000)
        ),
        "header alone": lambda f: patch(mp4(f), f / "a.mp4", cut(0.02)),
        "cut off before its first frame": lambda f: patch(
            mp4(f, movflags="faststart"),
            f / "a.mp4",
            lambda data: bytes(data[: data.find(b"mdat") + 30]),
        ),
        "sound": lambda f: silence(f / "a.wav"),
        "sound with a cover": lambda f: cover_art(f / "a.mp3"),
        "picture": lambda f: image_file(f / "a.png"),
        "play list": play_list,
    }.items(),
    ids=lambda item: item[0],
)
def test_files_without_video_are_refused_by_name(make, tmp_path):
    path = make[1](tmp_path)
    with pytest.raises(ValueError, match="accepted are a video file, a folder") as error:
        open_frames(path)
    assert str(path) in str(error.value)


def test_names_that_look_like_addresses_are_files(tmp_path, videos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("http:clip %03d.mp4").write_bytes(videos("h264 in MP4")[0].read_bytes())
    assert len(open_frames("http:clip %03d.mp4")) == COUNT


def test_missing_package_is_named(videos, monkeypatch):
    path, _ = videos("h264 in MP4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="package `av`"):
        VideoFile(path)


# --- what all sources share ----------------------------------------------------------------------


def test_a_range_is_a_source(six_frames, videos):
    part = FrameRange(FrameArray(six_frames), 2, 5)
    assert (len(part), part.channels) == (3, 3)
    assert values(part.read([0, 2])) == [[2] * 3, [4] * 3]
    assert values(FrameRange(part, 1).read([1, 0])) == [[4] * 3, [3] * 3]
    with pytest.raises(ValueError, match=r"in 0 \.\.\. 2, got 3"):
        part.read([3])
    video = FrameRange(VideoFile(videos("h264 in MP4")[0]), 30, 40)
    assert video.fps == 25
    assert number_in(video.read([5])[0]) == 35


def test_a_flow_model_cannot_read_a_video_file(videos):
    path, _ = videos("h264 in MP4")
    with pytest.raises(ValueError, match=r"computed beforehand; accepted are .*u/ and v/"):
        open_frames(str(path), "Flow")


# --- clips ---------------------------------------------------------------------------------------


@pytest.mark.essential
@pytest.mark.parametrize(
    ("modality", "new_length", "mode", "shape"),
    [
        ("RGB", 1, "test", (8, 3, 6, 7)),
        ("rgb", 1, "twice", (16, 3, 6, 7)),
        ("RGBDiff", 5, "test", (48, 3, 6, 7)),
        ("Flow", 5, "test", (40, 2, 6, 7)),
        ("Flow", 5, "dense-test", (400, 2, 6, 7)),
    ],
)
@pytest.mark.parametrize("count", [1, 4, 100])
def test_shape_of_loaded_clips(modality, new_length, mode, shape, count):
    clip = torch.zeros(count, shape[1], 6, 7, dtype=torch.uint8)
    frames = load_clip(clip, num_segments=8, new_length=new_length, modality=modality, mode=mode)
    assert frames.dtype == torch.uint8
    assert frames.shape == shape


@pytest.mark.essential
def test_loaded_frames_are_the_sampled_ones(videos):
    path, expected = videos("h264 in MP4")
    indices = segment_indices(COUNT, 8, 1).flatten()
    assert torch.equal(load_clip(path, num_segments=8), expected[indices])
    # A snippet of differences has one frame more, and the formula knows it.
    indices = segment_indices(20, 3, 6).flatten() + 10
    frames = load_clip(path, num_segments=3, new_length=5, modality="RGBDiff", start=10, stop=30)
    assert torch.equal(frames, expected[indices])


def test_channels_that_lie_together_stay_together(videos, tmp_path):
    path, _ = videos("h264 in MP4")
    Image.new("RGB", (9, 8)).save(tmp_path / "img_00001.png")
    together = np.zeros((3, 8, 9, 3), dtype=np.uint8)
    for clip in (path, tmp_path, together):
        frames = load_clip(clip, num_segments=3)
        assert frames.is_contiguous(memory_format=torch.channels_last)
    planes = np.ascontiguousarray(together.transpose(0, 3, 1, 2))
    assert load_clip(planes, num_segments=3).is_contiguous()


def test_training_draws_follow_the_generator(six_frames):
    clip = six_frames.repeat(8, 1, 1, 1)
    draws = [
        load_clip(clip, num_segments=4, mode="train", generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_only_sampled_frames_are_asked_for():
    class Counting(FrameSource):
        name, channels, asked = "counting", 3, 0

        def __len__(self):
            return 10**9

        def _frames(self, indices):
            for index in indices:
                self.asked += 1
                yield index, torch.full((3, 4, 4), index % 251, dtype=torch.uint8)

    source = Counting()
    frames = load_clip(source, num_segments=8, new_length=1, start=5)
    assert source.asked == 8
    expected = segment_indices(10**9 - 5, 8, 1).flatten() + 5
    assert values(frames) == [[index % 251] * 3 for index in expected.tolist()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_segments": 0}, "num_segments"),
        ({"new_length": 0}, "new_length"),
        ({"new_length": 0, "modality": "RGBDiff"}, "new_length"),
        ({"mode": "middle"}, "mode"),
        ({"stop": 7}, "start and stop"),
    ],
)
def test_wrong_options_are_named(options, message, six_frames):
    with pytest.raises(ValueError, match=message):
        load_clip(six_frames, **({"num_segments": 3} | options))


# --- real clips ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "fps"), [("arm_wrestling.mp4", 280, 28), ("short.avi", 164, 25)]
)
def test_real_videos(name, count, fps, epic_test_data):
    path = epic_test_data / "clips" / name
    source, expected = VideoFile(path), decoded(path)
    assert (len(source), source.fps) == (count, fps)
    for index in range(0, count, 31):
        assert torch.equal(source.read([index])[0], expected[index])
    assert source.index_at(2.0) == 2 * fps
    indices = segment_indices(count, 8, 1).flatten()
    assert torch.equal(load_clip(path, num_segments=8), expected[indices])


def test_real_folder(epic_test_data):
    folder = epic_test_data / "clips" / "frames"
    rgb, flow = open_frames(folder), open_frames(folder, "Flow")
    assert (len(rgb), len(flow)) == (10, 5)
    assert rgb.read([9, 0]).shape == (2, 3, 240, 320)
    expected = [np.asarray(Image.open(folder / f"{half}_00002.jpg")) for half in "xy"]
    assert np.array_equal(flow.read([1])[0], np.stack(expected))
    frames = load_clip(folder, num_segments=8, new_length=5, modality="Flow")
    assert frames.shape == (40, 2, 240, 320)
    assert abs(frames.float().mean() - 128) < 10


@pytest.mark.parametrize(("modality", "frames"), [("RGB", 1), ("Flow", 5), ("RGBDiff", 6)])
def test_snippets_are_as_long_as_the_models_unless_told(modality: str, frames: int) -> None:
    channels = 2 if modality == "Flow" else 3
    clip = torch.zeros(20, channels, 8, 8, dtype=torch.uint8)
    assert len(load_clip(clip, num_segments=2, modality=modality)) == 2 * frames
