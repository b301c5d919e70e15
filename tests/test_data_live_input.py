"""Opening live sources: devices by a stand-in, and what cannot be opened."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.live_videos import copying, no_thread_left, numbers, video_fixture  # noqa: F401
from helpers.videos import COUNT, HEIGHT, WIDTH, X264, av, encode, picture

from data import live_input
from data.decoder import open_container
from data.live import LiveFrames


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_devices_are_opened_with_v4l2(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, dict[str, Any]]] = []

    def stand_in(target: object, **arguments: Any) -> Any:
        calls.append((target, arguments))
        return open_container(str(video))

    monkeypatch.setattr(live_input, "open_container", stand_in)
    options: Any = {"video_size": "640x480", "framerate": 30}
    with LiveFrames("/dev/video7", options=options, drop=False) as frames:
        assert numbers(frames) == list(range(COUNT))
    expected = {"format": "v4l2", "options": {"video_size": "640x480", "framerate": "30"}}
    assert calls == [("/dev/video7", expected)]


@pytest.fixture
def device(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipe that FFmpeg opens itself: like a camera, it gives frame by frame, or blocks it."""

    def stand_in(target: str, **arguments: Any) -> Any:
        raw = {"video_size": f"{WIDTH}x{HEIGHT}", "pixel_format": "rgb24"}
        return open_container(f"file:{target}", format="rawvideo", options=raw)

    monkeypatch.setattr(live_input, "kind_of", lambda source: "device")
    monkeypatch.setattr(live_input, "open_container", stand_in)
    return pipe


@pytest.fixture
def raw_video(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(b"".join(picture(number).tobytes() for number in range(COUNT)))
    return path


def test_a_device_that_falls_silent(
    device: Path, raw_video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        copying(raw_video, pipe=device, linger=60),
        LiveFrames(device, timeout=0.5, drop=False) as frames,
    ):
        found = numbers(frames)
    assert found == list(range(len(found)))
    assert f"ended after {len(found)} frames: no data for 0.5 seconds" in caplog.text


def test_closing_a_silent_device(device: Path, raw_video: Path) -> None:
    with copying(raw_video, pipe=device, linger=60), LiveFrames(device, timeout=60) as frames:
        next(frames)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("/dev/video99", FileNotFoundError, r"the device cannot be opened: No such .*v4l2; video"),
        ("/dev/null", OSError, "the device cannot be opened: Inappropriate ioctl.*v4l2"),
        ("none.mp4", FileNotFoundError, "the file cannot be opened: No such file"),
        (".", IsADirectoryError, "the file cannot be opened: Is a directory"),
        (__file__, ValueError, "a file without a video that FFmpeg can read as it comes: Inv"),
    ],
)
def test_what_cannot_be_opened(source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{source}: {message}"):
        LiveFrames(source)


def test_a_file_without_permission(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(live_input.os, "open", refuse)
    with pytest.raises(PermissionError, match=r"live.ts: the file cannot be opened: Permission"):
        LiveFrames(video, follow=True)


@pytest.mark.parametrize("name", ["none.ts", "."])
def test_what_cannot_be_followed(name: str) -> None:
    with pytest.raises(OSError, match=f"^{name}: the file cannot be opened: "):
        LiveFrames(name, follow=True)


def test_only_files_can_be_followed(pipe: Path) -> None:
    with pytest.raises(ValueError, match=r"follow=True is for files that grow, and .* is a pipe"):
        LiveFrames(pipe, follow=True)


def test_a_pipe_without_a_sender(pipe: Path) -> None:
    with pytest.raises(TimeoutError, match=r"pipe: no video came within 0.2 seconds"):
        LiveFrames(pipe, timeout=0.2)


def test_a_pipe_without_a_video(pipe: Path) -> None:
    with (
        copying(Path(__file__), pipe=pipe),
        pytest.raises(ValueError, match=r"a pipe without .* \(MP4 only if it is fragmented\): Inv"),
    ):
        LiveFrames(pipe)


def test_a_video_without_a_frame(tmp_path: Path, pipe: Path) -> None:
    # The index is at the end, too far to go back in a pipe.
    path = encode(tmp_path / "a.mp4", "libx264", options={**X264, "g": "1", "qp": "0"}, count=300)
    with copying(path, pipe=pipe), LiveFrames(pipe) as frames:
        with pytest.raises(OSError, match=r"pipe: no frame could .*: it broke off \(Inv"):
            next(frames)
        assert list(frames) == []


def test_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match=r"has no video stream that can be decoded, but audio"):
        LiveFrames(path)


def test_sound_that_goes_on_without_the_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "data.live")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream("mjpeg", rate=25), container.add_stream("pcm_s16le")
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for number in range(10):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture(number))))
        container.mux(pictures.encode())
        for second in range(1, 4):
            samples = av.AudioFrame(format="s16", layout="stereo", samples=4800)
            samples.sample_rate, samples.pts = 48000, 48000 * second
            container.mux(sound.encode(samples))
    with LiveFrames(path, timeout=1e-6) as frames:
        assert numbers(frames) == list(range(10))
    assert "ended after 10 frames: no data for 1e-06 seconds" in caplog.text


def test_without_pyav(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        LiveFrames(video)
