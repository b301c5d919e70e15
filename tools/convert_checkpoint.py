#!/usr/bin/env python
"""Convert a checkpoint file to safetensors or back, or between torch's two serialisations.

    python tools/convert_checkpoint.py CHECKPOINT CONVERTED [--legacy] [--overwrite] [--trust]

CHECKPOINT is any file that `load_checkpoint` loads; CONVERTED holds the same in the documented
format (see `checkpoints.checkpoint`), weights in their precision, training options, optimiser and
all other entries included. Where it came from is recorded under `provenance`. What cannot be
represented is named.
"""

import argparse
import hashlib
import sys
from pathlib import Path

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checkpoints.files import write_file
from model_loader import read_documented
from tools.options import add_segments_option, add_trust_option

__all__ = ["convert", "main"]


def convert(
    path: Path,
    destination: Path,
    *,
    legacy: bool = False,
    overwrite: bool = False,
    num_segments: int | None = None,
    trust: bool = False,
) -> list[str]:
    """Write a checkpoint in the format that the destination's name asks for.

    Args:
        path: the file.
        destination: where to write: safetensors with that suffix, else torch's serialisation.
        legacy: torch's serialisation before PyTorch 1.6, which the original reads.
        overwrite: whether an existing file may be replaced.
        num_segments: as for `load_checkpoint`.
        trust: whether the file may run any code while it is read. What is written needs no trust.

    Returns:
        What differs from the file, and what could not be represented, a sentence each.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        FileExistsError: if the destination exists and may not be replaced.
        ModuleNotFoundError: if the package safetensors is needed and not installed.
        ValueError: if `legacy` is wanted of a safetensors file.
        checkpoints.errors.CheckpointError: if `load_checkpoint` does not load the file.
    """
    if destination.exists() and not overwrite:
        raise FileExistsError(
            f"{destination} exists: give another name for the converted file, or pass --overwrite"
        )
    contents, changes = read_documented(path, num_segments=num_segments, trust=trust)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {"file": path.name, "sha256": digest, "changes": list(changes)}
    # A file that was converted before still comes from where it came from.
    contents = {"provenance": origin, **contents}
    write_file(contents, destination, legacy=legacy)
    return changes


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint file to safetensors or back.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the file")
    parser.add_argument(
        "converted",
        metavar="CONVERTED",
        type=Path,
        help="where to write: NAME.safetensors, or any other name for torch's serialisation",
    )
    parser.add_argument(
        "--legacy", action="store_true", help="write the serialisation of PyTorch before 1.6"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace CONVERTED if it exists")
    add_segments_option(parser)
    add_trust_option(parser)
    options = parser.parse_args(arguments)
    try:
        changes = convert(
            options.checkpoint,
            options.converted,
            legacy=options.legacy,
            overwrite=options.overwrite,
            num_segments=options.num_segments,
            trust=options.trust,
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    for change in changes:
        print(change)
    print(f"wrote {options.converted}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
