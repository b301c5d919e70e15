#!/usr/bin/env python
"""Write the features that a model has of videos, before its heads: a file for each video.

    python tools/extract_features.py CHECKPOINT VIDEO... --out OUT
    python tools/extract_features.py CHECKPOINT --annotations CSV --data ROOT --out OUT
    torchrun --nproc-per-node=8 tools/extract_features.py CHECKPOINT ... (the same options)

VIDEO is a video file, the images of one, a folder of videos, or a dataset of EPIC-KITCHENS. Each
frame is decoded once and goes through the backbone once (of TSM: once for each window that holds
it). Stopped at any moment, the same command goes on with the videos that are missing.
`engine.feature_files.read_features` reads a file; `--format npz` is for NumPy alone.

Exit status: 0; 1 after an error, or if videos could not be read, which the next run tries again;
130 after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    # Before torch is imported: its threads would wait for one another in loops, on the cores that
    # workers decode on.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from data.dataset import ClipDataset
from engine.actionformer import write_grids
from engine.extract import extract
from engine.feature_writer import ExtractOptions
from engine.output_folder import OutputFolder
from engine.processes import Processes, join_processes
from engine.request import describe_run, file_sha256
from engine.video_list import Video, list_videos, list_videos_of_segments
from engine.video_rows import DenseOptions
from epic.annotations import read_annotations
from ops.memory import keep_freed_memory
from tools.options import (
    add_flow_stride_option,
    add_run_options,
    add_segments_option,
    add_trust_option,
    choose_workers,
    find_checkpoint,
    includes_stop,
    load_model,
    print_list,
    run_program,
)
from tsn import TSN

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write the features that a model has of videos, a file for each.",
        epilog="The same command goes on where it was stopped. Under torchrun, the processes share "
        "the videos, and results do not depend on how many they are.",
    )
    add = parser.add_argument
    add(
        "checkpoint", metavar="CHECKPOINT",
        help="file, or file name of published weights, which are then downloaded once",
    )  # fmt: skip
    add(
        "videos", metavar="VIDEO", nargs="*", type=Path,
        help="video file, folder or tar of images, folder of videos, or dataset of EPIC-KITCHENS",
    )  # fmt: skip
    add("--out", metavar="OUT", type=Path, required=True, help="folder for the files of features")
    add(
        "--format", choices=("safetensors", "npz", "actionformer"), default="safetensors",
        help="actionformer: npz with the array feats (rows, D), and OUT/actionformer.json with the "
        "grid of each video (default: %(default)s)",
    )  # fmt: skip
    add("--logits", action="store_true", help="write logits beside the features")
    add("--crops", type=int, choices=(1, 3, 10), default=1, help="averaged (default: 1)")
    add(
        "--skip-missing", action="store_true",
        help="leave out what lacks images, which is listed, instead of refusing it",
    )  # fmt: skip
    add(
        "--fps", type=float,
        help="RGB frames per second of numbered images, and of frame numbers in annotations "
        "(default: EPIC-KITCHENS's, 60, or 50 for videos PXX_1YY; video files know theirs)",
    )  # fmt: skip
    add_flow_stride_option(parser)
    along = parser.add_argument_group("along whole videos (default: a row for each frame)")
    along.add_argument(
        "--rate", metavar="FPS", type=float,
        help="steps per second, each the frame in its middle (default: every frame is a step)",
    )  # fmt: skip
    along.add_argument("--stride", metavar="N", type=int, default=1, help="steps from row to row")
    along.add_argument(
        "--window", metavar="N", type=int, default=1, help="steps whose features a row averages"
    )
    along.add_argument(
        "--hop", metavar="N", type=int,
        help="TSM, whose features depend on the frames around: steps between its windows of T "
        "(default: T)",
    )  # fmt: skip
    segments = parser.add_argument_group("for annotated segments: the T snippets of each")
    segments.add_argument(
        "--annotations", metavar="CSV", type=Path,
        help="official file of EPIC-KITCHENS-55 or -100, or one of your own (epic/annotations.py)",
    )  # fmt: skip
    segments.add_argument("--data", metavar="ROOT", type=Path, help="folder of the dataset")
    segments.add_argument(
        "--include-stop", action=argparse.BooleanOptionalAction, default=None,
        help="whether the stop frame belongs to a segment (default: only for RGB weights of "
        "EPIC-KITCHENS-100, which were trained so)",
    )  # fmt: skip
    segments.add_argument(
        "--pool", choices=("none", "mean"), default="none",
        help="mean: a row (D,) for each segment, instead of (T, D)",
    )  # fmt: skip
    model = parser.add_argument_group("model")
    add_segments_option(model)
    model.add_argument(
        "--batch-size", metavar="N", type=int, default=16,
        help="snippets that go through the backbone together (default: %(default)s)",
    )  # fmt: skip
    add_trust_option(model)
    add_run_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    if bool(options.videos) == bool(options.annotations) or (
        bool(options.annotations) != bool(options.data)
    ):
        parser.error("give either VIDEO..., or --annotations CSV with --data ROOT")

    def run() -> int:
        with join_processes(options.device, options.threads) as processes:
            return _run(options, processes)

    return run_program(parser.prog, run)


def _run(options: argparse.Namespace, processes: Processes) -> int:
    first = processes.rank == 0
    checkpoint = find_checkpoint(options.checkpoint)
    model = load_model(checkpoint, options)
    wanted = ExtractOptions(
        DenseOptions(
            options.stride, options.rate, options.window, options.hop, options.skip_missing
        ),
        options.pool == "mean",
        options.logits,
        options.crops,
        options.batch_size,
        options.format,
    )
    wanted.check(model, densely=not options.annotations)
    if options.fps is not None and not options.fps > 0:
        raise ValueError(f"--fps must be positive, got {options.fps}")
    dataset = _open_dataset(model, options) if options.annotations else None
    about: dict[str, Any] = {}
    if dataset is None:
        videos = list_videos(options.videos, model.modality, options.fps, options.flow_stride)
        sources = sorted({video.path.absolute().parent for video in videos})
    else:
        # The first process looks at all videos, and the others hear of it.
        problems = processes.gather(dataset.problems() if first else [])
        if first and problems:
            print_list("frames are missing:", problems)
        if problems and not options.skip_missing:
            if first:
                print("nothing was computed; --skip-missing goes on without them", file=sys.stderr)
            return 1
        skipped_ids = {name for problem in problems for name in problem.ids}
        segments = [each for each in dataset.segments if each.id not in skipped_ids]
        videos = list_videos_of_segments(dataset, segments, options.fps, options.flow_stride)
        sources = [options.data]
        about = {
            "annotations_sha256": file_sha256(options.annotations),
            "segments": len(segments),
            "include_stop": dataset.include_stop,
        }
    about = {**describe_run(model, checkpoint, processes), "crops": options.crops, **about}
    request = {
        **about,
        **{name: value for name, value in asdict(wanted).items() if name != "dense"},
        **asdict(wanted.dense),
        "sources": [str(source.resolve()) for source in sources],
        "frame_rate": options.fps,
        "flow_stride": options.flow_stride,
    }
    folder = OutputFolder(options.out, request)
    failures, skipped = extract(
        model.to(processes.device), videos, folder, processes, wanted,
        dataset=dataset, workers=choose_workers(options.workers, processes), about=about,
    )  # fmt: skip
    if first:
        _report(videos, failures, skipped, folder, wanted)
    return 1 if failures else 0


def _report(
    videos: Sequence[Video],
    failures: Mapping[str, str],
    skipped: Mapping[str, Sequence[str]],
    folder: OutputFolder,
    wanted: ExtractOptions,
) -> None:
    """Print what there is and what is not; for ActionFormer, write the grids of the videos."""
    written = [video for video in videos if video.id not in failures]
    if wanted.file_format == "actionformer":
        write_grids(folder, [video.id for video in written], wanted)
    count = f"{len(written)} video{'s' * (len(written) != 1)}"
    print(f"features of {count} are in {folder.path}")
    if skipped:
        print_list("left out:", [reason for reasons in skipped.values() for reason in reasons])
    if failures:
        lines = [f"{video}: {reason}" for video, reason in sorted(failures.items())]
        print_list(f"{len(failures)} videos could not be read:", lines)


def _open_dataset(model: TSN, options: argparse.Namespace) -> ClipDataset:
    return ClipDataset(
        read_annotations(options.annotations, trust=options.trust),
        options.data,
        modality=model.modality,
        num_segments=model.num_segments,
        new_length=model.new_length,
        include_stop=includes_stop(model, options),
        flow_stride=options.flow_stride,
        rate=options.fps,
    )


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
