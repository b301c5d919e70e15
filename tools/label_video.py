#!/usr/bin/env python
"""Label a whole video, or a live source as it comes: verbs, nouns and actions over time.

    python tools/label_video.py VIDEO --checkpoint FILE --output labels.csv --timeline labels.png
    python tools/label_video.py /dev/video0 --checkpoint FILE --render labelled.mp4
    python tools/label_video.py rtsp://camera/stream --checkpoint FILE --output labels.jsonl

Rows lie side by side in time. Of a file, a model sees windows of frames, and a row is what lies
around the middle of one; a TSM with shift_direction="past" sees one frame after the other. Live
sources (V4L2 devices, URLs, named pipes, "-" for standard input, files that grow with --follow) are
labelled until they break off, or until Ctrl-C or SIGTERM, which are their ordinary end.

Exit status: 0; 1 after an error; 130 after Ctrl-C while a file is labelled, whose rows so far stay.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    # Before torch is imported: its threads would wait for one another in loops, on the core that
    # frames are decoded on.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from data.live import LiveFrame, LiveFrames, is_live
from data.options import positive_integer
from data.video import open_frames
from data.video_writer import VideoWriter
from engine.interruption import until_interrupted
from engine.label import LabelOptions, label_file, label_live, sees_past_alone
from engine.label_snippets import frame_borders
from engine.processes import join_processes
from engine.progress import show_progress
from engine.video_list import list_videos
from epic.classes import choose_class_names
from ops.memory import keep_freed_memory
from predictor import Predictor
from tools.label_options import label_parser
from tools.label_outputs import FileRenderer, LabelOutputs, LiveRenderer, check_outputs
from tools.options import find_checkpoint, load_model, run_program
from tsn import TSN

__all__ = ["main"]

_LIVE_OPTIONS = ("duration", "timeout", "input_option")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = label_parser()
    options = parser.parse_args(argv)
    live = options.follow or is_live(options.source)
    for name in _LIVE_OPTIONS:
        if getattr(options, name) is not None and not live:
            flag = name.replace("_", "-")
            parser.error(f"--{flag} is for live sources, and {options.source} is none")

    def run() -> int:
        with join_processes(options.device, options.threads) as processes:
            try:
                return _run(options, live, processes.device)
            except BrokenPipeError:  # whoever read the table has gone, as in `... | head`
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's last flush
                return 1

    kept = "rows so far are kept; .json, picture and video only if they are complete"
    return run_program(parser.prog, run, interrupted=kept)


def _run(options: argparse.Namespace, live: bool, device: torch.device) -> int:
    check_outputs(options)
    positive_integer("--top-k", options.top_k)
    if options.duration is not None and not options.duration > 0:
        raise ValueError(f"--duration must be a positive number, got {options.duration}")
    wanted = LabelOptions(
        options.rate, options.stride, options.window, options.hop, options.crops,
        options.batch_size, options.smooth,
    )  # fmt: skip
    model = load_model(find_checkpoint(options.checkpoint), options, optimize=options.optimize)
    names = _read_class_names(options, model)
    predictor = Predictor(model.eval().to(device), names, optimize=False)
    if live:
        return _label_live(options, predictor, wanted)
    return _label_file(options, predictor, wanted)


def _read_class_names(
    options: argparse.Namespace, model: TSN
) -> tuple[Sequence[str], Sequence[str]] | Sequence[str] | None:
    if options.classes:
        return [line for line in options.classes.read_text("utf-8").splitlines() if line.strip()]
    return choose_class_names(
        model.num_class, options.verb_classes, options.noun_classes, fetch=options.fetch_classes
    )


def _label_file(options: argparse.Namespace, predictor: Predictor, wanted: LabelOptions) -> int:
    model = predictor.model
    videos = list_videos([Path(options.source)], model.modality, options.fps, options.flow_stride)
    if len(videos) > 1:
        raise ValueError(
            f"{options.source} holds {len(videos)} videos: give one of them, such as "
            f"{videos[0].path}"
        )
    source = open_frames(videos[0].path, model.modality)
    borders = frame_borders(source, videos[0].fps)
    rows = label_file(model, source, borders, wanted)
    with ExitStack() as files:
        renderer = None
        if options.render:
            rate = len(source) / float(borders[-1])
            writer = files.enter_context(VideoWriter(options.render, rate=rate))
            renderer = FileRenderer(source, borders, writer, options.top_k)
        outputs = LabelOutputs(options, predictor, videos[0].id, renderer)
        to_terminal = not options.output and sys.stdout.isatty()
        for row in show_progress(
            rows, float(borders[-1]), unit="seconds of video",
            amount=lambda row: row.stop - row.start, hidden=to_terminal,
        ):  # fmt: skip
            outputs.add(row)
        outputs.finish()
    outputs.add_thumbnails(source, borders)
    outputs.draw()
    return 0


def _label_live(options: argparse.Namespace, predictor: Predictor, wanted: LabelOptions) -> int:
    model = predictor.model
    if model.modality == "Flow":
        raise ValueError(
            f"{options.source}: a live source has RGB frames, and the model wants flow; compute "
            f"that of a recording with tools/compute_flow.py"
        )
    if model.variant == "TSM" and not sees_past_alone(model):
        window, _, hop = wanted.windows(model, None)
        print(
            f"This TSM looks at frames before and after: it sees a window of {window} frames every "
            f"{hop}, and computes a frame up to {math.ceil(window / hop)} times.",
            file=sys.stderr,
        )
    # Every frame is wanted for a video that moves, or for snippets of neighbours.
    wants_all = options.render or model.frames_per_snippet > 1
    with ExitStack() as files:
        frames = files.enter_context(
            LiveFrames(
                options.source,
                rate=None if wants_all else wanted.live_rate(model),
                timeout=10.0 if options.timeout is None else options.timeout,
                follow=options.follow,
                options=dict(options.input_option or ()),
            )
        )
        renderer = None
        if options.render:
            writer = files.enter_context(VideoWriter(options.render, rate=30))
            renderer = LiveRenderer(writer, options.top_k)
        outputs = LabelOutputs(options, predictor, frames.name, renderer)
        came = files.enter_context(until_interrupted(frames))
        watched = _Watched(came, options.duration, outputs, renderer)
        began = time.monotonic()
        for row in label_live(model, watched, wanted):
            outputs.add(row)
        passed = time.monotonic() - began
        outputs.finish()
    outputs.draw()
    print(
        f"{watched.count} frames were seen and {frames.dropped} dropped, "
        f"{watched.count / max(passed, 1e-9):.3g} frames a second; {outputs.row_count} rows",
        file=sys.stderr,
    )
    return 0


class _Watched:
    """Frames on their way to the model, which others see afterwards."""

    def __init__(
        self,
        frames: Iterable[LiveFrame],
        duration: float | None,
        outputs: LabelOutputs,
        renderer: LiveRenderer | None,
    ) -> None:
        self._frames, self._duration = frames, duration
        self._outputs, self._renderer = outputs, renderer
        self.count = 0

    def __iter__(self) -> Iterator[LiveFrame]:
        for frame in self._frames:
            if self._duration is not None and frame.seconds >= self._duration:
                return
            self.count += 1
            yield frame
            # By now the rows that could be known are written.
            self._outputs.add_thumbnail(frame.seconds, frame.image)
            if self._renderer:
                self._renderer.draw(frame)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
