#!/usr/bin/env python
"""Time training against a bare loop over the same model and batches in memory.

    python tools/benchmark_training.py
    python tools/benchmark_training.py --device cuda --backbone resnet50 --input-size 224
        --segments 8 --batch-size 32 --precision bfloat16 --workers 8

Clips are frames in memory: workers crop, resize and hand over, but decode nothing.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as train.py does

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from checkpoints.config import MODEL_OPTIONS
from data.dataset import ClipDataset
from data.segments import Segment
from engine.processes import Processes, join_processes
from ops.memory import keep_freed_memory
from tools.benchmark import describe_machine
from tools.options import run_program
from tools.trained_model import Start, build_model
from training.batches import Batch, ClipBatches, plan_epoch
from training.learner import prepare_model
from training.loop import train
from training.recipes import RECIPES, Recipe
from tsn import TSN

__all__ = ["main"]

_CLASSES = 10
_LEGEND = """\
Every round times the bare loop (forward, mean cross-entropy, backward, clipping, SGD), an epoch of
one step and one of --steps more, from the start of workers to the checkpoint. The share is that of
the bare loop's speed which training has, the difference of both epochs: the median over the rounds,
and in brackets the lowest and the highest; first by the clock, then by the CPU time of the main
process, which counts where the CPU computes and other programs run. Workers keep up while they are
busy for less than 100 % of the time, on cores of their own.
"""


class _ClipsInMemory(ClipDataset):
    """Clips, all of the same random frames."""

    def __init__(self, count: int, model: TSN, folder: str) -> None:
        segments = [Segment(str(i), "none", label_class=i % _CLASSES) for i in range(count)]
        super().__init__(segments, folder, modality="RGB", num_segments=model.num_segments)
        shape = (model.num_segments, 3, model.scale_size, model.scale_size * 4 // 3)
        self._clip = torch.randint(0, 256, shape, dtype=torch.uint8)

    def __getitem__(self, index: int) -> dict[str, Any]:
        segment = self.segments[index]
        return {"clip": self._clip, "id": segment.id, "label_class": segment.label_class}


def _time(call: Callable[..., object], *arguments: Any, **options: Any) -> NDArray[np.float64]:
    """Return seconds: by the clock, of CPUs in this process, and in workers that have ended."""
    from torch.utils.benchmark import timer  # the clock, once the GPU has done its work

    def now() -> NDArray[np.float64]:
        times = os.times()
        return np.array([timer(), time.process_time(), times[2] + times[3]])

    began = now()
    call(*arguments, **options)
    return now() - began


def _learn_bare(
    model: TSN, recipe: Recipe, batches: Sequence[Batch], steps: int, device: torch.device
) -> None:
    prepare_model(model, recipe)
    parameters = list(model.to(device).parameters())
    optimizer = torch.optim.SGD(parameters, recipe.lr, recipe.momentum, 0, recipe.weight_decay)
    for batch in islice(cycle(batches), steps):
        labels = batch.labels["label"].to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, recipe.precision == "bfloat16"):
            logits = model(batch.inputs.to(device, non_blocking=True))
        cross_entropy(logits.float(), labels).backward()
        clip_grad_norm_(parameters, recipe.clip_norm or np.inf)
        optimizer.step()
        optimizer.zero_grad()


def _compare(options: argparse.Namespace, processes: Processes, folder: str) -> str:
    """Time training, and return what came of it."""
    steps, batch_size, size = options.steps, options.batch_size, options.input_size
    recipe = replace(
        RECIPES["synthetic-actions"], epochs=1, warmup_epochs=0, batch_size=batch_size,
        precision=options.precision,
    )  # fmt: skip
    config = {"base_model": options.backbone, "modality": "RGB", "num_segments": options.segments}
    sizes = {"input_size": size, "scale_size": size * 8 // 7}
    model = build_model(Start(options.model, config, None), recipe, _CLASSES, sizes)
    one, more = (_ClipsInMemory(count * batch_size, model, folder) for count in (1, steps + 1))
    read = ClipBatches(more, model.training_transform())
    batches = [read[part] for part in plan_epoch(len(more), recipe, 0)[:4]]
    if processes.device.type == "cuda":
        batches = [batch.pin_memory() for batch in batches]

    learn = partial(
        train, model, recipe, validation=None, processes=processes, workers=options.workers,
    )  # fmt: skip
    rounds = []
    for _ in range(options.rounds + 1):
        bare = _time(_learn_bare, model, recipe, batches, steps, processes.device)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            start = _time(learn, training=one, folder=Path(folder, "start"))
            whole = _time(learn, training=more, folder=Path(folder, "whole"))
        for name in ("start", "whole"):
            shutil.rmtree(Path(folder, name))
        rounds.append((bare, start, whole - start))
    # The first round warms up. Seconds of each kind in each round:
    bare, start, own = np.array(rounds[1:]).transpose(1, 2, 0)
    share, cpu_share = (
        "{1:.1%} ({0:.1%} to {2:.1%})".format(*np.quantile(bare[clock] / own[clock], (0, 0.5, 1)))
        for clock in (0, 1)
    )
    return (
        f"bare loop {np.median(bare[0]) / steps:.3g} s a step; training "
        f"{share} of its speed, by CPU time {cpu_share}; workers busy for "
        f"{np.median(own[2] / own[0]) / max(options.workers, 1):.0%}; start and end of an epoch "
        f"{np.median(start[0] - bare[0] / steps):.2g} s"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_LEGEND, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODEL_OPTIONS, default="tsm", help="default: tsm")
    for name, default, what in (
        ("backbone", "resnet18", "such as resnet50"),
        ("device", "cpu", "such as cuda"),
        ("precision", "float32", "or bfloat16"),
        ("segments", 4, "of a clip"),
        ("input-size", 64, "side of images in pixels"),
        ("batch-size", 8, "clips of a step"),
        ("steps", 20, "that a round times of each"),
        ("rounds", 7, "of the bare loop and training in turn"),
        ("workers", 1, "processes that read clips"),
        ("threads", 1, "that compute on the CPU"),
    ):
        help_text = f"{what} (default: {default})"
        parser.add_argument(f"--{name}", type=type(default), default=default, help=help_text)
    options = parser.parse_args(arguments)

    def run() -> int:
        with (
            join_processes(options.device, options.threads) as processes,
            tempfile.TemporaryDirectory() as folder,
        ):
            for fact, value in describe_machine(processes.device).items():
                print(f"{fact}: {value}")
            print(_compare(options, processes, folder))
        return 0

    return run_program(parser.prog, run, interrupted="nothing is kept")


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
