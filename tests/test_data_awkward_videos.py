"""Videos that players show, and that readers trip over; and what only looks like a video."""

import io
import logging
import os
import random
import shutil
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from test_data_video import COUNT, X264, encode, mp4, number_in, patch, picture

from data.video_file import VideoFile

av = pytest.importorskip("av", reason="PyAV (package `av`) is not installed")

ONE = 1 << 16  # of a display matrix, whose numbers have 16 binary places


def numbers(path: Path) -> list[int]:
    """The numbers in all frames, read in sequence; one by one they have to be the same."""
    source = VideoFile(path)
    found = [number_in(frame) for frame in source.read(range(len(source)))]
    alone = [number_in(VideoFile(path).read([index])[0]) for index in range(0, len(source), 3)]
    assert alone == found[::3]
    return found


def test_a_palette_is_not_lost_by_a_jump(tmp_path):
    path = tmp_path / "grey.avi"
    palette = np.stack([np.full(256, 255), *[np.arange(256)] * 3], axis=1).astype(np.uint8)  # ARGB
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for number in range(20):
            pixels = picture(number)[..., 0].copy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray((pixels, palette), "pal8")))
        container.mux(stream.encode())
    assert numbers(path) == list(range(20))


@pytest.mark.parametrize("quarter_turn", [False, True])
@pytest.mark.parametrize("down", [1, -1])
@pytest.mark.parametrize("right", [1, -1])
def test_the_whole_display_matrix_is_applied(right, down, quarter_turn, tmp_path):
    """Where x and y of a stored pixel go: each along either axis, either way."""
    rows = ((0, down), (right, 0)) if quarter_turn else ((right, 0), (0, down))

    def turn(data: bytearray) -> None:
        place = data.find(b"tkhd") + 4 + 40
        (a, b), (c, d) = rows
        matrix = (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
        struct.pack_into(">9i", data, place, *matrix)

    path = mp4(tmp_path)
    stored = VideoFile(path).read([5])[0]
    expected = stored.transpose(1, 2) if quarter_turn else stored
    flipped = [axis for axis, way in ((2, right), (1, down)) if way < 0]
    assert (
        VideoFile(patch(path, tmp_path / "turned.mp4", turn))
        .read([5])[0]
        .equal(expected.flip(flipped))
    )


def test_an_angle_between_quarter_turns_is_left_alone(tmp_path):
    def tilt(data: bytearray) -> None:
        matrix = (50_000, 42_000, 0, -42_000, 50_000, 0, 0, 0, 1 << 30)
        struct.pack_into(">9i", data, data.find(b"tkhd") + 44, *matrix)

    path = mp4(tmp_path)
    tilted = patch(path, tmp_path / "tilted.mp4", tilt)
    assert VideoFile(tilted).read([5]).equal(VideoFile(path).read([5]))


def transport_stream(path: Path, first: int, count: int, *, sound: bool = False) -> bytes:
    """A part of a recording, from frame `first` on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=X264)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("mp2", rate=44100) if sound else None
        for number in range(first, first + count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
            if audio is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 3528), np.int16), "s16", "stereo")
                silence.rate, silence.pts = 44100, number * 1764
                container.mux(audio.encode(silence))
        container.mux(stream.encode())
        if audio is not None:
            container.mux(audio.encode())
    return path.read_bytes()


def test_a_stream_may_begin_in_the_middle(tmp_path):
    null_packets = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 30_000  # past what is read to probe
    parts = [
        transport_stream(tmp_path / "part.ts", first, 20, sound=first == 20)
        for first in (0, 20, 40)
    ]
    (tmp_path / "all.ts").write_bytes(parts[0] + null_packets + parts[1] + parts[2])
    assert numbers(tmp_path / "all.ts") == list(range(60))


def test_a_hole_is_not_the_end(tmp_path):
    data = transport_stream(tmp_path / "x.ts", 0, 100)
    half = len(data) // 188 // 2 * 188
    (tmp_path / "hole.ts").write_bytes(data[:half] + bytes(188 * 1600) + data[half:])
    source = VideoFile(tmp_path / "hole.ts")
    assert len(source) == 100
    assert number_in(source.read([99])[0]) == 99
    (tmp_path / "tail.ts").write_bytes(data + bytes(200_000))
    assert numbers(tmp_path / "tail.ts") == list(range(100))


def test_damage_at_the_beginning_renumbers_nothing(tmp_path, caplog):
    path = mp4(tmp_path)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        head = [(packet.pos, packet.size) for packet in packets[:5]]

    def destroy(data: bytearray) -> None:
        for place, size in head:
            data[place : place + size] = bytes(size)

    found = numbers(patch(path, tmp_path / "damaged.mp4", destroy))
    assert len(found) == COUNT
    assert found[12:] == list(range(12, COUNT))  # from the next key frame on
    assert "show the frame before" in caplog.text


@pytest.mark.parametrize("lost", [12, 24, 36])
def test_a_lost_key_frame_renumbers_nothing(lost, tmp_path, caplog):
    """What was shown before it comes late out of the decoder, but comes."""
    path = mp4(tmp_path)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[lost].pos, packets[lost].size

    def destroy(data: bytearray) -> None:
        data[place : place + size] = bytes(size)

    found = numbers(patch(path, tmp_path / "damaged.mp4", destroy))
    assert len(found) == COUNT
    assert found[: lost - 3] == list(range(lost - 3))
    assert found[lost - 1] == lost - 1
    assert found[lost + 12 :] == list(range(lost + 12, COUNT))
    assert "show the frame before" in caplog.text


def test_a_file_may_grow_after_it_was_opened(tmp_path):
    data = transport_stream(tmp_path / "x.ts", 0, 60)
    path = tmp_path / "growing.ts"
    path.write_bytes(data[: len(data) // 2 // 188 * 188])
    source = VideoFile(path)
    path.write_bytes(data)
    found = [number_in(frame) for frame in source.read(range(len(source)))]
    assert found[:20] == list(range(20))
    assert found == sorted(found)


def test_a_lost_packet_is_lost_however_frames_are_read(tmp_path):
    """The key frame is lost on which two B-frames depend: something else comes in its place."""
    path = encode(tmp_path / "x.mp4", "mpeg2video", options={"bf": "2", "g": "5"}, count=46)
    with av.open(str(path)) as old, av.open(str(tmp_path / "lost.mp4"), "w") as new:
        target = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            if number != 43:
                packet.stream = target
                new.mux(packet)
    source = VideoFile(tmp_path / "lost.mp4")
    together = source.read(range(len(source)))
    for index in range(len(source)):
        assert VideoFile(tmp_path / "lost.mp4").read([index])[0].equal(together[index])


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path, caplog):
    small = encode(tmp_path / "a.h264", "libx264", options=X264, count=20).read_bytes()
    with av.open(str(tmp_path / "b.h264"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=X264)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(20, 40):
            large = picture(number).repeat(2, axis=0).repeat(2, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
    path = tmp_path / "both.h264"
    path.write_bytes(small + (tmp_path / "b.h264").read_bytes())
    source = VideoFile(path)
    for indices in ([30], [0, 39]):
        frames = source.read(indices)
        assert [number_in(frame) for frame in frames] == indices
        assert frames.shape[1:] == (3, 48, 64)
    (record,) = caplog.records
    assert "from 64 x 48 to 128 x 96 (width x height): all are scaled" in record.message
    assert numbers(path) == list(range(40))


@pytest.mark.essential
def test_the_stream_is_the_one_that_players_take(tmp_path):
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        thumbnail = container.add_stream("mjpeg", rate=1)
        thumbnail.width, thumbnail.height, thumbnail.pix_fmt = 32, 32, "yuvj420p"
        video = container.add_stream("libx264", rate=25, options=X264)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        frame.pts = 0
        container.mux(thumbnail.encode(frame))
        container.mux(thumbnail.encode())
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
    assert numbers(path) == list(range(20))


@pytest.mark.parametrize("sizes", [((64, 48), (128, 96)), ((128, 96), (64, 48))])
def test_of_two_videos_the_larger_is_taken_unless_the_other_is_the_default(sizes, tmp_path):
    def write(path: Path, default: int | None) -> Path:
        with av.open(str(path), "w") as container:
            streams = []
            for width, height in sizes:
                stream = container.add_stream("mpeg4", rate=25)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                streams.append(stream)
            kinds = av.stream.Disposition
            for index, stream in enumerate(streams):
                stream.disposition = kinds.default if index == default else kinds.original
            for stream in streams:
                for number in range(3):
                    grey = np.full((stream.height, stream.width, 3), 9, np.uint8)
                    frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                    frame.pts = number
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
        return path

    largest = max(sizes)
    assert VideoFile(write(tmp_path / "none.mkv", None)).read([0]).shape[:1:-1] == largest
    for index, size in enumerate(sizes):
        path = write(tmp_path / f"{index}.mkv", index)
        assert VideoFile(path).read([0]).shape[:1:-1] == size


def still(path: Path) -> Path:
    if path.suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    Image.fromarray(picture(1)).save(path)
    return path


def archive(path: Path) -> Path:
    jpeg = io.BytesIO()
    Image.fromarray(picture(1)).save(jpeg, "JPEG")
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for number in range(5):
                file.writestr(f"frame_{number}.jpg", jpeg.getvalue())
    else:
        with tarfile.open(path, "w") as file:
            for number in range(5):
                info = tarfile.TarInfo(f"frame_{number}.jpg")
                info.size = len(jpeg.getvalue())
                file.addfile(info, io.BytesIO(jpeg.getvalue()))
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def encrypted(path: Path) -> Path:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16}
    return encode(path, "libx264", options=X264, muxer=key | {"encryption_kid": "a7" * 16})


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (still, "photo.avif", "of kind 'avif' without a video"),
        (still, "icon.ico", "of kind 'ico' without a video"),
        (archive, "frames.tar", "a tar, not a video: open_frames reads images in one"),
        (archive, "frames.zip", r"a compressed file \(zip\): unpack it first"),
        (pipe, "pipe.mp4", "must be a regular file, not a pipe"),
        (encrypted, "secret.mp4", "the video is encrypted"),
    ],
)
def test_what_is_no_video_is_refused_by_name(make, name, message, tmp_path):
    path = make(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        VideoFile(path)


def test_trimmed_videos_and_late_starts_are_no_damage(tmp_path, caplog):
    def show_ten(data: bytearray) -> None:
        place = data.find(b"elst") + 12
        (duration,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, duration * 10 // COUNT)

    trimmed = VideoFile(patch(mp4(tmp_path), tmp_path / "trimmed.mp4", show_ten))
    assert len(trimmed) < COUNT
    late = [number + 1000 for number in range(COUNT)]
    for name in ("late.mkv", "late.ts", "late.flv", "late.mp4"):
        assert len(VideoFile(encode(tmp_path / name, "libx264", options=X264, times=late))) == COUNT
    longer = transport_stream(tmp_path / "sound.ts", 0, 20, sound=True)
    (tmp_path / "sound.ts").write_bytes(longer)
    VideoFile(tmp_path / "sound.ts")
    with av.open(str(tmp_path / "dropped.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(0, 60, 3):  # an AVI has empty chunks for those in between
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert numbers(tmp_path / "dropped.avi") == list(range(0, 60, 3))
    assert not caplog.records


def test_colours_that_cannot_be_converted_are_named(tmp_path, monkeypatch):
    source = VideoFile(mp4(tmp_path))

    def fail(*_: object, **__: object) -> None:
        raise av.FFmpegError(22, "Invalid argument")

    monkeypatch.setattr("data.decoder.Decoder.rgb", fail)
    with pytest.raises(ValueError, match=r"plain\.mp4: its colours cannot be .* format yuv420p"):
        source.read([0])


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_readers_of_one_file_object_do_not_disturb_one_another(kind, tmp_path):
    path = encode(tmp_path / "x.mp4", "mjpeg", pixels="yuvj420p", count=200)
    with io.BytesIO(path.read_bytes()) if kind == "bytes" else open(path, "rb") as file:
        source = VideoFile(file)
        found: list[int] = []
        for block in source.blocks(20):
            found += [number_in(frame) for frame in block]
            assert number_in(source.read([199])[0]) == 199
        assert found == list(range(200))
        with ThreadPoolExecutor(4) as pool:
            threads = pool.map(lambda index: number_in(source.read([index])[0]), range(0, 200, 5))
        assert list(threads) == list(range(0, 200, 5))


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_file_objects_are_read_like_paths(kind, tmp_path):
    path = mp4(tmp_path)
    expected = VideoFile(path).read([3, 40])
    with io.BytesIO(path.read_bytes()) if kind == "bytes" else open(path, "rb") as file:
        file.seek(100)  # wherever somebody left it
        source = VideoFile(file)
        assert len(source) == COUNT
        for _ in range(2):
            assert source.read([3, 40]).equal(expected)
        assert not file.closed
    with pytest.raises(ValueError, match=r"a compressed file \(zip\)"):
        VideoFile(io.BytesIO(archive(tmp_path / "a.zip").read_bytes()))
    with pytest.raises(ValueError, match="file object: not a video file"):
        VideoFile(io.BytesIO(b"neither here nor there" * 100))


CODECS = {
    "libx264": ("mp4", "mkv", "avi", "ts", "flv", "mov"),
    "libx265": ("mp4", "mkv", "ts"),
    "mpeg4": ("mp4", "mkv", "avi", "ts", "mov"),
    "mpeg2video": ("mkv", "ts", "mpg", "mp4"),
    "mpeg1video": ("mkv", "mpg"),
    "libvpx": ("webm", "mkv"),
    "libvpx-vp9": ("webm", "mp4"),
    "mjpeg": ("avi", "mov", "mkv"),
    "flv1": ("flv", "avi"),
    "msmpeg4": ("avi",),
    "wmv2": ("asf",),
    "ffv1": ("mkv", "avi"),
}


def random_video(folder: Path, draw: random.Random) -> Path:
    codec = draw.choice([codec for codec in CODECS if codec in av.codecs_available])
    group, rate, b_frames = draw.randint(1, 30), draw.choice([10, 25, 30, 50]), draw.randint(0, 3)
    options = {"g": str(group)}
    if codec == "libx264":
        options |= {"bf": str(b_frames), "preset": "ultrafast", "threads": "1"}
        options["x264-params"] = f"open-gop={draw.randint(0, 1)}:scenecut={draw.choice([0, 40])}"
    elif codec == "libx265":
        gop = f"open-gop={draw.randint(0, 1)}:keyint={group}:bframes={b_frames}"
        options |= {"preset": "ultrafast", "x265-params": f"{gop}:log-level=none:pools=1"}
    elif codec == "libvpx":
        options |= {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}
    elif codec == "libvpx-vp9":
        options |= {"lag-in-frames": str(draw.choice([0, 16])), "cpu-used": "8", "row-mt": "0"}
    elif codec in ("mpeg4", "mpeg2video", "mpeg1video"):
        options["bf"] = str(b_frames)
    suffix = draw.choice(CODECS[codec])
    count = draw.randint(1, 70)
    times = sorted(draw.sample(range(3 * count), count)) if draw.random() < 0.3 else None
    if codec in ("mpeg1video", "mpeg2video"):  # which know these rates and no gaps
        rate, times = draw.choice([25, 30, 50]), None
    path = encode(
        folder / f"{codec}.{suffix}",
        codec,
        options=options,
        pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
        count=count,
        rate=rate,
        times=times,
    )
    if suffix in ("mp4", "mov") and count > 20 and draw.random() < 0.4:

        def trim(data: bytearray) -> None:
            place = data.find(b"elst") + 12
            (duration,) = struct.unpack_from(">I", data, place)
            struct.pack_into(">I", data, place, max(duration * draw.randint(3, 9) // 10, 1))

        path = patch(path, folder / f"trimmed.{suffix}", trim)
    return path


def decoded(path: Path) -> torch.Tensor:
    """All frames, decoded one after the other with PyAV alone."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def assert_every_way_of_reading_agrees(path: Path, draw: random.Random) -> None:
    expected = decoded(path)
    source = VideoFile(path)
    assert len(source) == len(expected)
    assert source.read(range(len(source))).equal(expected)
    for index in draw.sample(range(len(source)), min(4, len(source))):
        assert VideoFile(path).read([index])[0].equal(expected[index])
    some = draw.choices(range(len(source)), k=6)
    assert source.read(some).equal(expected[some])


@pytest.mark.essential
@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(24), id="some"),
        pytest.param(range(24, 500), id="many", marks=pytest.mark.slow),
    ],
)
def test_random_encodings(seeds, tmp_path):
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    for seed in seeds:
        draw = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = random_video(folder, draw)
        try:
            assert_every_way_of_reading_agrees(path, draw)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {path.name}") from error
        shutil.rmtree(folder)
