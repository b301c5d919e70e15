"""What several programs share: options and what they mean, checkpoints by name, errors."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import torch

from checkpoints.safetensors_file import is_safetensors
from data.options import first_few
from engine.processes import Processes, count_cores
from epic.datasets import find_dataset
from model_loader import load_checkpoint
from ops.inference import optimize_for_inference
from tsn import TSN
from weights.download import fetch
from weights.published import PUBLISHED

__all__ = [
    "PRECISIONS",
    "add_clip_options",
    "add_flow_stride_option",
    "add_run_options",
    "add_segments_option",
    "add_trust_option",
    "choose_workers",
    "find_checkpoint",
    "find_format",
    "includes_stop",
    "load_model",
    "print_list",
    "run_program",
]

Options: TypeAlias = argparse.ArgumentParser | argparse._ArgumentGroup

PRECISIONS = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16
}  # fmt: skip
_MAX_WORKERS = 8
_MAX_LISTED = 20
_DEAD_WORKER = "error: a worker process ended before its time, mostly because memory ran out"


def add_segments_option(parser: Options) -> None:
    """Add `--num-segments T`, or `--segments T`."""
    parser.add_argument(
        "--num-segments",
        "--segments",
        metavar="T",
        type=int,
        help="segments of a clip: for a file that does not record them, or to build a TSN or TSM "
        "for another number than the file records",
    )


def add_trust_option(parser: Options) -> None:
    """Add `--trust`."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the file run code while it is read: only for files whose writer you trust",
    )


def add_flow_stride_option(parser: Options) -> None:
    """Add `--flow-stride N`."""
    parser.add_argument(
        "--flow-stride", metavar="N", type=int,
        help="RGB frames from one flow image to the next (default: 2; 1 for videos PXX_1YY)",
    )  # fmt: skip


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """Add what says where the frames of annotated segments are."""
    clips = parser.add_argument_group("clips")
    clips.add_argument(
        "--data", metavar="ROOT", type=Path,
        help="folder of the dataset: frames, tars of frames, or videos",
    )  # fmt: skip
    clips.add_argument(
        "--flow-data", metavar="ROOT", type=Path, help="folder of the flow, if it is another"
    )
    clips.add_argument(
        "--include-stop", action=argparse.BooleanOptionalAction, default=None,
        help="whether the stop frame of an annotation belongs to its segment (default: only for "
        "RGB weights of EPIC-KITCHENS-100, which were trained so)",
    )  # fmt: skip
    clips.add_argument(
        "--fps", type=float,
        help="RGB frames per second that frame numbers of annotations count, and that images of "
        "annotations in seconds have (default: 60, 50 for videos PXX_1YY, and the frames of the "
        "file itself for other videos)",
    )  # fmt: skip
    add_flow_stride_option(clips)
    clips.add_argument(
        "--skip-missing", action="store_true",
        help="leave out segments without frames, which are listed, instead of refusing to start",
    )  # fmt: skip


def add_run_options(
    parser: argparse.ArgumentParser, *, workers: bool = True, precision: bool = True
) -> None:
    """Add what says how a run computes; `workers`, if clips are read by other processes."""
    run = parser.add_argument_group("run")
    run.add_argument("--device", help="such as cpu or cuda (default: a GPU if there is one)")
    if precision:
        run.add_argument(
            "--precision", choices=PRECISIONS, default="float32",
            help="of the network (default: %(default)s)",
        )  # fmt: skip
    run.add_argument(
        "--threads", metavar="N", type=int,
        help="threads of each process, of which results on the CPU depend in their last digits "
        "(default: its share of the cores)",
    )  # fmt: skip
    if workers:
        run.add_argument(
            "--workers", metavar="N", type=int,
            help="processes that read clips, for each process that computes (default: its share of "
            "the cores, at most 8)",
        )  # fmt: skip


def choose_workers(workers: int | None, processes: Processes) -> int:
    """Return the number of processes that read clips: `--workers`, or a share of the cores."""
    if workers is None:
        local_count = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return min(_MAX_WORKERS, max(count_cores() // local_count, 1))
    if workers < 0:
        raise ValueError(f"--workers must be at least 0, got {workers}")
    return workers


def find_checkpoint(name: str | os.PathLike[str]) -> Path:
    """Return the path of a checkpoint: a file, or published weights by the name of theirs.

    Raises:
        FileNotFoundError: if it is neither.
        weights.download.DownloadError: if the published weights cannot be fetched.
    """
    path = Path(name)
    if path.exists():
        return path
    for entry in PUBLISHED:
        if entry.file_name == str(name):
            return fetch(entry.url, sha256_prefix=entry.sha256_prefix)
    raise FileNotFoundError(
        f"{name}: there is no such file, and no published weights of this name. They are: "
        f"{', '.join(entry.file_name for entry in PUBLISHED)}"
    )


def find_format(path: str | os.PathLike[str]) -> str:
    """Return how a checkpoint was serialised: "zip" (torch.save), "legacy" or "safetensors"."""
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return "zip"
    return "safetensors" if is_safetensors(Path(path)) else "legacy"


def load_model(checkpoint: Path, options: argparse.Namespace, *, optimize: bool = True) -> TSN:
    """Return the model of a checkpoint, in the precision that the options want.

    Raises:
        ValueError: if the file, or the model that the options want of it, cannot be.
    """
    model = load_checkpoint(checkpoint, num_segments=options.num_segments, trust=options.trust)
    dtype = PRECISIONS[options.precision]
    return optimize_for_inference(model, dtype=dtype) if optimize else model.to(dtype)


def includes_stop(model: TSN, options: argparse.Namespace) -> bool:
    """Return whether the stop frame of an annotation belongs to its clip: `--include-stop`."""
    if model.modality == "Flow":
        return False
    if options.include_stop is None:
        return find_dataset(model.num_class) == "epic-kitchens-100"
    return bool(options.include_stop)


def print_list(heading: str, lines: Iterable[object]) -> None:
    """Print a heading and, below it, the first lines and how many more there are, to stderr."""
    separator = "\n  "
    print(heading, first_few(lines, _MAX_LISTED, separator), sep=separator, file=sys.stderr)


def run_program(
    name: str,
    run: Callable[[], int],
    *,
    interrupted: str = "the same command goes on where this one stopped",
) -> int:
    """Return the exit status of a run, and print what stops it in one message.

    Of the processes that torchrun started, the first one speaks for all; a file that another cannot
    read or write may lie on its machine alone.

    Args:
        name: of the program.
        run: returns its exit status.
        interrupted: what there is after Ctrl-C, or when a worker ended before its time.
    """
    rank = int(os.environ.get("RANK", 0))
    speaks = rank == 0
    try:
        return run()
    except KeyboardInterrupt:
        status, message = 130, f"interrupted; {interrupted}"
    except (ValueError, ImportError) as error:
        status, message = 1, f"error: {error}"
    except OSError as error:
        status, message, speaks = 1, f"error: {error}", True
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        message = f"{_DEAD_WORKER}; {interrupted}, best with fewer --workers"
        status, speaks = 1, True
    if speaks:
        where = f" (process {rank})" if rank else ""
        print(f"{name}{where}: {message}", file=sys.stderr)
    return status
