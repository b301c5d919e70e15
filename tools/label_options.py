"""The options of `label_video.py`."""

import argparse
from pathlib import Path

from engine.label import CLIP_SECONDS
from tools.options import (
    add_flow_stride_option,
    add_run_options,
    add_segments_option,
    add_trust_option,
)

__all__ = ["label_parser"]


def label_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
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
    add_flow_stride_option(parser)
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
    names = parser.add_argument_group("class names (default: the checkpoint's, or numbers)")
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
