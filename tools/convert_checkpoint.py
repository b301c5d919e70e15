#!/usr/bin/env python
"""Convert a checkpoint file to another format, or update files to the documented one.

    python tools/convert_checkpoint.py CHECKPOINT --output FILE [--legacy] [--overwrite] [--trust]
    python tools/convert_checkpoint.py CHECKPOINT... [--overwrite] [--trust]

CHECKPOINT is any file that `load_checkpoint` loads. What is written is in the documented format
(docs/checkpoints.md): prefixes are removed from weight names, old model types have their
present names, and what had to be found elsewhere, or assumed, is recorded. Weights keep their
precision; training options, epoch and other entries stay. `provenance` says which file they are
from. A file is known to load before anything is written.

With --output, the name decides the format: safetensors for FILE.safetensors, else torch's (as a
rule FILE.pth.tar). Without it, each file keeps its format and gets an updated one beside it, with
-updated in its name, unless it needs no update; of a folder, that is every checkpoint in it.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checkpoints.errors import key_to_str
from checkpoints.files import write_file
from checkpoints.safetensors_file import to_json
from model_loader import read_documented
from tools.options import add_segments_option, add_trust_option, find_format

__all__ = ["convert", "main"]

_SUFFIXES = (".pth.tar", ".pth", ".pt", ".ckpt", ".safetensors")
"""Names of the files in a folder that are taken for checkpoints."""
_TRAINING_STATE = ("optimizer", "optimizer_states", "training")
"""Entries that a training goes on from; the second one is Lightning's."""


def convert(
    path: Path,
    destination: Path | None = None,
    *,
    legacy: bool = False,
    overwrite: bool = False,
    num_segments: int | None = None,
    trust: bool = False,
) -> tuple[Path | None, list[str]]:
    """Write a checkpoint file in the documented format.

    Args:
        path: the file.
        destination: where to write, in the format that its name asks for; default: beside the file,
            `-updated` in its name, or with `overwrite` the file itself, in the file's own format.
        legacy: torch's serialisation before PyTorch 1.6, which the original reads.
        overwrite: whether an existing file may be replaced.
        num_segments: as for `load_checkpoint`.
        trust: whether the file may run any code while it is read. What is written needs no trust.

    Returns:
        Where it was written, and what differs from the file, one message per change. None if the
        file needs no update and no destination is given: nothing is written then.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        FileExistsError: if the destination exists and may not be replaced.
        ModuleNotFoundError: if the package safetensors is needed and not installed.
        ValueError: if `legacy` is wanted of a safetensors file.
        checkpoints.errors.CheckpointError: if `load_checkpoint` does not load the file.
    """
    target = destination or (path if overwrite else _beside(path))
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists: give another --output, or pass --overwrite")
    contents, changes = read_documented(path, num_segments=num_segments, trust=trust)
    if destination is None:
        found = find_format(path)
        if not changes and not (legacy and found == "zip"):
            return None, []
        legacy = legacy or found == "legacy"
    if target.suffix.lower() == ".safetensors":
        changes += _drop_what_is_not_json(contents)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    provenance = {"file": path.name, "sha256": digest, "changes": list(changes)}
    # A file that was converted before still comes from where it came from.
    contents = {"provenance": provenance, **contents}
    return write_file(contents, target, legacy=legacy), changes


def _drop_what_is_not_json(contents: dict[str, Any]) -> list[str]:
    """Remove what a safetensors file cannot hold beside weights; return one message per entry."""
    messages = []
    for place, entries in (("", contents), ("args.", vars(contents["args"]))):
        for name in [name for name in entries if place or name not in ("state_dict", "args")]:
            try:
                if not isinstance(name, str):
                    raise ValueError("names are strings in a safetensors file")
                if not place and name in _TRAINING_STATE and entries[name] is not None:
                    raise ValueError("safetensors files hold no optimiser state")
                to_json(name, entries[name])
            except ValueError as error:
                del entries[name]
                messages.append(f"left out the entry {place}{key_to_str(name)}: {error}")
    return messages


def _beside(path: Path) -> Path:
    """Return where to write what becomes of a file, by default."""
    suffix = ".pth.tar" if path.name.endswith(".pth.tar") else path.suffix
    return path.with_name(f"{path.name.removesuffix(suffix)}-updated{suffix}")


def _files(paths: list[Path]) -> Iterator[Path]:
    """Yield the files among the paths, and the checkpoints in their folders."""
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
        else:
            yield path


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoints", metavar="CHECKPOINT", nargs="+", type=Path, help="a file, or a folder")
    add("--output", metavar="FILE", type=Path, help="where to write what becomes of one file")
    add("--legacy", action="store_true", help="write the serialisation of PyTorch before 1.6")
    help_on_overwrite = "replace FILE if it exists, or without --output the checkpoints themselves"
    add("--overwrite", action="store_true", help=help_on_overwrite)
    add_segments_option(parser)
    add_trust_option(parser)
    options = parser.parse_args(arguments)
    paths = list(_files(options.checkpoints))
    if not paths:
        folders = ", ".join(map(str, options.checkpoints))
        parser.error(f"no file in {folders} has a name that ends in {', '.join(_SUFFIXES)}")
    if options.output and len(paths) != 1:
        parser.error(f"argument --output: takes one checkpoint, got {len(paths)}")
    status = 0
    for path in paths:
        try:
            written, changes = convert(
                path,
                options.output,
                legacy=options.legacy,
                overwrite=options.overwrite,
                num_segments=options.num_segments,
                trust=options.trust,
            )
        except (ValueError, OSError, ImportError) as error:  # the last: a rare backbone's package
            print(f"{parser.prog}: {error}", file=sys.stderr)
            status = 1
            continue
        for change in changes:
            print(change)
        print(f"wrote {written}" if written else f"{path} needs no update: nothing written")
    return status


if __name__ == "__main__":
    sys.exit(main())
