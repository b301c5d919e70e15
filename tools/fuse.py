#!/usr/bin/env python
"""Fuse score files: the mean of the logits of several models over the same segments.

    python tools/fuse.py OUT.pt SCORES... [--weights W...] [--force]

SCORES are files of this library or of C1-Action-Recognition, in any of its layouts. OUT.pt is one
that both read, sorted by id. Without --weights the scores are those of C1's fuse.py, bit for bit.
RGB and flow of EPIC-KITCHENS-55, for instance:

    python tools/fuse.py fused.pt rgb.pt flow.pt --weights 1 1.5
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from epic.scores import fuse_scores, read_scores, write_scores

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("output", metavar="OUT.pt", type=Path, help="file to write")
    add("scores", metavar="SCORES", nargs="+", type=Path, help="files to fuse")
    help_on_weights = "a positive number for each of SCORES (default: all equal)"
    add("--weights", metavar="W", nargs="+", type=float, help=help_on_weights)
    add("--force", action="store_true", help="replace OUT.pt if it exists")
    options = parser.parse_args(arguments)
    try:
        if options.output.exists() and not options.force:
            raise FileExistsError(f"{options.output} exists: give another name, or pass --force")
        fused = fuse_scores([read_scores(path) for path in options.scores], options.weights)
        write_scores(options.output, fused)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.output}: {len(fused['ids']):,} segments")
    return 0


if __name__ == "__main__":
    sys.exit(main())
