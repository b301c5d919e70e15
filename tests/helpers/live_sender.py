"""A process that sends a video as it goes, as a camera or another program would.

    with sending(video, "http") as sender:
        LiveFrames(sender.target)

Run as a program, it needs nothing but PyAV, to start quickly.
"""

import argparse
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av


@dataclass
class Sender:
    """A running sender, and where its video can be read."""

    process: subprocess.Popen[str]
    target: str

    def go_on(self) -> None:
        """End the pause that the option `pause` asked for."""
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def sending(
    video: Path, target: str, *, file_format: str = "mpegts", **options: float
) -> Iterator[Sender]:
    """Send a video in its own time to a path, a UDP URL, or the first client of an HTTP server.

    Options: `speed` (1 is the video's own), `pause` (packets to send before a pause), `linger`
    (seconds to stay silent in the end).
    """
    arguments = [f"--{name}={value}" for name, value in options.items()]
    process = subprocess.Popen(
        [sys.executable, __file__, video, target, file_format, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Sender(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def _accept() -> object:
    """Answer one HTTP request; return the file object that its body goes to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"http://127.0.0.1:{server.getsockname()[1]}/camera.ts", flush=True)
        connection, _ = server.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Type: video/mp2t\r\n\r\n")
    return connection.makefile("wb", buffering=0)


def _paced(packets: Iterator[av.Packet], speed: float) -> Iterator[av.Packet]:
    start = time.monotonic()
    first = None
    for packet in packets:
        first = packet.dts if first is None else first
        seconds = float((packet.dts - first) * packet.time_base) / speed
        time.sleep(max(0.0, start + seconds - time.monotonic()))
        yield packet


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("video")
    parser.add_argument("target")
    parser.add_argument("format")
    parser.add_argument("--speed", type=float, default=1)
    parser.add_argument("--pause", type=int)
    parser.add_argument("--linger", type=float, default=0)
    args = parser.parse_args()
    if args.target == "http":
        target = _accept()
    else:
        print(args.target, flush=True)
        target = args.target
    fragments = {"movflags": "frag_every_frame+empty_moov+default_base_moof"}
    options = {"flush_packets": "1"} | (fragments if args.format == "mp4" else {})
    with (
        av.open(args.video) as source,
        av.open(target, "w", format=args.format, options=options) as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        packets = (packet for packet in source.demux(video=0) if packet.size)
        for number, packet in enumerate(_paced(packets, args.speed)):
            if number == args.pause:
                sys.stdin.readline()
            packet.stream = stream
            output.mux(packet)
        time.sleep(args.linger)


if __name__ == "__main__":
    main()
