"""Videos that players show and readers trip over: turned, of several streams, in file objects."""

import io
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import (
    COUNT,
    HEIGHT,
    WIDTH,
    X264,
    av,
    encode,
    mp4,
    number_in,
    patch,
    picture,
    read_numbers,
)

from data.video import VideoFile


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
    assert read_numbers(path) == list(range(20))


def set_matrix(*numbers: int) -> Callable[[bytearray], None]:
    """Set a, b, c and d of an MP4 file's display matrix, which have 16 binary places."""
    a, b, c, d = numbers

    def change(data: bytearray) -> None:
        place = data.find(b"tkhd") + 4 + 40
        struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)

    return change


def test_the_whole_display_matrix_is_applied(tmp_path):
    """Where x and y of a stored pixel go: each along either axis, either way."""
    path, one = mp4(tmp_path), 1 << 16
    stored = VideoFile(path).read([5])[0]
    for quarter_turn, right, down in product((False, True), (one, -one), (one, -one)):
        turn = set_matrix(*((0, down, right, 0) if quarter_turn else (right, 0, 0, down)))
        expected = stored.transpose(1, 2) if quarter_turn else stored
        expected = expected.flip([axis for axis, way in ((2, right), (1, down)) if way < 0])
        (frame,) = VideoFile(patch(path, tmp_path / "turned.mp4", turn)).read([5])
        assert frame.equal(expected), (quarter_turn, right, down)


def test_a_video_turned_counter_clockwise_has_its_upper_left_corner_below(tmp_path):
    corner = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    corner[:16, :16] = 255
    path = tmp_path / "x.mp4"
    encode(path, "libx264", options=X264, pictures=[corner] * 15, rotation=90)
    for frame in VideoFile(path).read([0, 13]):
        assert frame.shape[1:] == (WIDTH, HEIGHT)
        bright = (frame[:, [4, -5]][:, :, [4, -5]] > 128).all(dim=0)
        assert bright.tolist() == [[False, False], [True, False]]


def test_an_angle_between_quarter_turns_is_left_alone(tmp_path):
    path = mp4(tmp_path)
    for cosine in (50_000, -50_000):
        tilt = set_matrix(cosine, 42_000, -42_000, cosine)
        tilted = patch(path, tmp_path / "tilted.mp4", tilt)
        assert VideoFile(tilted).read([5]).equal(VideoFile(path).read([5]))


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path, caplog):
    small = encode(tmp_path / "a.h264", "libx264", options=X264, count=20).read_bytes()
    doubled = [picture(number).repeat(2, axis=0).repeat(2, axis=1) for number in range(20, 40)]
    large = encode(tmp_path / "b.h264", "libx264", options=X264, pictures=doubled).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(small + large)
    source = VideoFile(path)
    for indices in ([30], [0, 39]):
        frames = source.read(indices)
        assert [number_in(frame) for frame in frames] == indices
        assert frames.shape[1:] == (3, 48, 64)
    (record,) = caplog.records
    assert "from 64 x 48 to 128 x 96 (width x height): all are scaled" in record.message
    assert read_numbers(path) == list(range(40))


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
    assert read_numbers(path) == list(range(20))


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
    with pytest.raises(ValueError, match="file object: not a video file"):
        VideoFile(io.BytesIO(b"neither here nor there" * 100))
