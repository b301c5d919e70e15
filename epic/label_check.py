"""Whether the labels of segments are those of a model's classes."""

from collections.abc import Sequence

from data.options import class_counts
from data.segments import Segment
from data.timestamps import nominal_rate
from epic.classes import DATASETS

__all__ = ["check_labels"]


def check_labels(segments: Sequence[Segment], num_class: int | tuple[int, int]) -> None:
    """Check that labels can be those of a model: neither too large nor of the other dataset.

    The classes of EPIC-KITCHENS-100 would fit into the 125 verbs and 352 nouns of
    EPIC-KITCHENS-55, but mean something else; the ids of segments tell the datasets apart.

    Args:
        segments: of one annotation file. Those without labels pass.
        num_class: the model's: of one task (`label_class`), or (verbs, nouns).

    Raises:
        ValueError: annotations of the wrong dataset; says what shows it.
    """
    counts = class_counts(num_class)
    if isinstance(counts, int):
        tasks = {"label_class": counts}
    else:
        tasks = dict(zip(("verb_class", "noun_class"), counts, strict=True))
    faults: list[str] = []
    for field, count in tasks.items():
        classes = [(getattr(segment, field), segment.id) for segment in segments]
        outside = [each for each in classes if each[0] is not None and each[0] >= count]
        if outside:
            faults.append(
                f"{field} must be 0 to {count - 1} for this model, but is more in "
                f"{len(outside):,} of {len(segments):,} segments, such as "
                f"{outside[0][0]} in {outside[0][1]}"
            )
    names = [name for name, dataset in DATASETS.items() if dataset.num_class == counts]
    labelled = [segment for segment in segments if segment.verb_class is not None]
    datasets = {_dataset_of(segment): segment.id for segment in labelled}
    others = [(name, id) for name, id in datasets.items() if name not in (None, *names)]
    if names and others:
        name, id = others[0]
        faults.append(f"{id} is a segment of {name}, the model is for {names[0]}")
    if faults:
        raise ValueError(f"annotations of the wrong dataset: {'; '.join(faults)}")


def _dataset_of(segment: Segment) -> str | None:
    """Return the dataset whose kind of id a segment has: P01_11_0 (100) or 1924 (55)."""
    video, _, number = segment.id.rpartition("_")
    if nominal_rate(segment.video) is None or not number.isdecimal():
        return None
    return {"": "epic-kitchens-55", segment.video: "epic-kitchens-100"}.get(video)
