"""Live sources that other processes send over the network to this machine."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- fixture
from helpers.live_sender import sending
from helpers.live_videos import (  # noqa: F401 -- fixtures
    LOW_DELAY,
    messages,
    no_thread_left,
    numbers,
    video_fixture,
)
from helpers.videos import COUNT, encode, number_in

from data.live import LiveFrames


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_http(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sending(video, "http", speed=4) as sender, LiveFrames(sender.target, drop=False) as frames:
        found = list(frames)
    assert numbers(found) == list(range(COUNT))
    assert [frame.seconds for frame in found] == pytest.approx([n / 25 for n in range(COUNT)])
    assert frames.name == sender.target
    (message,) = messages(caplog)  # a warning: network streams do not end by themselves
    assert message.startswith(f"WARNING {sender.target}: ended after {COUNT} frames: ")


def test_a_sender_that_is_killed(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sending(video, "http", speed=2) as sender, LiveFrames(sender.target, drop=False) as frames:
        found = [next(frames)]
        sender.kill()
        found += frames
    assert 1 < len(found) < COUNT
    assert numbers(found) == list(range(len(found)))
    assert f"WARNING {sender.target}: ended after {len(found)} frames" in messages(caplog)[-1]


def test_udp(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"udp://127.0.0.1:{free_udp_port()}"
    with (
        sending(video, f"{url}?pkt_size=1316", speed=2),
        LiveFrames(url, timeout=2, drop=False) as frames,
    ):
        found = numbers(frames)
    assert found == list(range(found[0], COUNT))
    expected = f"WARNING {url}: ended after {len(found)} frames: no data for 2 seconds"
    assert messages(caplog)[-1] == expected


def test_a_source_faster_than_its_reader_drops_frames_and_stays_live(tmp_path: Path) -> None:
    video = encode(tmp_path / "a.ts", "libx264", options=LOW_DELAY, rate=200, count=250)
    found = []
    with sending(video, "http") as sender, LiveFrames(sender.target) as frames:
        start = time.monotonic()
        for frame in frames:
            found.append(number_in(frame.image))
            late = time.monotonic() - start - frame.seconds
            time.sleep(0.05)
    assert late < 2, "it would be 10 seconds late if frames waited"
    assert found == sorted(found)
    assert found[-1] == 249
    assert frames.dropped > 100
    assert len(found) + frames.dropped == 250


def test_a_recording_waits_for_a_slow_reader(
    http_server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "data.live")
    path = encode(tmp_path / "a.mkv", "libx264", options=LOW_DELAY)
    http_server.replies["/a.mkv"] = path.read_bytes()
    url = http_server.url("/a.mkv")
    with LiveFrames(url) as frames:
        time.sleep(0.3)
        assert numbers(frames) == list(range(COUNT))
    assert frames.dropped == 0
    assert messages(caplog) == [f"INFO {url}: ended after {COUNT} frames: end of data"]


def test_control_c_while_the_network_is_opened(silent_port: int) -> None:
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        LiveFrames(f"http://127.0.0.1:{silent_port}/camera", timeout=3)
    (reader,) = [thread for thread in threading.enumerate() if thread.name == "LiveFrames"]
    reader.join()  # the read goes on to its timeout, for which nobody waited


def test_closing_while_the_network_is_silent(video: Path) -> None:
    with sending(video, "http", speed=10, linger=60) as sender:
        frames = LiveFrames(sender.target, timeout=1)
        next(frames)
        closer = threading.Timer(0.3, frames.close)
        closer.start()
        assert len(list(frames)) < COUNT
        closer.join(timeout=20)
        assert not closer.is_alive()


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
def test_a_server_that_says_nothing(silent_port: int, scheme: str) -> None:
    url = f"{scheme}://user:secret@127.0.0.1:{silent_port}/camera"
    with pytest.raises(TimeoutError) as error:
        LiveFrames(url, timeout=0.3)
    shown = f"{scheme}://127.0.0.1:{silent_port}/camera"
    assert str(error.value) == f"{shown}: no video came within 0.3 seconds"


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
def test_a_server_that_refuses(scheme: str) -> None:
    with socket.socket() as bound:  # it does not listen
        bound.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ConnectionRefusedError) as error:
            LiveFrames(url)
    assert str(error.value) == f"{url}: the URL cannot be opened: Connection refused"


def test_a_protocol_that_ffmpeg_lacks() -> None:
    with pytest.raises(ValueError, match=r"^foo://camera: the FFmpeg in PyAV [\d.]+ cannot read"):
        LiveFrames("foo://camera")
