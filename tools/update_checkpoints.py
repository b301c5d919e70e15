#!/usr/bin/env python
"""Turn an old checkpoint file into the documented format (see `weights.checkpoint`).

    python tools/update_checkpoints.py CHECKPOINT [UPDATED] [--overwrite]

Prefixes are removed from weight names, old model types take their present names, and what
`load_checkpoint` had to find elsewhere, or to assume, is recorded. Training arguments, epoch,
optimiser and all other entries are kept, and so are the kind of serialisation and the precision of
the weights. The file is known to load before anything is written.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model_loader import load_checkpoint, settings_of
from weights.checkpoint import read_checkpoint, to_dictionary
from weights.files import CheckpointError, is_legacy, write_file

__all__ = ["main", "update"]


def update(
    path: Path,
    destination: Path | None = None,
    *,
    overwrite: bool = False,
    num_segments: int | None = None,
) -> tuple[Path | None, list[str]]:
    """Write a checkpoint file in the documented format.

    Args:
        path: the file.
        destination: where to write; default: beside the file, `-updated` in its name, or with
            `overwrite` the file itself.
        overwrite: whether an existing file may be replaced.
        num_segments: T, for a file that does not record it.

    Returns:
        Where it was written, and what changed, a sentence each. None if the file needs no update
        and no destination is given: nothing is written then.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        FileExistsError: if the destination exists and may not be replaced.
        weights.files.CheckpointError: if the file is not a checkpoint that `load_checkpoint` loads.
    """
    target = destination or (path if overwrite else _beside(path))
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{target} exists: give another name for the updated file, or pass --overwrite"
        )
    settings = settings_of(load_checkpoint(path, num_segments=num_segments))
    checkpoint = read_checkpoint(path, num_segments=num_segments)
    documented = to_dictionary(replace(checkpoint, settings=settings))
    changes = [
        *checkpoint.report,
        *_differences("entries", checkpoint.contents, documented),
        *_differences("training options", checkpoint.args, vars(documented["args"])),
    ]
    if not changes and destination is None:
        return None, []
    contents = {**checkpoint.contents, **documented}
    return write_file(contents, target, legacy=is_legacy(path)), changes


def _beside(path: Path) -> Path:
    ending = ".pth.tar" if path.name.endswith(".pth.tar") else path.suffix
    return path.with_name(f"{path.name.removesuffix(ending)}-updated{ending}")


def _differences(what: str, old: Mapping[Any, Any], new: Mapping[str, Any]) -> list[str]:
    """What was added to a dictionary, and which plain values were changed."""
    added = ", ".join(name for name in new if name not in old)
    differences = [f"added the {what} {added}"] if added else []
    for name, value in new.items():
        if name in old and isinstance(value, str | int | float) and old[name] != value:
            differences.append(f"changed {name} from {old[name]!r} to {value!r}")
    return differences


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
    parser.add_argument(
        "--num-segments",
        metavar="T",
        type=int,
        help="segments of a clip, for a file that does not record them",
    )
    options = parser.parse_args(arguments)
    try:
        written, changes = update(
            options.checkpoint,
            options.updated,
            overwrite=options.overwrite,
            num_segments=options.num_segments,
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
