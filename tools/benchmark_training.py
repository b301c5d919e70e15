#!/usr/bin/env python
"""Time training against a bare loop over the same model and batches in memory.

    python tools/benchmark_training.py
    python tools/benchmark_training.py --device cuda --backbone resnet50 --input-size 224
        --segments 8 --batch-size 32 --precision bfloat16 --workers 8

Clips are frames in memory: workers crop, resize and hand over, but decode nothing.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
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

from data.dataset import ClipDataset
from data.segments import Segment
from engine.processes import Processes, join_processes
from ops.memory import keep_freed_memory
from tools.benchmark import describe_machine
from training.batches import Batch, ClipBatches, plan_epoch
from training.learner import prepare_model
from training.loop import train
from training.recipes import RECIPES, Recipe
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

__all__ = ["main"]

_MODELS: dict[str, type[TSN]] = {"TSN": TSN, "TRN": TRN, "MTRN": MTRN, "TSM": TSM}
_CLASSES = 10
_BATCHES_IN_MEMORY = 4

_LEGEND = """\
Every round measures the bare loop (forward, mean cross-entropy, backward, clipping, SGD), an epoch
of one step, and one with --steps more; an epoch is all of it, from workers to checkpoint. Training
is what the longer one takes longer. 97 % of the bare loop's speed is 3 % slower: the median over
the rounds, in brackets the slowest and the fastest. CPU time is the main process's: on the CPU it
counts where other programs run too. Workers keep up while they are not busy all of the time: on the
CPU, leave them cores that --threads does not use.
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


def _measure(call: Callable[[], object]) -> NDArray[np.float64]:
    """Return the seconds by the clock, and of CPUs in this process and in workers."""
    from torch.utils.benchmark import timer  # the clock, once the GPU has done what it has to

    def now() -> NDArray[np.float64]:
        times = os.times()  # of workers since they ended
        return np.array([timer(), time.process_time(), times[2] + times[3]])

    began = now()
    call()
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


def _compare(name: str, options: argparse.Namespace, processes: Processes, folder: str) -> str:
    """Measure a model, and return a line about it."""
    size, steps, device = options.input_size, options.steps, processes.device
    model = _MODELS[name](_CLASSES, options.segments, "RGB", options.backbone, pretrained=None)
    model.preprocessing = replace(model.preprocessing, input_size=size, scale_size=size * 8 // 7)
    recipe = replace(
        RECIPES["synthetic-actions"], epochs=1, warmup_epochs=0, batch_size=options.batch_size,
        precision=options.precision,
    )  # fmt: skip
    one, all_of_them = (
        _ClipsInMemory(count * options.batch_size, model, folder) for count in (1, steps + 1)
    )
    parts = plan_epoch(len(all_of_them), recipe, 0)[:_BATCHES_IN_MEMORY]
    batches = [ClipBatches(all_of_them, model.training_transform())[part] for part in parts]
    if device.type == "cuda":
        batches = [batch.pin_memory() for batch in batches]

    def learn(clips: ClipDataset) -> None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            train(
                model, recipe, clips, None, Path(folder), processes, request={},
                workers=options.workers,
            )  # fmt: skip

    rounds = []
    for _ in range(options.rounds + 1):
        bare = _measure(lambda: _learn_bare(model, recipe, batches, steps, device))
        first = _measure(lambda: learn(one))
        rounds.append((bare, first, _measure(lambda: learn(all_of_them)) - first))
    bare, first, own = np.array(rounds[1:]).transpose(1, 2, 0)  # seconds of each kind and round
    busy = f"{np.median(own[2] / own[0]) / max(options.workers, 1):.0%}"
    return (
        f"{name} {options.backbone}: bare loop {steps / np.median(bare[0]):.3g} steps a second, "
        f"training {_percent(bare[0] / own[0])} of its speed, by CPU time "
        f"{_percent(bare[1] / own[1])}; workers are busy for {busy}; an epoch takes "
        f"{np.median(first[0] - bare[0] / steps):.2g} s more, to start workers and save"
    )


def _percent(shares: NDArray[np.float64]) -> str:
    low, middle, high = 100 * np.quantile(shares, [0, 0.5, 1])
    return f"{middle:.1f} % ({low:.1f} to {high:.1f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_LEGEND, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=_MODELS, default=list(_MODELS), help="default: all")
    add("--backbone", default="resnet18", help="default: %(default)s")
    add("--device", default="cpu", help="such as cuda; default: %(default)s")
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    for name, default, what in (
        ("segments", 4, "of a clip"),
        ("input-size", 64, "side of images, in pixels"),
        ("batch-size", 8, "clips of a step"),
        ("steps", 20, "of a measurement"),
        ("rounds", 7, "measurements of each"),
        ("workers", 1, "processes that read clips"),
        ("threads", 1, "that compute on the CPU"),
    ):
        add(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default}")
    options = parser.parse_args(arguments)
    with (
        join_processes(options.device, options.threads) as processes,
        tempfile.TemporaryDirectory() as folder,
    ):
        for fact, value in describe_machine(processes.device).items():
            print(f"{fact}: {value}")
        for name in options.models:
            print(_compare(name, options, processes, folder), flush=True)
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
