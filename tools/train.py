#!/usr/bin/env python
"""Train a model on annotated clips: of EPIC-KITCHENS, or of one's own classes.

    python tools/train.py MODEL --train CSV --validation CSV --data ROOT --out OUT
        [--recipe NAME] [--pretrained START] [--resume]
    torchrun --nproc-per-node=4 tools/train.py MODEL (the same options)

OUT/best.pth.tar is the model of the best epoch; last.pth.tar is what --resume goes on from.
epochs.csv and curves.png show the losses and accuracies of all epochs, confusion_TASK.png which
classes the best model takes for which, and transfer.txt what was loaded and what learns.

Exit status: 0; 1 after an error; 130 after Ctrl-C.
"""

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    # Before torch is imported: its threads would wait for one another in loops, on the cores that
    # workers decode on.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from checkpoints.files import atomic_write
from data.options import first_few, names_by_task
from engine.processes import Processes, join_processes
from engine.request import file_sha256
from epic.annotations import read_annotations
from evaluation_pictures import draw_confusions
from ops.memory import keep_freed_memory
from predictor import Predictor
from tools.options import choose_workers, print_list, run_program
from tools.train_options import make_recipe, train_parser
from tools.trained_clips import find_problems, open_clips, write_problems
from tools.trained_model import Start, build_model, find_start
from training.batches import steps_per_epoch
from training.labels import find_classes, number
from training.learner import prepare_model
from training.loop import train
from training.recipes import Recipe
from training.report import describe_transfer
from training.state import BEST, LAST, Progress, read_run
from training_pictures import draw_curves
from tsn import TSN

__all__ = ["main"]

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = train_parser()
    options = parser.parse_args(argv)
    if not options.data:
        parser.error("--data is needed")

    def run() -> int:
        with join_processes(options.device, options.threads) as processes:
            if processes.rank:
                logging.disable(logging.WARNING)  # the first process says it
            try:
                return _run(options, processes)
            except ValueError as error:
                name, _, rest = str(error).partition(" ")
                if name in {field.name for field in fields(Recipe)}:  # as users type it
                    raise ValueError(f"--{name.replace('_', '-')} {rest}") from error
                raise

    resumed = "the same command with --resume goes on where this one stopped"
    return run_program(parser.prog, run, interrupted=resumed)


def _run(options: argparse.Namespace, processes: Processes) -> int:
    if not options.minutes > 0:
        raise ValueError(f"--minutes must be positive, got {options.minutes:g}")
    recipe = make_recipe(options)
    start = find_start(options, recipe)
    recipe = replace(recipe, pretrained=Path(start.weights).name if start.weights else None)
    files = {"training": options.train, "validation": options.validation}
    segments = {name: read_annotations(path) for name, path in files.items() if path}
    classes = find_classes(
        segments["training"], segments.get("validation", ()),
        folders=[path.parent for path in files.values() if path], known=start.class_names,
    )  # fmt: skip
    steps_per_epoch(len(segments["training"]), recipe)  # refuses too few clips
    seen = {(each.video, each.frames, each.seconds) for each in segments["training"]}
    shared = [each.id for each in segments.get("validation", ())
              if (each.video, each.frames, each.seconds) in seen]  # fmt: skip
    if shared:
        _logger.warning("validation has clips of the training: %s", first_few(shared))
    request = _make_request(options, start, recipe)
    saved = read_run(options.out, request, resume=options.resume)
    if saved:
        model = saved.model
    else:
        sizes = {"input_size": options.input_size, "scale_size": options.scale_size}
        model = build_model(start, recipe, classes.num_class, sizes)
        if model.class_names and classes.names not in (None, model.class_names):
            _logger.warning(
                "the heads of the weights are of as many other classes, %s: yours start from them",
                first_few(chain.from_iterable(names_by_task(model.class_names).values())),
            )
        model.class_names = classes.names or model.class_names

    modes = {"training": recipe.sampling, "validation": "test"}
    clips = {
        name: open_clips(number(each, classes), model, options, modes[name])
        for name, each in segments.items()
    }
    problems = find_problems(clips, options.out, processes, resumed=saved is not None)
    if problems and not options.skip_missing:
        if processes.rank == 0:
            print_list("clips cannot be read:", chain.from_iterable(problems.values()))
            print("Nothing was trained; --skip-missing leaves them out.", file=sys.stderr)
        return 1
    clips = {name: each.without(problems.get(name, ())) for name, each in clips.items()}
    prepare_model(model, recipe)
    if processes.rank == 0 and not saved:
        options.out.mkdir(parents=True, exist_ok=True)
        write_problems(problems, options.out)
        report = describe_transfer(model, recipe)
        print(report)
        with atomic_write(options.out / "transfer.txt") as file:
            file.write(f"{report}\n".encode())

    progress = train(
        model, recipe, clips["training"], clips.get("validation"), options.out, processes,
        request=request, saved=saved, workers=choose_workers(options.workers, processes),
        minutes=options.minutes, replace_unreadable=options.skip_missing,
        tensorboard=options.tensorboard,
    )  # fmt: skip
    if processes.rank == 0:
        _draw(progress, model, options)
        print(_describe_end(progress, model, options))
    return 0


def _make_request(options: argparse.Namespace, start: Start, recipe: Recipe) -> dict[str, Any]:
    """Return all that a run depends on, as JSON has it, under the names of options."""
    values = {
        **asdict(recipe),
        **start.options,
        "input_size": options.input_size,
        "scale_size": options.scale_size,
        "include_stop": options.include_stop,
        "fps": options.fps,
        "flow_stride": options.flow_stride,
    }
    files = {"train": options.train, "validation": options.validation}
    if isinstance(start.weights, Path):
        files["pretrained"] = start.weights
    values |= {f"{name} (SHA-256)": file_sha256(path) for name, path in files.items() if path}
    named = {f"--{name.replace('_', '-')}": value for name, value in values.items()}
    request: dict[str, Any] = json.loads(json.dumps({"MODEL": start.model_type, **named}))
    return request


def _draw(progress: Progress, model: TSN, options: argparse.Namespace) -> None:
    """Draw the curves of a run, and the confusions of its best epoch."""
    title = f"{model.variant} {model.arch} {model.modality}, recipe {options.recipe}"
    draw_curves(progress.rows, options.out / "curves.png", title=title)
    names = Predictor(model, optimize=False).class_names  # numbers where there are none
    for (task, predicted), task_names in zip(
        progress.best_predictions.items(), names, strict=False
    ):
        path = options.out / f"confusion_{task}.png"
        draw_confusions(*predicted, task_names, path, title=f"{title}, {task}s")


def _describe_end(progress: Progress, model: TSN, options: argparse.Namespace) -> str:
    """Return what came of a run, and how to go on with it."""
    checkpoint, came = options.out / LAST, f"{progress.epoch} epochs are done, without validation"
    if progress.best_epoch:
        checkpoint = options.out / BEST
        accuracies = ", ".join(
            f"{name.removesuffix('_top1')} {value:.1f} %"
            for name, value in progress.rows[progress.best_epoch - 1].items()
            if name.endswith("_top1")
        )
        came = f"the best epoch was {progress.best_epoch} of {progress.epoch}: {accuracies}"
    words = ["tools/evaluate.py", checkpoint, "--annotations", options.validation]
    words += ["--data", options.data, "--out", options.out / "evaluation"]
    for name in ("flow_data", "fps", "flow_stride"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name.replace('_', '-')}", value]
    if options.include_stop is not None:
        words.append("--include-stop" if options.include_stop else "--no-include-stop")
    commands = [words] if options.validation else []
    if model.modality != "Flow":  # of which videos have none
        commands.append(["tools/label_video.py", "VIDEO", "--checkpoint", checkpoint])
    return "\n".join([came, *(shlex.join(["python", *map(str, each)]) for each in commands)])


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
