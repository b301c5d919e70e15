"""Random encodings, read in every way."""

import logging
import random
import shutil
from pathlib import Path

import pytest
from helpers.videos import av, decoded, encode, patch, show_frames

from data.video import VideoFile

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
        tenths = show_frames(0, draw.randint(3, 9), 10)
        path = patch(path, folder / f"trimmed.{suffix}", tenths)
    return path


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
