#!/usr/bin/env python
"""Measure how fast this library is, against the plain way of doing the same and the bare backbone.

Prints tables in Markdown, and writes every single timing to a JSON file and the ratios to a plot.
Weights are random, and clips made up. All of it takes about ten minutes on two cores.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from data.synthetic import make_video
from data.video_file import VideoFile
from ops.relation import MAX_SEGMENTS
from tools.comparisons import BACKBONES, MODELS, SECTIONS, Comparison
from tools.measure import (
    OwnProcess,
    Timing,
    describe_machine,
    matmul_peak,
    peak_memory,
    take_turns,
)

__all__ = ["main"]

_LEGEND = """\
In the tables,

- "speed" is how many times as fast as the first line of its table a line is, and "of bare" how many
  times as fast as the bare backbone (models);
- of a part of something ("its ..."), "speed" is its share of the time that the whole takes;
- "of peak" is the share of the operations per second that a large matrix product of that precision
  reaches on the same machine (models); it is left out where that came to more than 100 %, because
  the machine was busier while the peak was measured;
- "memory" is what a call takes at most beyond what it is given, its result included.

Calls of one table take turns, in a process of their own (training steps, and calls of the section
memory, in one each), since what a process has used before makes its memory faster. Ratios are
medians over the rounds; those of one table can be compared, those of two tables less. Machines are
noisy: run it when nothing else does, and compare ratios rather than times. Ctrl-C ends it, and
writes what there is.
"""

_BATCHES = {"cpu": [1], "cuda": [1, 8, 32, 64, 128]}
_PRECISIONS = {"cpu": ["float32"], "cuda": ["float32", "tf32", "bfloat16"]}


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        section: of the benchmark.
        comparison: title of the table.
        case: name of the line.
        seconds: of every round.
        median: of these.
        speed: how many times as fast as the first line; None for a part of another line.
        share: of the time of the line that it is a part of; None if it is whole.
        of_bare: how many times as fast as the bare backbone; None where there is none.
        of_peak: share of the matrix-multiply peak; None where nothing was counted.
        memory: bytes at most beyond the input; None where the system does not tell.
    """

    section: str
    comparison: str
    case: str
    seconds: tuple[float, ...]
    median: float
    speed: float | None
    share: float | None
    of_bare: float | None
    of_peak: float | None
    memory: int | None


def measure(section: str, comparison: Comparison, options: argparse.Namespace) -> list[Row]:
    """The lines of one table."""
    cases = comparison.cases()
    calls = {name: case.call for name, case in cases.items()}
    with ExitStack() as stack:
        for call in calls.values():
            if isinstance(call, OwnProcess):
                stack.callback(call.close)
        for call in calls.values():
            call()
        memory = {
            name: None if case.elsewhere else peak_memory(case.call, options.device)
            for name, case in cases.items()
        }
        timings = take_turns(calls, rounds=options.rounds, device=options.device)
    plain = next(iter(timings.values()))
    bare = timings.get(comparison.bare or "")

    def row(name: str, timing: Timing) -> Row:
        case = cases[name]
        whole = timings.get(case.part_of or "")
        return Row(
            section=section,
            comparison=comparison.title,
            case=name,
            seconds=timing.seconds,
            median=timing.median,
            speed=None if whole else timing.times_as_fast_as(plain),
            share=1 / timing.times_as_fast_as(whole) if whole else None,
            of_bare=timing.times_as_fast_as(bare) if bare and not whole else None,
            of_peak=case.flops / timing.median / options.peaks[case.precision] or None,
            memory=memory[name],
        )

    return [row(name, timing) for name, timing in timings.items()]


def table(rows: list[Row]) -> str:
    """Rows of one comparison in Markdown."""
    lines = [
        f"| {rows[0].comparison} | time | speed | of bare | of peak | memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        speed = f"{100 * (row.share or 0):.1f} %" if row.speed is None else f"{row.speed:.2f}"
        of_bare = "" if row.of_bare is None else f"{row.of_bare:.2f}"
        share = row.of_peak or 0
        of_peak = f"{100 * share:.0f} %" if 0 < share <= 1 else ""
        memory = "" if row.memory is None else f"{row.memory / 1e6:,.0f} MB"
        lines.append(
            f"| {row.case} | {1000 * row.median:,.1f} ms | {speed} | {of_bare} | {of_peak} "
            f"| {memory} |"
        )
    return "\n".join(lines)


def draw(rows: list[Row], machine: dict[str, str], path: Path) -> None:
    """Bars of how many times as fast as the plain way everything is."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.speed is not None]
    speeds = [row.speed or 1 for row in rows]
    figure = Figure(figsize=(11, 1.5 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots()
    starts = [i for i, row in enumerate(rows) if i == 0 or row.comparison != rows[i - 1].comparison]
    colours = ["tab:orange" if "bare" in row.case else "tab:blue" for row in rows]
    for start in starts:
        colours[start] = "tab:grey"
        axes.axhline(start - 0.5, color="lightgrey", linewidth=0.8)
    widths = [speed - 1 for speed in speeds]
    axes.barh(range(len(rows)), widths, left=1, color=colours, height=0.75)
    for place, speed in enumerate(speeds):
        axes.text(
            max(speed, 1), place, f" {speed:.2f}", va="center", fontsize=7, color=colours[place]
        )
    limits = min(0.5, *(0.8 * speed for speed in speeds)), 1.3 * max(2, *speeds)
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 4, 8, 16, 32) if limits[0] <= tick <= limits[1]]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(limits)
    axes.minorticks_off()
    labels = [
        f"{row.section}: {row.comparison}   {row.case}" if place in starts else row.case
        for place, row in enumerate(rows)
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("times as fast as the plain way (grey); orange: the bare backbone")
    axes.set_title("\n".join(f"{name}: {value}" for name, value in machine.items()), fontsize=7)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    given = dict(vars(options))
    kind = options.device.type
    options.batches = options.batches or _BATCHES.get(kind, [1])
    options.precisions = options.precisions or _PRECISIONS.get(kind, ["float32"])
    for precision in ("tf32", "float16"):
        if kind == "cpu" and precision in options.precisions:
            parser.error(f"argument --precisions: {precision} needs --device cuda")
    if "MTRN" in options.models and not 2 <= options.segments <= MAX_SEGMENTS:
        parser.error(
            f"argument --segments: MTRN takes 2 to {MAX_SEGMENTS}, got {options.segments} (choose "
            f"others with --models)"
        )
    machine = describe_machine(options.device)
    for name, value in machine.items():
        print(f"- {name}: {value}", flush=True)
    rows: list[Row] = []
    status = 0
    try:
        options.peaks = {}
        for precision in dict.fromkeys(["float32", *options.precisions]):
            options.peaks[precision] = peak = matmul_peak(precision, options.device)
            print(f"- peak of matrix products, {precision}: {peak / 1e9:,.0f} GFLOP/s", flush=True)
        for lines in _tables(options):
            rows += lines
            print(f"\n{table(lines)}", flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted")
        status = 130
    if rows:
        report = {
            "options": given,
            "machine": machine,
            "matmul_peak": options.peaks,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(report, indent=1, default=str))
        draw(rows, machine, options.plot)
        print(f"\nwrote {options.json} and {options.plot}")
    return status


def _tables(options: argparse.Namespace) -> Iterator[list[Row]]:
    """The tables, one after the other, each measured in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        if options.video is None:
            options.video = make_video(Path(folder) / "clip.mp4")
        for section in options.sections:
            print(f"\n## {section}")
            for comparison in SECTIONS[section](options):
                make = partial(partial, measure, section, comparison, options)
                try:
                    with closing(OwnProcess(make, options.device)) as process:
                        lines = cast(list[Row], process())
                except torch.OutOfMemoryError:
                    print(f"\n{comparison.title}: does not fit into the memory", flush=True)
                else:
                    yield lines


def _parser() -> argparse.ArgumentParser:
    sections = "\n".join(f"- {name}: {section.__doc__}" for name, section in SECTIONS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nSections:\n\n{sections}\n\n{_LEGEND}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="all unless given")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="all four")
    backbones = ["resnet50", "BNInception"]
    add(
        "--backbones", nargs="+", choices=BACKBONES, default=backbones, help=" and ".join(backbones)
    )
    add("--device", type=_device, default="cpu", help="cpu or cuda: %(default)s")
    add("--segments", type=_positive, default=8, metavar="T", help="of a clip: %(default)s")
    add("--rounds", type=_positive, default=7, metavar="N", help="of each call: %(default)s")
    help_on_crops = (
        "1 and 10 of each frame; from videos, models other than TSN take the first alone"
    )
    add("--crops", nargs="+", type=int, choices=(1, 10), default=[1, 10], help=help_on_crops)
    sizes, help_on_frames = [(456, 256), (1920, 1080)], "sizes for transforms: 456x256 1920x1080"
    add("--frames", nargs="+", type=_size, default=sizes, metavar="WxH", help=help_on_frames)
    help_on_batches = "clips at a time, of models: 1, on CUDA up to 128"
    add("--batches", nargs="+", type=_positive, metavar="N", help=help_on_batches)
    precisions = ("float32", "tf32", "bfloat16", "float16")
    help_on_precisions = (
        "of optimised models: float32, on CUDA tf32 and bfloat16 too; tf32 and float16 need CUDA"
    )
    add("--precisions", nargs="+", choices=precisions, help=help_on_precisions)
    add("--compile", action="store_true", help="optimised models with torch.compile as well")
    add("--video", type=_video, metavar="FILE", help="one is made up unless given")
    add("--json", type=_destination, default="benchmark.json", metavar="FILE", help="%(default)s")
    add("--plot", type=_picture, default="benchmark.png", metavar="FILE", help="%(default)s")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return _positive(width), _positive(height)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, got {text!r}") from error


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        torch.empty(1, device=device)
        if device.type not in _BATCHES:
            raise RuntimeError("only cpu and cuda are measured")
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {error}") from error
    return device


def _video(text: str) -> Path:
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a video file, {text!r} is a folder")
    try:
        return Path(VideoFile(text).name)
    except (OSError, ValueError, ImportError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _destination(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, {text!r} is a folder")
    return path


def _picture(text: str) -> Path:
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError as error:
        raise argparse.ArgumentTypeError(
            f"a plot needs the package {error.name!r}: pip install matplotlib"
        ) from error
    path, formats = _destination(text), FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise argparse.ArgumentTypeError(
            f"must end in one of {', '.join(f'.{name}' for name in formats)}, got {text!r}"
        )
    return path


if __name__ == "__main__":
    sys.exit(main())
