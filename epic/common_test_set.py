"""Labels of EPIC-KITCHENS-55's test segments: those that EPIC-KITCHENS-100 validates on.

The labels of the test sets S1 (seen kitchens) and S2 (unseen) were never published as such, but
8,032 of S1's 8,047 segments and 1,630 of S2's 2,929 are in EPIC-KITCHENS-100's validation set,
under other ids and with other classes. With their verbs and nouns looked up in the lists of
EPIC-KITCHENS-55's class files, 7,542 segments of S1 have both labels.

This is a close estimate of the published protocol, not the protocol itself: on training videos that
both datasets annotate, labels found in this way equal EPIC-KITCHENS-55's in 91.7 % (verb), 96.1 %
(noun) and 88.3 % (both) of 14,783 segments.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from data.segments import Segment
from epic.classes import read_class_instances

__all__ = ["CommonTestSet", "label_common_segments"]


class CommonTestSet(NamedTuple):
    """Segments of a test set of EPIC-KITCHENS-55 with labels.

    Attributes:
        segments: the test segments whose verb and noun both have a class of EPIC-KITCHENS-55, with
            their own ids, frames and seconds. Verb, noun and narration are EPIC-KITCHENS-100's.
        num_common: number of test segments that EPIC-KITCHENS-100 has too, labelled or not.
        num_test: number of all test segments.
    """

    segments: list[Segment]
    num_common: int
    num_test: int


def label_common_segments(
    test: Iterable[Segment],
    validation: Iterable[Segment],
    verb_csv: str | os.PathLike[str],
    noun_csv: str | os.PathLike[str],
) -> CommonTestSet:
    """Return the segments of a test set of EPIC-KITCHENS-55 whose labels can be told.

    Args:
        test: segments of EPIC_test_s1_timestamps.csv or EPIC_test_s2_timestamps.csv.
        validation: segments of EPIC_100_validation.csv.
        verb_csv: EPIC_verb_classes.csv.
        noun_csv: EPIC_noun_classes.csv.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: the segments have nothing in common, or a file is not as it should be.
    """
    verbs, nouns = read_class_instances(verb_csv, noun_csv)
    # No two rows of the official file have the same frames.
    twins = {(twin.video, twin.frames): twin for twin in validation if twin.verb and twin.noun}
    test = list(test)
    pairs = [
        (segment, twin) for segment in test if (twin := twins.get((segment.video, segment.frames)))
    ]
    if not pairs:
        raise ValueError(
            "test (EPIC_test_s1_timestamps.csv or EPIC_test_s2_timestamps.csv) and validation "
            "(EPIC_100_validation.csv) must have segments of the same video and frames; got "
            f"{len(test):,} and {len(twins):,} labelled ones without any in common"
        )
    labelled = [
        replace(
            segment,
            narration=twin.narration,
            verb=twin.verb,
            verb_class=verbs[twin.verb],
            noun=twin.noun,
            noun_class=nouns[twin.noun],
        )
        for segment, twin in pairs
        if twin.verb in verbs and twin.noun in nouns
    ]
    return CommonTestSet(labelled, len(pairs), len(test))
