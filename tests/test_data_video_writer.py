"""Written videos, read back with the project's own reader."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.videos import COUNT, av, number_in, picture
from torch import Tensor

import data.video_writer
from data.video import VideoFile
from data.video_writer import VideoWriter


def numbered(number: int) -> Tensor:
    return torch.from_numpy(picture(number)).permute(2, 0, 1)


@pytest.mark.essential
@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
@pytest.mark.parametrize("ending", [".mp4", ".MKV", ".mov"])
def test_every_frame_comes_back_at_its_rate(
    encoder: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if encoder not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {encoder}")
    options = data.video_writer._ENCODERS[encoder]
    monkeypatch.setattr(data.video_writer, "_ENCODERS", {encoder: options})
    path = tmp_path / f"out{ending}"
    with VideoWriter(path, rate=30000 / 1001) as writer:
        for number in range(COUNT):
            writer.write(numbered(number))
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    video = VideoFile(path, strict=True)
    frames = video.read(range(len(video)))
    assert [number_in(frame) for frame in frames] == list(range(COUNT))
    assert video.times == pytest.approx([n * 1001 / 30000 for n in range(COUNT)], abs=6e-4)


@pytest.mark.parametrize("color", [(255, 0, 0), (20, 200, 40), (40, 60, 240), (255, 255, 255)])
def test_colours_stay(color: tuple[int, int, int], tmp_path: Path) -> None:
    image = torch.tensor(color, dtype=torch.uint8)[:, None, None].expand(3, 48, 64)
    with VideoWriter(tmp_path / "out.mp4", rate=25) as writer:
        writer.write(image)
    read = VideoFile(tmp_path / "out.mp4").read([0])[0]
    assert (read.int() - image.int()).abs().max() <= 4


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (47, 63), (48, 63)])
def test_odd_sizes_gain_a_row_or_column(size: tuple[int, int], tmp_path: Path) -> None:
    h, w = size
    with VideoWriter(tmp_path / "out.mp4", rate=25) as writer:
        for _ in range(3):
            writer.write(torch.linspace(0, 255, h)[None, :, None].expand(3, h, w).byte())
    read = VideoFile(tmp_path / "out.mp4").read([0, 1, 2])
    assert read.shape == (3, 3, h + h % 2, w + w % 2)
    assert (read[..., h - 1, :].int() - 255 * (h > 1)).abs().max() < 12  # and its repetition:
    assert (read[..., -1, :].int() - 255 * (h > 1)).abs().max() < 12


def test_given_seconds_become_timestamps(tmp_path: Path) -> None:
    given = [0, 0.01, 0.5, 0.5, 0.5001, 2, None, 3.5]
    path = tmp_path / "out.mkv"
    with VideoWriter(path, rate=10) as writer:
        for number, seconds in enumerate(given):
            writer.write(numbered(number), seconds)
    video = VideoFile(path)
    assert video.times == pytest.approx([0, 0.01, 0.5, 0.501, 0.502, 2, 2.1, 3.5], abs=1e-6)
    assert [number_in(frame) for frame in video.read(range(8))] == list(range(8))


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_players_see_a_common_kind_of_video(ending: str, tmp_path: Path) -> None:
    if not shutil.which("ffprobe") or "libx264" not in av.codecs_available:
        pytest.skip("ffprobe is not installed, or this PyAV has no libx264")
    path = tmp_path / f"out{ending}"
    with VideoWriter(path, rate=25) as writer:
        for number in range(COUNT):
            writer.write(numbered(number), 5 + number / 25)
    entries = "stream=codec_name,pix_fmt,color_space,avg_frame_rate,start_time,nb_read_frames"
    printed = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "flat", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not printed.stderr
    for fact in ('"h264"', '"yuv420p"', '"bt709"', '"25/1"', '"5.000000"', f'"{COUNT}"'):
        assert fact in printed.stdout


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_block_that_fails(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("older")

    def write_some(count: int) -> None:
        with VideoWriter(path, rate=25) as writer:
            for number in range(count):
                writer.write(numbered(number))
            raise error

    for count in (0, 1, COUNT):
        with pytest.raises(error):
            write_some(count)
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_text() == "older"


def test_closed_before_an_interruption_the_video_stays(tmp_path: Path) -> None:
    def write_and_stop() -> None:
        with VideoWriter(tmp_path / "out.mp4", rate=25) as writer:
            writer.write(numbered(7))
            writer.close()
            writer.close()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    (path,) = tmp_path.iterdir()
    assert number_in(VideoFile(path).read([0])[0]) == 7


def test_without_frames_there_is_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), VideoWriter(tmp_path / "out.mp4", rate=25):
        pass
    assert "no frame was written" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_full_disk_is_told_and_nothing_is_left(ending: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits of files are POSIX's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = torch.randint(256, (20, 3, 480, 640), dtype=torch.uint8)
    written = 0

    def write_all() -> None:
        nonlocal written
        with VideoWriter(tmp_path / f"out{ending}", rate=25) as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
            for image in noise.repeat(10, 1, 1, 1):
                writer.write(image)
                written += 1

    try:
        with pytest.raises(OSError, match="File too large"):
            write_all()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert written < 100  # the encoder holds some back
    assert not list(tmp_path.iterdir())


def test_destinations_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"path must be one of .mp4, .mov, .mkv, got '.avi'"):
        VideoWriter(tmp_path / "out.avi", rate=25)
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*missing"):
        VideoWriter(tmp_path / "missing" / "out.mp4", rate=25)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(IsADirectoryError, match=r"got a folder: .*folder\.mp4"):
        VideoWriter(tmp_path / "folder.mp4", rate=25)
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"rate must be from 0.001 to 1000"):
            VideoWriter(tmp_path / "out.mp4", rate=rate)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        VideoWriter(tmp_path / "out.mp4", rate=25)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mp4"]


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_frames_an_hour_apart(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{ending}"
    with VideoWriter(path, rate=25) as writer:
        for hour in range(6):
            writer.write(numbered(hour), 3600 * hour)
    assert VideoFile(path).times == pytest.approx([3600 * hour for hour in range(6)])


def test_frames_that_do_not_fit(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", rate=25) as writer:
        for wrong in (torch.zeros(3, 8, 8), numbered(0)[:2], numbered(0)[None], numbered(0)[:, :0]):
            with pytest.raises(ValueError, match=r"image must be uint8 \(3, H, W\), got torch\."):
                writer.write(wrong)
        writer.write(numbered(0), 2.0)
        with pytest.raises(ValueError, match=r"size of the first, 64 x 48 .*, got 48 x 64"):
            writer.write(numbered(0).mT)
        for seconds in (1.9, -1, 3602.1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=r"seconds must be from 2.0, .* to 3602.0, got"):
                writer.write(numbered(0), seconds)
        writer.write(numbered(1))
    with pytest.raises(ValueError, match="is closed"):
        writer.write(numbered(2))
    assert len(VideoFile(tmp_path / "out.mp4")) == 2  # what was refused did no harm
