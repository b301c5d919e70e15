#!/usr/bin/env python
"""Turn an old checkpoint file into the documented format (see `checkpoints.checkpoint`).

    python tools/update_checkpoints.py CHECKPOINT [UPDATED] [--overwrite] [--trust]

Prefixes are removed from weight names, old model types take their present names, and what
`load_checkpoint` had to find elsewhere, or to assume, is recorded. Training arguments, epoch,
optimiser and all other entries are kept, and so are the format of the file and the precision of the
weights. The file is known to load before anything is written.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checkpoints.errors import CheckpointError
from checkpoints.files import write_file
from model_loader import read_documented
from tools.options import add_segments_option, add_trust_option, find_format

__all__ = ["main", "update"]


def update(
    path: Path,
    destination: Path | None = None,
    *,
    overwrite: bool = False,
    num_segments: int | None = None,
    trust: bool = False,
) -> tuple[Path | None, list[str]]:
    """Write a checkpoint file in the documented format.

    Args:
        path: the file.
        destination: where to write; default: beside the file, `-updated` in its name, or with
            `overwrite` the file itself.
        overwrite: whether an existing file may be replaced.
        num_segments: as for `load_checkpoint`.
        trust: whether the file may run any code while it is read. What is written needs no trust.

    Returns:
        Where it was written, and what changed, a sentence each. None if the file needs no update
        and no destination is given: nothing is written then.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        FileExistsError: if the destination exists and may not be replaced.
        checkpoints.errors.CheckpointError: if `load_checkpoint` does not load the file.
    """
    target = destination or (path if overwrite else _beside(path))
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{target} exists: give another name for the updated file, or pass --overwrite"
        )
    contents, changes = read_documented(path, num_segments=num_segments, trust=trust)
    if not changes and destination is None:
        return None, []
    write_file(contents, target, legacy=find_format(path) == "legacy")
    return target, changes


def _beside(path: Path) -> Path:
    ending = ".pth.tar" if path.name.endswith(".pth.tar") else path.suffix
    return path.with_name(f"{path.name.removesuffix(ending)}-updated{ending}")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Turn an old checkpoint file into the documented format.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the old file")
    parser.add_argument(
        "updated",
        metavar="UPDATED",
        type=Path,
        nargs="?",
        help="where to write; default: beside the old file, -updated in its name",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace UPDATED if it exists, or without UPDATED the old file itself",
    )
    add_segments_option(parser)
    add_trust_option(parser)
    options = parser.parse_args(arguments)
    try:
        written, changes = update(
            options.checkpoint,
            options.updated,
            overwrite=options.overwrite,
            num_segments=options.num_segments,
            trust=options.trust,
        )
    except (CheckpointError, OSError, ImportError) as error:  # the last: a rare backbone's package
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    for change in changes:
        print(change)
    print(
        f"wrote {written}" if written else f"{options.checkpoint} needs no update: nothing written"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
