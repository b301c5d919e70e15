#!/usr/bin/env python
"""Evaluate models over the segments of an annotation file, one alone or several fused.

    python tools/evaluate.py CHECKPOINT... --annotations CSV --data ROOT --out OUT
    python tools/evaluate.py --scores FILE... --annotations CSV --out OUT
    torchrun --nproc-per-node=8 tools/evaluate.py CHECKPOINT... (the same options)

OUT/NAME/scores.pt has the logits of each checkpoint, OUT/fusion/scores.pt their mean. Where the
segments are labelled, OUT/report.txt and OUT/metrics.json have the metrics. Stopped at any moment,
the same command goes on; with more checkpoints, it evaluates those that are new.

Exit status: 0; 1 after an error, or if segments could not be read, which the next run tries again;
130 after Ctrl-C.
"""

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    # Before torch is imported: its threads would wait for one another in loops, on the cores that
    # workers decode on.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from data.dataset import Problem
from data.options import first_few, positive_integer
from data.segments import Segment
from engine.evaluate import evaluate, merge_batches
from engine.processes import Processes, join_processes
from epic.annotations import read_annotations
from epic.datasets import check_labels
from epic.scores import Scores
from ops.memory import keep_freed_memory
from tools.evaluated_models import EvaluatedModel, name_checkpoints, open_model
from tools.evaluation_results import Outcome, read_outcomes, read_splits, write_results
from tools.options import (
    add_clip_options,
    add_run_options,
    add_segments_option,
    add_trust_option,
    choose_workers,
    print_list,
    run_program,
)
from training.labels import with_names_of

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Evaluate models over a dataset, one alone or several fused.",
        epilog="The same command goes on where it was stopped. Under torchrun, the processes share "
        "the work, and results do not depend on how many they are.",
    )
    parser.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="*", default=[],
        help="file, or file name of published weights, which are then downloaded once",
    )  # fmt: skip
    parser.add_argument(
        "--scores", metavar="FILE", type=Path, nargs="+", default=[],
        help="files of scores, also of C1-Action-Recognition, in the place of checkpoints",
    )  # fmt: skip
    parser.add_argument(
        "--annotations", metavar="CSV", type=Path, required=True,
        help="official file of EPIC-KITCHENS-55 or -100, or one of your own (epic/annotations.py)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="OUT", type=Path, required=True, help="folder for results")
    parser.add_argument(
        "--weights", metavar="W", type=float, nargs="+",
        help="of each CHECKPOINT or FILE in the mean of logits (default: equal)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", metavar="N", type=int, help="evaluate the first N segments alone, for a trial"
    )
    add_clip_options(parser)
    model = parser.add_argument_group("model")
    add_segments_option(model)
    model.add_argument(
        "--twice-sample", action="store_true", help="average two clips of each segment, as TSM does"
    )
    model.add_argument("--crops", type=int, choices=(1, 3, 10), default=1, help="(default: 1)")
    model.add_argument(
        "--optimize", action=argparse.BooleanOptionalAction, default=True,
        help="whether to fold batch norms into convolutions, which is faster (default: yes)",
    )  # fmt: skip
    add_trust_option(model)
    add_run_options(parser)
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=16,
        help="segments in a file of intermediate results (default: %(default)s)",
    )  # fmt: skip
    labels = parser.add_argument_group("labels")
    labels.add_argument(
        "--training", metavar="CSV", type=Path,
        help="annotations trained on: class frequencies for the pictures and many-shot classes",
    )  # fmt: skip
    labels.add_argument(
        "--epic-55-segments", metavar="CSV", type=Path, nargs="+",
        help="EPIC_test_s1_timestamps.csv, EPIC_test_s2_timestamps.csv or both: evaluate a model "
        "of EPIC-KITCHENS-55 on these test segments, with labels of --annotations, which is "
        "EPIC_100_validation.csv",
    )  # fmt: skip
    for task in ("verb", "noun"):
        labels.add_argument(
            f"--{task}-classes", metavar="CSV", type=Path,
            help=f"class file with the names of the {task}s (default: the official one, looked for "
            "beside the annotations, or downloaded)",
        )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    if bool(options.checkpoints) == bool(options.scores):
        parser.error("give either CHECKPOINT..., or --scores FILE...")
    if options.checkpoints and not options.data:
        parser.error("--data is needed to evaluate checkpoints")

    def run() -> int:
        with join_processes(options.device, options.threads) as processes:
            return _run(options, processes)

    return run_program(parser.prog, run)


def _run(options: argparse.Namespace, processes: Processes) -> int:
    count = len(options.checkpoints or options.scores)
    weights = options.weights or [1] * count
    if len(weights) != count or not all(0 < weight < math.inf for weight in weights):
        raise ValueError(
            f"--weights must be {count} positive numbers, one for each of what is fused, got "
            f"{options.weights}"
        )
    if options.limit is not None:
        positive_integer("--limit", options.limit)
    splits = read_splits(options)
    segments = [segment for split in splits for segment in split.segments]
    training = read_annotations(options.training) if options.training else []
    if options.scores:
        partly = bool(options.limit or options.epic_55_segments)
        outcomes = read_outcomes(options.scores, segments, partly=partly)
        _check_classes({each.name: each.num_class for each in outcomes}, segments, training)
        if processes.rank == 0:
            print(write_results(options, splits, outcomes, training))
        return 0
    models = [
        open_model(name, path, segments, options, processes)
        for name, path in name_checkpoints(options.checkpoints).items()
    ]
    if len(class_names := {each.model.class_names for each in models} - {None}) > 1:
        raise ValueError(
            "what is fused must have the same classes in the same order, but the class names that "
            f"the checkpoints hold differ: {first_few(class_names)}"
        )
    for each in models if class_names else ():
        # Labels that are names get the ids of the model's classes.
        splits = [replace(s, segments=with_names_of(each.model, s.segments)) for s in splits]
        training = with_names_of(each.model, training)
    segments = [segment for split in splits for segment in split.segments]
    _check_classes({each.name: each.model.num_class for each in models}, segments, training)

    # The first process looks at all videos, and the others hear of it.
    problems = processes.gather(_find_problems(models) if processes.rank == 0 else [])
    if processes.rank == 0 and problems:
        print_list("frames are missing:", problems)
    if problems and not options.skip_missing:
        if processes.rank == 0:
            print(
                "Nothing was evaluated; --skip-missing leaves these segments out.", file=sys.stderr
            )
        return 1
    skipped = {name for problem in problems for name in problem.ids}

    outcomes = [_evaluate(each, skipped, options, processes) for each in models]
    failures = {outcome.name: outcome.failures for outcome in outcomes if outcome.failures}
    if processes.rank == 0:
        for name, reasons in failures.items():
            segments_by_reason: dict[str, list[str]] = {}
            for segment, reason in sorted(reasons.items()):
                segments_by_reason.setdefault(reason, []).append(segment)
            lines = [f"{first_few(ids)}: {reason}" for reason, ids in segments_by_reason.items()]
            print_list(f"{name}: {len(reasons)} segments could not be read:", lines)
        if all(outcome.scores["ids"] for outcome in outcomes):
            print(write_results(options, splits, outcomes, training))
    return 1 if failures else 0


def _check_classes(
    classes: Mapping[str, int | tuple[int, int]],
    segments: Sequence[Segment],
    training: Sequence[Segment],
) -> None:
    """Raise ValueError unless all that is evaluated has the classes of the labels."""
    if len(set(classes.values())) > 1:
        raise ValueError(f"what is fused must have the same classes, got {classes}")
    num_class = next(iter(classes.values()))
    check_labels(segments, num_class)
    try:
        check_labels(training, num_class)
    except ValueError as error:
        raise ValueError(f"--training: {error}") from error


def _find_problems(models: Sequence[EvaluatedModel]) -> list[Problem]:
    """Return what is wrong with the clips; those that several models see are looked at once."""
    clips = {
        (each.clips.root, each.clips.modality, each.clips.num_segments): each.clips
        for each in models
    }
    return [
        # A video that cannot be decoded costs its segments, and no more.
        problem
        for each in clips.values()
        for problem in each.problems()
        if not problem.damaged
    ]


def _evaluate(
    evaluated: EvaluatedModel, skipped: set[str], options: argparse.Namespace, processes: Processes
) -> Outcome:
    """Return the scores of a model, in the first process, and the segments that cannot be read."""
    if processes.rank == 0:
        print(evaluated.name, file=sys.stderr)
    failures = evaluate(
        evaluated.model.to(processes.device),
        evaluated.clips,
        evaluated.folder,
        processes,
        crop_count=options.crops,
        batch_size=options.batch_size,
        workers=choose_workers(options.workers, processes),
        skip=skipped,
    )
    scores: Scores = {}
    if processes.rank == 0:
        segments = evaluated.clips.segments
        scores = merge_batches(
            evaluated.folder,
            [s.id for s in segments],
            evaluated.model.num_class,
            options.batch_size,
        )
        videos = {segment.id: segment.video for segment in segments}
        scores["video_ids"] = [videos[name] for name in scores["ids"]]
        if lost := len(videos.keys() - {*scores["ids"], *failures, *skipped}):
            raise OSError(f"{evaluated.folder.path}: {lost} segments that were written are gone")
    return Outcome(
        evaluated.name, evaluated.checkpoint, evaluated.model.num_class, scores, failures,
        class_names=evaluated.model.class_names,
    )  # fmt: skip


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
