"""What only looks like a video, and is refused by name."""

import io
import os
import random
import sys
import tarfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import COUNT, HEIGHT, WIDTH, X264, av, cut, encode, mp4, patch, picture
from PIL import Image, features

from data.video import VideoFile, open_frames


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


def still(path: Path) -> Path:
    if path.suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    Image.fromarray(picture(1)).save(path)
    return path


def play_list(folder: Path) -> Path:
    mp4(folder)
    return filled(folder / "list.ffconcat", b"ffconcat version 1.0\nfile plain.mp4\n")


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
        "picture": lambda f: still(f / "a.png"),
        "play list": play_list,
    }.items(),
    ids=lambda item: item[0],
)
def test_files_without_video_are_refused_by_name(make, tmp_path):
    path = make[1](tmp_path)
    with pytest.raises(ValueError, match="accepted are a video file, a folder") as error:
        open_frames(path)
    assert str(path) in str(error.value)


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


def test_names_that_look_like_addresses_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mp4(tmp_path).rename("http:clip %03d.mp4")
    assert len(open_frames("http:clip %03d.mp4")) == COUNT


def test_missing_package_is_named(tmp_path, monkeypatch):
    path = mp4(tmp_path)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="package `av`"):
        VideoFile(path)
