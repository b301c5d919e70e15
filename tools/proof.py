#!/usr/bin/env python
"""Train the four models on synthetic actions, to see what their papers claim.

    python tools/proof.py --out OUT [--seeds 0 1 2]

The clips of `data.synthetic_actions` show six actions in pairs, which differ in the order of their
frames alone. TSN, without a sense of order, knows the pair and guesses which of both it is: 50 % of
clips at best. TRN, MTRN and TSM learn the order. All start from random weights.

OUT/proof.txt has the table and proof.png the accuracies by epoch. OUT/clips are the clips and
OUT/tsm/best.pth.tar is a model for `demo.py` and other programs (of several seeds, OUT/seed-N/...).
Stopped at any moment, the same command goes on.

Exit status: 0; 1 after an error; 130 after Ctrl-C.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checkpoints.checkpoint import read_checkpoint
from checkpoints.config import MODEL_OPTIONS
from checkpoints.files import atomic_write
from data.synthetic_actions import ACTION_PAIRS, make_actions
from engine.processes import count_cores
from tools.options import run_program
from training.state import BEST, LAST
from training_pictures import draw_training_comparison

__all__ = ["main"]

_OPTIONS = (
    "--recipe synthetic-actions --base-model resnet18 --num-segments 4 --input-size 32 "
    "--scale-size 32 --device cpu --threads 1 --workers 0 --resume"
)
_WITHOUT_ORDER = 50.0  # percent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = argparse.ArgumentParser(
        description="Train TSN, TRN, MTRN and TSM on actions that differ in order alone."
    )
    parser.add_argument("--out", metavar="OUT", type=Path, required=True, help="folder for results")
    parser.add_argument(
        "--seeds", metavar="N", type=int, nargs="+", default=[0],
        help="of clips and weights: the table has a column for each (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--train-count", metavar="N", type=int, default=100,
        help="training clips of each class (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--epochs", metavar="N", type=int, help="in the place of the recipe's, for a trial"
    )
    options = parser.parse_args(argv)
    return run_program(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    folders = {
        seed: options.out / f"seed-{seed}" if len(options.seeds) > 1 else options.out
        for seed in options.seeds
    }
    for seed, folder in folders.items():
        make_actions(folder / "clips", train_count=options.train_count, seed=seed)

    def train(run: tuple[int, str]) -> int:
        seed, name = run
        return _train(folders[seed], name, seed, options)

    # A core each: one model gains little from a second one, its images are small.
    with ThreadPoolExecutor(count_cores()) as pool:
        statuses = list(pool.map(train, product(folders, MODEL_OPTIONS)))
    if any(statuses):
        return max(statuses)
    results = {
        name: [_read_run(folder / name / LAST) for folder in folders.values()]
        for name in MODEL_OPTIONS
    }
    table = _format_table(results, options.seeds)
    with atomic_write(options.out / "proof.txt") as file:
        file.write(f"{table}\n".encode())
    curves = {name.upper(): of_seeds[0]["rows"] for name, of_seeds in results.items()}
    draw_training_comparison(
        curves, options.out / "proof.png", without_order=_WITHOUT_ORDER,
        title=f"Actions that differ in order alone, seed {options.seeds[0]}",
    )  # fmt: skip
    print(f"\n{table}\n\nproof.txt, proof.png and the models are in {options.out}")
    folder = folders[options.seeds[0]]
    clip = folder / "clips" / "validation" / "move-left-000"
    print(f"labels: python demo.py --clip {clip} --checkpoint {folder / 'tsm' / BEST}")
    return 0


def _train(folder: Path, name: str, seed: int, options: argparse.Namespace) -> int:
    """Train a model in a process of its own, and return its exit status."""
    clips, words = folder / "clips", _OPTIONS.split()
    if options.epochs is not None:
        words += ["--epochs", str(options.epochs)]
        words += ["--warmup-epochs", "0"] * (options.epochs <= 2)
    command = [
        sys.executable, str(Path(__file__).with_name("train.py")), name, *words,
        "--train", str(clips / "train.csv"), "--validation", str(clips / "validation.csv"),
        "--data", str(clips), "--out", str(folder / name), "--seed", str(seed),
    ]  # fmt: skip
    log = folder / f"{name}.log"
    with (
        open(log, "w", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        for line in process.stdout or ():
            if line.startswith("epoch "):
                print(f"{name}, seed {seed}, {line}", end="", flush=True)
    if process.returncode not in (0, 130):  # 130: Ctrl-C, of which this program tells
        print(log.read_text(encoding="utf-8"), end="", file=sys.stderr)
    return process.returncode


def _read_run(path: Path) -> dict[str, Any]:
    """Return the rows of a run's epochs, and what is right in its last one, in percent.

    The best one would flatter: it is chosen by the clips that judge it.
    """
    contents = read_checkpoint(path).contents
    progress = contents["training"]["progress"]
    labels, predictions = map(np.asarray, progress["predictions"]["label"])
    pairs = np.array(
        [[name in pair for pair in ACTION_PAIRS].index(True) for name in contents["class_names"]]
    )
    return {
        "rows": progress["rows"],
        "action": 100 * float(np.mean(labels == predictions)),
        "pair": 100 * float(np.mean(pairs[labels] == pairs[predictions])),
    }


def _format_table(runs: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> str:
    """Return a table in Markdown; with several seeds, the last columns are means."""
    columns = [f"action, seed {seed}" for seed in seeds] if len(seeds) > 1 else []
    lines = [["model", *columns, "action", "pair"]]
    for name, of_seeds in runs.items():
        actions, pairs = ([run[what] for run in of_seeds] for what in ("action", "pair"))
        figures = [*(actions if columns else ()), fmean(actions), fmean(pairs)]
        lines.append([name.upper(), *(f"{figure:.1f} %" for figure in figures)])
    lines.insert(1, ["---", *["---:"] * len(lines[0][1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
