#!/usr/bin/env python
"""Label a whole video, or a live source as it comes: verbs, nouns and actions over time.

    python tools/label_video.py VIDEO --checkpoint FILE --output labels.csv --timeline labels.png
    python tools/label_video.py /dev/video0 --checkpoint FILE --render labelled.mp4
    python tools/label_video.py rtsp://camera/stream --checkpoint FILE --output labels.jsonl

Rows lie side by side in time. Of a file, a model sees windows of frames, and a row is what lies
around the middle of one; a TSM with shift_direction="past" sees one frame after the other. Live
sources (V4L2 devices, URLs, named pipes, "-" for standard input, files that grow with --follow) are
labelled until they break off, or until Ctrl-C, which is their ordinary end.

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
from engine.label import CLIP_SECONDS, LabelOptions, label_file, label_live, sees_past_alone
from engine.label_snippets import frame_borders
from engine.processes import join_processes
from engine.progress import show_progress
from engine.video_list import list_videos
from epic.classes import choose_class_names
from ops.memory import keep_freed_memory
from predictor import Predictor
from tools.label_outputs import FileRenderer, LabelOutputs, LiveRenderer, check_outputs
from tools.options import (
    add_run_options,
    add_segments_option,
    add_trust_option,
    find_checkpoint,
    load_model,
    run_program,
)
from tsn import TSN

__all__ = ["main"]

_LIVE_OPTIONS = ("duration", "timeout", "input_option")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Label a whole video, or a live source as it comes.",
        epilog=f"Frames that a model sees of a clip span {CLIP_SECONDS:g} seconds by default, as "
        f"most actions of EPIC-KITCHENS, which published weights were trained on.",
    )
    add = parser.add_argument
    add(
        "source", metavar="VIDEO|CAMERA|URL",
        help="video file, folder or tar of images; or live: V4L2 device such as /dev/video0, URL, "
        "named pipe, - for standard input",
    )  # fmt: skip
    add(
        "--checkpoint", metavar="FILE", required=True,
        help="file, or file name of published weights, which are then downloaded once",
    )  # fmt: skip
    add(
        "--fps", type=float,
        help="RGB frames per second of images, which have no times (default: EPIC-KITCHENS's, 60, "
        "or 50 for videos PXX_1YY; of other folders it is needed)",
    )  # fmt: skip
    add(
        "--flow-stride", metavar="N", type=int,
        help="RGB frames from one flow image to the next (default: 2; 1 for videos PXX_1YY)",
    )  # fmt: skip
    outputs = parser.add_argument_group("outputs, none of which may exist")
    outputs.add_argument(
        "--output", metavar="FILE", type=Path, action="append", default=[],
        help=".csv or .jsonl: a row at a time, as they come; .json: ActivityNet's style, the best "
        "actions, neighbours of equal label merged. May be given several times (default: a table "
        "on stdout)",
    )  # fmt: skip
    outputs.add_argument(
        "--timeline", metavar="PICTURE", type=Path, help="picture of the classes over time (.png)"
    )
    outputs.add_argument(
        "--render", metavar="VIDEO", type=Path,
        help="the video with its labels drawn in (.mp4); a file is decoded once more for it",
    )  # fmt: skip
    outputs.add_argument(
        "--top-k", metavar="K", type=int, default=3,
        help="classes of each kind that are drawn into the video (default: %(default)s)",
    )  # fmt: skip
    outputs.add_argument(
        "--merge", action="store_true",
        help="rows of equal labels as one, with their mean probabilities, when the label changes",
    )  # fmt: skip
    names = parser.add_argument_group("class names (default: numbers)")
    names.add_argument("--verb-classes", type=Path, metavar="CSV", help="EPIC_verb_classes.csv")
    names.add_argument("--noun-classes", type=Path, metavar="CSV", help="EPIC_noun_classes.csv")
    names.add_argument(
        "--fetch-classes", action="store_true",
        help="download both files (CC BY-NC 4.0) once into torch.hub's directory",
    )  # fmt: skip
    names.add_argument(
        "--classes", type=Path, metavar="TXT", help="of a model with one task: a name a line"
    )
    along = parser.add_argument_group(
        "along the video, in frames that are used",
        "TSN, TRN and MTRN see a frame of a file once, however many windows hold it, and of a live "
        "source too. A TSM looks at frames before and after, and computes a frame for each window "
        "that holds it (window / hop times); one with shift_direction='past' computes it once.",
    )
    along.add_argument(
        "--rate", metavar="FPS", type=float,
        help=f"use at most so many frames a second (default: of a file seen in windows all; else "
        f"T / {CLIP_SECONDS:g})",
    )  # fmt: skip
    along.add_argument(
        "--stride", metavar="N", type=int, help="frames from one that counts to the next (1)"
    )
    along.add_argument(
        "--window", metavar="N", type=int,
        help=f"frames that a window spans (default: {CLIP_SECONDS:g} seconds of a file; of a live "
        f"source, or with --stride, T times the stride)",
    )  # fmt: skip
    along.add_argument(
        "--hop", metavar="N", type=int,
        help="frames from row to row (default: half a window; 1 where each frame is scored)",
    )  # fmt: skip
    along.add_argument("--crops", type=int, choices=(1, 3, 10), default=1, help="averaged (1)")
    along.add_argument(
        "--smooth", metavar="KIND:N",
        help="mean:N or exponential:N, over the scores so far of windows or frames, which comes "
        "after a change by (N - 1) / 2 of them on average (default: none, as all baselines of "
        "EPIC-KITCHENS)",
    )  # fmt: skip
    live = parser.add_argument_group("live sources")
    live.add_argument(
        "--follow", action="store_true",
        help="VIDEO is a file that is still being written: wait for more at its end",
    )  # fmt: skip
    live.add_argument("--duration", metavar="S", type=float, help="end after so many seconds")
    live.add_argument(
        "--timeout", metavar="S", type=float,
        help="seconds without data after which a source counts as broken off (default: 10)",
    )  # fmt: skip
    live.add_argument(
        "--input-option", metavar="KEY=VALUE", action="append", type=_key_and_value,
        help="an option of FFmpeg's, such as video_size=640x480 or rtsp_transport=tcp",
    )  # fmt: skip
    model = parser.add_argument_group("model")
    add_segments_option(model)
    model.add_argument(
        "--batch-size", metavar="N", type=int, default=16,
        help="snippets of a file that go through the backbone together (default: %(default)s)",
    )  # fmt: skip
    model.add_argument(
        "--optimize", action=argparse.BooleanOptionalAction, default=True,
        help="whether to fold batch norms into convolutions, which is faster (default: yes)",
    )  # fmt: skip
    add_trust_option(model)
    add_run_options(parser, workers=False)
    return parser


def _key_and_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, got {text!r}")
    return key, value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = _parser()
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

    kept = "rows so far are kept, and .json, the picture and the video are not written"
    return run_program(parser.prog, run, interrupted=kept)


def _run(options: argparse.Namespace, live: bool, device: torch.device) -> int:
    check_outputs(options)
    positive_integer("--top-k", options.top_k)
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
            rows, math.ceil(borders[-1]), unit="seconds of video",
            amount=lambda row: row.stop - row.start, hidden=to_terminal,
        ):  # fmt: skip
            outputs.add(row)
        outputs.add_thumbnails(source, borders)
        outputs.finish()
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
                timeout=options.timeout or 10.0,
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
    print(
        f"{watched.count} frames came and {frames.dropped} were dropped, "
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
            # By now the labels of this frame are known, if there are any.
            self._outputs.add_thumbnail(frame.seconds, frame.image)
            if self._renderer:
                self._renderer.draw(frame)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
