#!/usr/bin/env python
"""Make the archive to upload to a challenge on action recognition, and check it first.

    python tools/submit.py SCORES... OUT.zip --challenge epic-kitchens-100
        --annotations EPIC_100_test_timestamps.csv --sls-pt 1 --sls-tl 3 --sls-td 3 [--force]
    python tools/submit.py SCORES... OUT.zip --challenge epic-kitchens-55
        --seen EPIC_test_s1_timestamps.csv --unseen EPIC_test_s2_timestamps.csv [--force]

SCORES are files of logits of the test set, of this library or of C1-Action-Recognition. Files of
the same segments are averaged (with other weights: tools/fuse.py), files of different ones, such as
the two parts of EPIC-KITCHENS-55's test set, are put together. What the server would refuse is
listed, and nothing is written then.

EPIC-KITCHENS-100 wants to know the supervision levels of your model. Nothing is assumed, since a
wrong level is a wrong claim; the official writer assumes 2, 3 and 4.

          --sls-pt                     --sls-tl             --sls-td
          pre-training                 labels               training data
    0     none                         none                 none: zero-shot
    1     public images                of whole videos      up to 5 instances of a class
    2     public images and videos     narration times      up to 25 %, at random
    3     self-supervised, public      start and stop       training set
    4     the same, and EPIC videos    and in space         training and validation set
    5     private data                 further knowledge    more than these

For weights of this library trained on the training set, that is 3 and 3 for labels and data; for
pre-training it is 1 where they began with ImageNet, and 2 where with Kinetics, as C1's TSM.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checkpoints.errors import list_names
from data.segments import Segment
from epic.annotations import read_annotations
from epic.faults import repeated
from epic.scores import Scores, fuse_scores, read_scores
from epic.submissions import CHALLENGES, write_submission

__all__ = ["main"]

_CSV_OPTIONS = {"test.json": "annotations", "seen.json": "seen", "unseen.json": "unseen"}
"""File in the archive -> option with the CSV of its segments."""
_LEVELS = {"sls_pt": "pre-training", "sls_tl": "training labels", "sls_td": "training data"}
_S2 = {"P09", "P11", "P18", "P32"}
"""The participants of EPIC-KITCHENS-55's test set S2, none of whom is in S1."""


def _find_doubts(file: str, segments: list[Segment]) -> Iterator[str]:
    """Yield what a table has that the test set of a file in the archive has not."""
    if any(segment.verb_class is not None for segment in segments):
        yield "labels, which no test set has"
    if file == "seen.json" and (others := _S2 & {segment.participant for segment in segments}):
        yield f"segments of {list_names(others)}, which belong to --unseen"


def _combine(files: list[Scores]) -> Scores:
    """Return the mean of scores of the same segments, and put different segments together."""
    groups: dict[frozenset[str], list[Scores]] = {}
    for scores in files:
        groups.setdefault(frozenset(scores["ids"]), []).append(scores)
    parts = [fuse_scores(group) for group in groups.values()]
    if several := repeated(name for ids in groups for name in ids):
        raise ValueError(
            "SCORES must hold the same segments, to be averaged, or different ones, to be put "
            f"together, but {len(several):,} are in files that differ in others: "
            f"{list_names(several)}"
        )
    combined: Scores = {"ids": [name for part in parts for name in part["ids"]]}
    for task in ("verb", "noun"):
        arrays = [part[task] for part in parts if task in part]
        if len(arrays) < len(parts) or len({array.shape[1] for array in arrays}) > 1:
            raise ValueError(f"SCORES must all have {task} scores, of the same classes")
        combined[task] = np.concatenate(arrays)
    return combined


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("scores", metavar="SCORES", nargs="+", type=Path, help="score files")
    add("output", metavar="OUT.zip", type=Path, help="archive to write")
    add("--challenge", required=True, choices=sorted(CHALLENGES))
    add("--annotations", metavar="CSV", type=Path, help="test set of EPIC-KITCHENS-100")
    add("--seen", metavar="CSV", type=Path, help="test set S1 of EPIC-KITCHENS-55")
    add("--unseen", metavar="CSV", type=Path, help="test set S2 of EPIC-KITCHENS-55")
    for name, what in _LEVELS.items():
        option = f"--{name.replace('_', '-')}"
        add(option, metavar="N", type=int, choices=range(6), help=f"level of {what}: see above")
    add("--force", action="store_true", help="replace OUT.zip if it exists")
    options = parser.parse_args(arguments)
    challenge = CHALLENGES[options.challenge]
    needed = [_CSV_OPTIONS[file] for file in challenge.files] + list(challenge.levels)
    other = {*_CSV_OPTIONS.values(), *_LEVELS}.difference(needed)
    for verb, names in (
        ("needs", [name for name in needed if getattr(options, name) is None]),
        ("takes no", [n for n in other if getattr(options, n) is not None]),
    ):
        if names:
            listed = ", ".join(f"--{name.replace('_', '-')}" for name in names)
            parser.error(f"{options.challenge} {verb} {listed}")
    if options.output.suffix.lower() != ".zip":  # the last of SCORES, where OUT.zip was forgotten
        parser.error(f"argument OUT.zip: must end in .zip, got {options.output}")
    try:
        if options.output.exists() and not options.force:
            raise FileExistsError(f"{options.output} exists: give another name, or pass --force")
        tables = {
            file: read_annotations(getattr(options, _CSV_OPTIONS[file])) for file in challenge.files
        }
        ids = {file: [segment.id for segment in segments] for file, segments in tables.items()}
        scores = _combine([read_scores(path) for path in options.scores])
        levels = {name: getattr(options, name) for name in challenge.levels}
        write_submission(options.output, scores, ids, challenge=options.challenge, levels=levels)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.output}: {len(scores['ids']):,} segments")
    for file, segments in tables.items():
        option = _CSV_OPTIONS[file]
        for doubt in _find_doubts(file, segments):
            table = f"--{option} {getattr(options, option)}"
            print(f"{parser.prog}: warning: {table} has {doubt}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
