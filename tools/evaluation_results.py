"""What an evaluation makes of its scores: files, metrics, pictures."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.files import atomic_write
from data.options import ClassNames, first_few, names_by_task
from data.segments import Segment
from engine.evaluate import class_counts_by_task
from engine.measure import is_labelled, measure, official_lists, select_scores
from engine.report import Evaluation, format_json, format_report
from epic.annotations import read_annotations
from epic.classes import read_class_names
from epic.common_test_set import label_common_segments
from epic.datasets import DATASETS, find_dataset, find_official_file
from epic.scores import Scores, fuse_scores, read_scores, write_scores
from evaluation_pictures import draw_class_accuracies, draw_confusions
from weights.download import DownloadError
from weights.published import PUBLISHED, Accuracies

__all__ = ["Outcome", "Split", "read_outcomes", "read_splits", "write_results"]


@dataclass(frozen=True)
class Split:
    """Segments whose metrics are reported together.

    Attributes:
        title: what they are.
        segments: the segments.
        published: the test set whose published accuracies compare, as `PublishedWeights.scores`
            names it.
        note: what a reader must know about them.
    """

    title: str
    segments: list[Segment]
    published: str = ""
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """The scores of one model, or of several fused.

    Attributes:
        name: the model's.
        checkpoint: the file that it was loaded from; None of a fusion.
        num_class: its numbers of classes.
        scores: of the segments that could be read.
        failures: id of each other segment -> why it could not be read.
        title: what the report calls it; its name by default.
        class_names: the model's, if it has any.
    """

    name: str
    checkpoint: Path | None
    num_class: int | tuple[int, int]
    scores: Scores
    failures: Mapping[str, str]
    title: str = ""
    class_names: ClassNames | None = None


def read_splits(options: argparse.Namespace) -> list[Split]:
    """Read the segments that the command line asks for."""
    segments = read_annotations(options.annotations)
    if not options.epic_55_segments:
        published = "validation" if options.annotations.stem == "EPIC_100_validation" else ""
        return [Split(options.annotations.name, segments[: options.limit], published)]
    splits = []
    for path in options.epic_55_segments:
        common = label_common_segments(
            read_annotations(path), segments, *_class_files("epic-kitchens-55", options)
        )
        note = (
            f"An estimate: of {common.num_test:,} segments, EPIC-KITCHENS-100 labels "
            f"{common.num_common:,}, and {len(common.segments):,} of these labels are known in "
            f"EPIC-KITCHENS-55."
        )
        published = "unseen" if "_s2_" in path.name.lower() else "seen"
        splits.append(Split(path.name, common.segments[: options.limit], published, note))
    return splits


def read_outcomes(
    paths: Sequence[Path], segments: Sequence[Segment], *, partly: bool
) -> list[Outcome]:
    """Read files of scores; one that is called `scores` has the name of its folder.

    Args:
        paths: the files.
        segments: what is evaluated.
        partly: whether the files may have other segments too.

    Raises:
        ValueError: if a file has none of the segments, or segments that it should not have; says
            which.
    """
    outcomes: dict[str, Outcome] = {}
    known = {segment.id for segment in segments}
    for path in paths:
        scores = read_scores(path)
        name = path.resolve().parent.name if path.stem == "scores" else path.stem
        unknown = [each for each in scores["ids"] if each not in known]
        if len(unknown) == len(scores["ids"]) or (unknown and not partly):
            raise ValueError(
                f"{path}: {len(unknown):,} of its segments are not in --annotations: "
                f"{first_few(unknown)}"
            )
        for other in outcomes.values():
            if differing := {*scores["ids"]}.symmetric_difference(other.scores["ids"]):
                raise ValueError(
                    f"{path}: other segments than in {other.name}, {len(differing):,} are in one "
                    f"alone: {first_few(sorted(differing))}"
                )
        if name in outcomes:
            raise ValueError(f"--scores must have names that differ, got {name} twice")
        counts = [scores[task].shape[1] for task in ("verb", "noun", "label") if task in scores]
        num_class = counts[0] if len(counts) == 1 else (counts[0], counts[1])
        outcomes[name] = Outcome(name, None, num_class, scores, {})
    return list(outcomes.values())


def write_results(
    options: argparse.Namespace,
    splits: Sequence[Split],
    outcomes: Sequence[Outcome],
    training: Sequence[Segment],
) -> str:
    """Write scores and, where there are labels, metrics and pictures; return the report."""
    outcomes = [*outcomes, *_fuse(outcomes, options.weights)]
    for outcome in outcomes:
        (options.out / outcome.name).mkdir(exist_ok=True, parents=True)
        write_scores(options.out / outcome.name / "scores.pt", outcome.scores)
    segments = [segment for split in splits for segment in split.segments]
    if not is_labelled(segments, outcomes[0].scores):
        return f"Scores without metrics, since no segment is labelled: {options.out}/*/scores.pt"
    num_class = outcomes[0].num_class
    lists, missing = official_lists(find_dataset(num_class), training, _folders(options))
    notes = [f"Some figures need files beside the annotations: {', '.join(missing)}."] * any(
        missing
    )
    evaluations = []
    for split in splits:
        ids = {segment.id for segment in split.segments}
        for outcome in outcomes:
            scores = select_scores(outcome.scores, ids)
            if not scores["ids"]:
                continue
            evaluations.append(
                Evaluation(
                    name=outcome.title or outcome.name,
                    dataset=split.title,
                    metrics=measure(scores, split.segments, num_class, lists),
                    num_segments=len(scores["ids"]),
                    num_skipped=len(ids - {*scores["ids"], *outcome.failures}),
                    num_failed=len(ids & outcome.failures.keys()),
                    published=_published_accuracies(outcome, split),
                    note=" ".join(filter(None, [split.note, *notes])),
                )
            )
    report = format_report(evaluations)
    for name, text in (("report.txt", report), ("metrics.json", format_json(evaluations))):
        with atomic_write(options.out / name) as file:
            file.write(text.encode())
    names = _class_names(num_class, options, outcomes[0].class_names)
    for outcome in outcomes:
        _draw(outcome, segments, training, names, lists, options.out / outcome.name)
    return f"{report}\n\nreport.txt, metrics.json, scores and pictures are in {options.out}"


def _fuse(outcomes: Sequence[Outcome], weights: Sequence[float] | None) -> list[Outcome]:
    """Return the mean of several models' logits, of the segments that all of them have."""
    common = set.intersection(*(set(outcome.scores["ids"]) for outcome in outcomes))
    if len(outcomes) == 1 or not common:
        return []
    fused = fuse_scores([select_scores(outcome.scores, common) for outcome in outcomes], weights)
    failures = {name: why for outcome in outcomes for name, why in outcome.failures.items()}
    shares = f" {' : '.join(f'{weight:g}' for weight in weights)}" if weights else ""
    return [Outcome("fusion", None, outcomes[0].num_class, fused, failures, f"fusion{shares}")]


def _published_accuracies(outcome: Outcome, split: Split) -> Accuracies | None:
    for entry in PUBLISHED:
        if outcome.checkpoint and entry.file_name == outcome.checkpoint.name:
            return entry.scores.get(split.published)
    return None


def _folders(options: argparse.Namespace) -> list[Path]:
    """Return where official files are looked for."""
    return [path.parent for path in (options.annotations, *(options.epic_55_segments or []))]


def _class_files(dataset: str, options: argparse.Namespace) -> tuple[Path, Path]:
    """Return the files with the names of verbs and nouns."""
    urls = DATASETS[dataset].verb_url, DATASETS[dataset].noun_url
    verbs, nouns = (
        given or find_official_file(url, _folders(options))
        for given, url in zip((options.verb_classes, options.noun_classes), urls, strict=True)
    )
    return verbs, nouns


def _class_names(
    num_class: int | tuple[int, int], options: argparse.Namespace, known: ClassNames | None
) -> Mapping[str, Sequence[str]]:
    """Return the names of each task's classes: official, or the model's; otherwise numbers."""
    if dataset := find_dataset(num_class):
        try:
            names = read_class_names(*_class_files(dataset, options))
            return {"verb": names.verbs, "noun": names.nouns}
        except DownloadError:
            pass
    if known:
        return names_by_task(known)
    return {
        task: [f"{task} {index}" for index in range(count)]
        for task, count in class_counts_by_task(num_class).items()
    }


def _draw(
    outcome: Outcome,
    segments: Sequence[Segment],
    training: Sequence[Segment],
    names: Mapping[str, Sequence[str]],
    lists: Mapping[str, Any],
    folder: Path,
) -> None:
    """Draw confusions and accuracies of the classes."""
    by_id = {segment.id: segment for segment in segments}
    scores = select_scores(outcome.scores, set(by_id))
    for task in names:
        field, title = f"{task}_class", f"{outcome.name}, {task}s"
        labels = np.array([getattr(by_id[name], field) for name in scores["ids"]])
        predictions = scores[task].argmax(1)
        draw_confusions(
            labels, predictions, names[task], folder / f"confusion_{task}.png", title=title
        )
        counts = [getattr(segment, field) for segment in training]
        draw_class_accuracies(
            labels,
            predictions,
            names[task],
            folder / f"accuracy_{task}.png",
            title=title,
            training_counts=np.bincount(counts, minlength=len(names[task])) if counts else None,
            tail=lists.get(f"tail_{task}s", ()),
        )
