#!/usr/bin/env python
"""Compute the optical flow of videos, as the images that flow models read.

    python tools/compute_flow.py VIDEO OUT [--preset extension] [--jobs N]
    python tools/compute_flow.py FOLDER OUT

VIDEO is a video file, or a folder or tar of RGB frames; its flow is written to OUT/u and OUT/v,
frame_0000000001.jpg and so on. Of a folder of such videos, or of EPIC-KITCHENS as it is downloaded,
the flow of each goes to OUT/NAME. Flow models read either with modality "Flow".

The method is OpenCV's TV-L1 on the CPU (pip install opencv-contrib-python-headless). It takes about
a minute of one core for a second of video, so the program says first how long all of it will take.
Stopped at any moment, even by a loss of power, it goes on where it was when started again. The
published flow was computed by another program: similar images, not equal ones.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TypeAlias

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image
from torch import Tensor

from checkpoints.files import atomic_write
from data.flow import PRESETS, TVL1, ComputedFlow, FlowConfig, FlowMethod
from data.layouts import find_videos
from data.options import positive_integer
from data.timestamps import nominal_rate
from engine.output_folder import OutputFolder
from engine.processes import count_cores
from engine.progress import show_progress

__all__ = ["main"]

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class _Task:
    """What to do of one video, and what is left of it: indices of flow frames."""

    video: Path
    folder: Path
    chosen: range
    pending: list[int]


_Open: TypeAlias = Callable[[Path], ComputedFlow]


def main(arguments: list[str] | None = None, *, method: FlowMethod | None = None) -> int:
    """Run the program and return the exit status.

    Args:
        arguments: command line without the program's name; None: that of the process.
        method: how to compute motion; None: `TVL1()`.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        failures = _run(options, method)
    except KeyboardInterrupt:
        print(
            f"\n{parser.prog}: stopped; the same command goes on from what is in {options.out}",
            file=sys.stderr,
        )
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    for failure in failures:
        print(f"{parser.prog}: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("video", metavar="VIDEO", type=Path, help="a video, or a folder of videos")
    add("out", metavar="OUT", type=Path, help="folder for the images; made if there is none")
    add(
        "--preset",
        choices=PRESETS,
        help="stride, dilation and bound of the published flow: of the videos of 2018, or of the "
        "extension (default: extension for videos PXX_1YY, epic-kitchens-55 for others)",
    )
    add("--stride", type=int, help="RGB frames from one flow frame to the next")
    add("--dilation", type=int, help="RGB frames that a flow frame spans")
    add("--bound", type=float, help="pixels of motion that grey levels 0 and 255 stand for")
    add("--size", type=int, help="shorter side of the images (default: 256)")
    add(
        "--rate",
        type=float,
        help="read video files at this many frames per second (default: 60 for videos of "
        "EPIC-KITCHENS, 50 for PXX_1YY, and every frame of other files)",
    )
    add("--start", type=int, metavar="FRAME", default=0, help="first RGB frame, from 0")
    add(
        "--stop",
        type=int,
        metavar="FRAME",
        help="RGB frame behind the last. Flow frames that begin in this range are computed, under "
        "the numbers that they have in the whole video: machines can share one",
    )
    add(
        "--jobs",
        type=int,
        default=count_cores(),
        metavar="N",
        help="pairs of frames computed at the same time (default: one a core)",
    )
    return parser


def _run(options: argparse.Namespace, method: FlowMethod | None) -> list[str]:
    """Compute what is missing, and return a message for each video that cannot be read."""
    method = method or TVL1()
    jobs = positive_integer("jobs", options.jobs)

    def open_flow(video: Path) -> ComputedFlow:
        return ComputedFlow(video, _choose_config(video, options), method=method, jobs=jobs)

    _choose_config(options.video, options)  # wrong options are said once

    failures: list[str] = []
    tasks = []
    for video, folder in _find_videos(options.video, options.out).items():
        try:
            flow = open_flow(video)
            chosen = _choose(flow, options.start, options.stop)
        except (ValueError, OSError) as error:
            failures.append(str(error))
            continue
        request = {"video": video.absolute().name, "frames": flow.num_rgb_frames}
        OutputFolder(folder, {**request, **asdict(flow.config), "method": method.name}).begin()
        tasks.append(_prepare(video, folder, chosen))
    if tasks:
        _do(tasks, open_flow, failures, jobs)
    return failures


def _do(tasks: list[_Task], open_flow: _Open, failures: list[str], jobs: int) -> None:
    """Say how long it will take, and do it."""
    total = sum(len(task.chosen) for task in tasks)
    finished = total - sum(len(task.pending) for task in tasks)
    videos = f"{len(tasks)} video" + "s" * (len(tasks) > 1)
    print(f"{total} flow frames of {videos}, {finished} of them there already")
    work = _compute(tasks, open_flow, failures)
    began = time.perf_counter()
    first = sum(1 for _ in islice(work, jobs))
    if first == jobs and finished + first < total:
        left = (time.perf_counter() - began) / first * (total - finished - first)
        duration = timedelta(seconds=round(left))
        print(f"the others will take about {duration} (h:mm:ss) with {jobs} jobs", flush=True)
        for _ in show_progress(work, total, unit="flow frames", done=finished + first):
            pass


def _choose_config(video: Path, options: argparse.Namespace) -> FlowConfig:
    """Return what is asked for, and else what the published flow of a video has."""
    rate = nominal_rate(video.stem)
    preset = options.preset or ("extension" if rate == 50 else "epic-kitchens-55")
    is_video_file = video.is_file() and video.suffix.lower() != ".tar"
    config = replace(PRESETS[preset], rate=rate if is_video_file else None)
    given = {
        name: value
        for name in ("stride", "dilation", "bound", "size", "rate")
        if (value := getattr(options, name)) is not None
    }
    return replace(config, **given)


def _find_videos(path: Path, out: Path) -> dict[Path, Path]:
    """Return the videos at a path, and where the flow of each goes.

    Raises:
        ValueError: for a folder of flow, or one that holds a video twice.
    """
    videos = find_videos(path) if path.is_dir() else {}
    if videos:
        return {video: out / name for name, video in videos.items()}
    if (path / "u").is_dir() and (path / "v").is_dir():
        raise ValueError(
            f"{path}: holds flow already (u/ and v/); give the RGB frames or the video"
        )
    return {path: out}


def _choose(flow: ComputedFlow, start: int, stop: int | None) -> range:
    """Return the indices of the flow frames that begin in a range of RGB frames."""
    end = flow.num_rgb_frames
    stop = end if stop is None else stop
    if not 0 <= start < stop <= end:
        raise ValueError(
            f"{flow.name}: --start and --stop must satisfy 0 <= start < stop <= {end} frames, got "
            f"{start} and {stop}"
        )
    stride = flow.config.stride
    return range(len(flow))[-(-start // stride) : -(-stop // stride)]


def _prepare(video: Path, folder: Path, chosen: range) -> _Task:
    """Make the folders, remove what a killed run left half-written, and see what is missing."""
    names = {_image_name(index) for index in chosen}
    for half in (folder / "u", folder / "v"):
        half.mkdir(exist_ok=True)
        for partial_file in half.glob("*.partial"):
            if partial_file.name.partition(".jpg")[0] + ".jpg" in names:
                partial_file.unlink()
    pending = [
        index
        for index in chosen
        if not all(_opens(folder / half / _image_name(index)) for half in "uv")
    ]
    return _Task(video, folder, chosen, pending)


def _compute(tasks: list[_Task], open_flow: _Open, failures: list[str]) -> Iterator[None]:
    """Compute and write what is missing; yield after each flow frame."""
    for task in tasks:
        try:
            for index, frame in open_flow(task.video).compute(task.pending):
                for half, image in zip("uv", frame, strict=True):
                    _write(image, task.folder / half / _image_name(index))
                yield
        except ValueError as error:
            failures.append(str(error))


def _image_name(index: int) -> str:
    return f"frame_{index + 1:010d}.jpg"


def _opens(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):
        return False
    return True


def _write(image: Tensor, path: Path) -> None:
    with atomic_write(path) as file:
        Image.fromarray(image.numpy()).save(file, "JPEG", quality=_JPEG_QUALITY)


if __name__ == "__main__":
    sys.exit(main())
