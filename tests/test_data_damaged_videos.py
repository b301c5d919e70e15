"""Videos that are damaged, cut off or still being written: what is sound keeps its number."""

import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.video_kinds import videos_fixture  # noqa: F401 -- a fixture
from helpers.videos import (
    COUNT,
    HEIGHT,
    WIDTH,
    X264,
    av,
    cut,
    encode,
    erase_packets,
    mp4,
    number_in,
    patch,
    picture,
    read_numbers,
    show_frames,
)

from data.video import VideoFile, open_frames


def transport_stream(path: Path, first: int, count: int, *, sound: bool = False) -> bytes:
    """Return a part of a recording, from frame `first` on."""
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


def test_a_lost_frame_shows_the_one_before_it(tmp_path, caplog):
    options = X264 | {"bf": "0", "g": "10"}
    path = encode(tmp_path / "sound.mp4", "libx264", options=options)
    source = VideoFile(erase_packets(path, tmp_path / "damaged.mp4", 39))
    assert len(source) == COUNT
    for indices in ([39], [45, 39], list(range(COUNT))):
        frames = source.read(indices)
        assert "show the frame before" in caplog.text
        caplog.clear()
        shown = dict(zip(indices, map(number_in, frames), strict=True))
        assert shown == {index: 38 if index == 39 else index for index in indices}


def test_a_strict_reader_refuses_frames_that_are_lost(tmp_path):
    options = X264 | {"bf": "0", "g": "10"}
    path = encode(tmp_path / "sound.mp4", "libx264", options=options)
    source = open_frames(erase_packets(path, tmp_path / "damaged.mp4", 39), strict=True)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"damaged\.mp4: frame 39 \(from 0\) cannot be decoded"
        ):
            source.read([5, 39])
    assert [number_in(frame) for frame in source.read([5, 38, 45])] == [5, 38, 45]
    assert number_in(open_frames(tmp_path / "damaged.mp4").read([39])[0]) == 38


def test_damage_at_the_beginning_renumbers_nothing(tmp_path, caplog):
    found = read_numbers(erase_packets(mp4(tmp_path), tmp_path / "damaged.mp4", *range(5)))
    assert len(found) == COUNT
    assert found[12:] == list(range(12, COUNT))  # from the next key frame on
    assert "show the frame before" in caplog.text


@pytest.mark.parametrize("lost", [12, 24, 36])
def test_a_lost_key_frame_renumbers_nothing(lost, tmp_path, caplog):
    """What was shown before it comes late out of the decoder, but comes."""
    found = read_numbers(erase_packets(mp4(tmp_path), tmp_path / "damaged.mp4", lost))
    assert len(found) == COUNT
    assert found[: lost - 3] == list(range(lost - 3))
    assert found[lost - 1] == lost - 1
    assert found[lost + 12 :] == list(range(lost + 12, COUNT))
    assert "show the frame before" in caplog.text


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


def test_a_stream_may_begin_in_the_middle(tmp_path):
    null_packets = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 30_000  # past what is read to probe
    parts = [
        transport_stream(tmp_path / "part.ts", first, 20, sound=first == 20)
        for first in (0, 20, 40)
    ]
    (tmp_path / "all.ts").write_bytes(parts[0] + null_packets + parts[1] + parts[2])
    assert read_numbers(tmp_path / "all.ts") == list(range(60))


def test_a_hole_is_not_the_end(tmp_path):
    data = transport_stream(tmp_path / "x.ts", 0, 100)
    half = len(data) // 188 // 2 * 188
    (tmp_path / "hole.ts").write_bytes(data[:half] + bytes(188 * 1600) + data[half:])
    source = VideoFile(tmp_path / "hole.ts")
    assert len(source) == 100
    assert number_in(source.read([99])[0]) == 99
    (tmp_path / "tail.ts").write_bytes(data + bytes(200_000))
    assert read_numbers(tmp_path / "tail.ts") == list(range(100))


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


def test_trimmed_videos_and_late_starts_are_no_damage(tmp_path, caplog):
    trimmed = VideoFile(patch(mp4(tmp_path), tmp_path / "trimmed.mp4", show_frames(0, 10)))
    assert len(trimmed) < COUNT
    late = [number + 1000 for number in range(COUNT)]
    for name in ("late.mkv", "late.ts", "late.flv", "late.mp4"):
        assert len(VideoFile(encode(tmp_path / name, "libx264", options=X264, times=late))) == COUNT
    transport_stream(tmp_path / "sound.ts", 0, 20, sound=True)
    VideoFile(tmp_path / "sound.ts")
    thirds = range(0, 60, 3)  # an AVI has empty chunks for those in between
    dropped = encode(
        tmp_path / "dropped.avi", "mpeg4", pictures=[*map(picture, thirds)], times=thirds
    )
    assert read_numbers(dropped) == list(thirds)
    assert not caplog.records


def test_a_file_may_grow_after_it_was_opened(tmp_path):
    data = transport_stream(tmp_path / "x.ts", 0, 60)
    path = tmp_path / "growing.ts"
    path.write_bytes(data[: len(data) // 2 // 188 * 188])
    source = VideoFile(path)
    path.write_bytes(data)
    found = [number_in(frame) for frame in source.read(range(len(source)))]
    assert found[:20] == list(range(20))
    assert found == sorted(found)


def test_a_file_that_vanishes_is_named(tmp_path):
    path = mp4(tmp_path).rename(tmp_path / "vanishing.mp4")
    source = VideoFile(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"vanishing\.mp4: .*No such file"):
        source.read([0])
