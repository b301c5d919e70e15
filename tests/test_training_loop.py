"""Runs: files, the best epoch, and going on after an interruption."""

import csv
import logging
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training_runs import ALONE, T, clips, quick_recipe, small_model

from data.dataset import ClipDataset
from data.segments import Segment
from data.synthetic import make_video
from model_loader import load_checkpoint, read_documented
from training.loop import train
from training.recipes import Recipe
from training.state import Progress, read_run
from training.validation import validate

REQUEST = {"labels": "those of the tests", "numbers": (1, 2)}


def run(
    folder: Path,
    actions: Path,
    recipe: Recipe,
    *,
    kind: str = "TSM",
    training: ClipDataset | None = None,
    validation: ClipDataset | None = None,
    validated: bool = True,
    **options: Any,
) -> Progress:
    """Start a run, or go on with it."""
    saved = read_run(folder, REQUEST, resume=True)
    if validated and validation is None:
        validation = clips(actions, "validation")
    return train(
        saved.model if saved else small_model(kind), recipe, training or clips(actions), validation,
        folder, ALONE, request=REQUEST, saved=saved, **{"workers": 0, "minutes": 10.0, **options},
    )  # fmt: skip


def losses(progress: Progress) -> list[float]:
    return [row["training_loss"] for row in progress.rows]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "last.pth.tar").state_dict()


class Interrupting(ClipDataset):
    """Clips that something happens at."""

    reads: int
    at: int

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.reads += 1
        if self.reads == self.at:
            self.happen()
        return super().__getitem__(index)

    def happen(self) -> None:
        signal.raise_signal(signal.SIGINT)


class Failing(Interrupting):
    def happen(self) -> None:
        raise MemoryError


def interrupting(kind: type[Interrupting], actions: Path, at: int) -> Interrupting:
    dataset = clips(actions)
    dataset.__class__ = kind
    assert isinstance(dataset, kind)
    dataset.reads, dataset.at = 0, at
    return dataset


def test_a_run_leaves_the_best_and_the_last_and_a_table(
    actions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "run"
    recipe = quick_recipe(epochs=3)
    progress = run(folder, actions, recipe)
    assert sorted(file.name for file in folder.iterdir()) == [
        "best.pth.tar", "epochs.csv", "last.pth.tar"
    ]  # fmt: skip
    with open(folder / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["training_loss"]) for row in rows] == losses(progress)
    accuracies = [row["label_top1"] for row in progress.rows]
    assert progress.best_epoch == accuracies.index(max(accuracies)) + 1
    best, _ = read_documented(folder / "best.pth.tar")
    assert best["epoch"] == progress.best_epoch
    assert (best["args"].lr, best["args"].milestones) == (0.01, ())
    assert not {"optimizer", "training"} & set(best)
    assert capsys.readouterr().out.count("epoch ") == 3

    model = load_checkpoint(folder / "best.pth.tar")
    result = validate(
        model, clips(actions, "validation"), ALONE,
        compute=lambda inputs: (model(inputs),), batch_size=6, workers=0,
    )  # fmt: skip
    row = progress.rows[progress.best_epoch - 1]
    assert result.loss == pytest.approx(row["validation_loss"])
    assert result.metrics["label_top1"] == row["label_top1"]
    assert result.predictions["label"][1].equal(progress.best_predictions["label"][1])


@pytest.mark.essential
@pytest.mark.parametrize("kind", ["TSM", "MTRN"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    actions: Path, tmp_path: Path, kind: str
) -> None:
    recipe = quick_recipe(dropout=0.5, accumulate=2)
    expected = run(tmp_path / "whole", actions, recipe, kind=kind)
    folder = tmp_path / "interrupted"
    for at in (6, 3, 5, 3):  # clips read till then: in a step amid the epoch, in its last one ...
        dataset = interrupting(Interrupting, actions, at)
        with pytest.raises(KeyboardInterrupt):
            run(folder, actions, recipe, kind=kind, training=dataset)
    progress = run(folder, actions, recipe, kind=kind)
    assert losses(progress) == losses(expected)
    resumed, whole = final_weights(folder), final_weights(tmp_path / "whole")
    assert all(resumed[name].equal(whole[name]) for name in whole)


@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_a_run_that_died_goes_on_from_its_last_checkpoint(
    actions: Path, tmp_path: Path, minutes: float
) -> None:
    recipe = quick_recipe(dropout=0.5)
    expected = run(tmp_path / "whole", actions, recipe)
    folder = tmp_path / "died"
    with pytest.raises(OSError, match="1 segments cannot be read"):
        run(
            folder, actions, recipe, minutes=minutes,
            training=interrupting(Failing, actions, 21),
        )  # fmt: skip
    saved = read_run(folder, REQUEST, resume=True)
    assert saved is not None
    assert (saved.progress.epoch, saved.progress.step) == (1, 2 if minutes == 0 else 0)
    (folder / "last.pth.tar.0123.partial").write_bytes(b"of the run that died")
    assert losses(run(folder, actions, recipe)) == losses(expected)
    assert not list(folder.glob("*.partial"))
    resumed, whole = final_weights(folder), final_weights(tmp_path / "whole")
    assert all(resumed[name].equal(whole[name]) for name in whole)


def test_a_run_that_is_stopped_in_its_validation_repeats_that(
    actions: Path, tmp_path: Path
) -> None:
    recipe = quick_recipe(dropout=0.5)
    expected = run(tmp_path / "whole", actions, recipe)
    folder = tmp_path / "stopped"
    validation = interrupting(Interrupting, actions, 2)
    with pytest.raises(KeyboardInterrupt):
        run(folder, actions, recipe, validation=validation)
    saved = read_run(folder, REQUEST, resume=True)
    assert saved is not None
    assert (saved.progress.epoch, saved.progress.step) == (0, 3)
    progress = run(folder, actions, recipe, workers=1)
    assert losses(progress) == losses(expected)
    assert [row["validation_loss"] for row in progress.rows] == [
        row["validation_loss"] for row in expected.rows
    ]


def test_the_first_checkpoint_comes_with_the_first_step(actions: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be read"):
        run(tmp_path, actions, quick_recipe(), training=interrupting(Failing, actions, 9))
    saved = read_run(tmp_path, REQUEST, resume=True)
    assert saved is not None
    assert (saved.progress.epoch, saved.progress.step) == (0, 1)


def test_a_complete_run_is_complete(actions: Path, tmp_path: Path) -> None:
    recipe = quick_recipe(epochs=1)
    progress = run(tmp_path, actions, recipe)
    before = (tmp_path / "last.pth.tar").stat().st_mtime_ns
    again = run(tmp_path, actions, recipe)
    assert (again.rows, again.best_epoch) == (progress.rows, progress.best_epoch)
    assert again.best_predictions["label"][1].equal(progress.best_predictions["label"][1])
    assert (tmp_path / "last.pth.tar").stat().st_mtime_ns == before


def test_another_run_is_not_overwritten(actions: Path, tmp_path: Path) -> None:
    recipe = quick_recipe(epochs=1)
    run(tmp_path, actions, recipe)
    with pytest.raises(ValueError, match="folder must hold no run but the one that is saved"):
        train(small_model(), recipe, clips(actions), None, tmp_path, ALONE, workers=0)


def test_without_validation_there_is_no_best_epoch(actions: Path, tmp_path: Path) -> None:
    progress = run(tmp_path, actions, quick_recipe(epochs=1), validated=False)
    assert (progress.best_epoch, progress.predictions) == (0, {})
    assert not (tmp_path / "best.pth.tar").exists()
    assert "validation_loss" not in progress.rows[0]


def test_clips_that_cannot_be_read_are_replaced_where_that_is_allowed(
    actions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = clips(actions)
    segment = dataset.segments[2]
    dataset.segments[2] = type(segment)(segment.id, "missing", label_class=2)
    recipe = quick_recipe(epochs=2)
    with pytest.raises(OSError, match=f"--skip-missing(.|\n)*{segment.id}: .*missing"):
        run(tmp_path / "a", actions, recipe, training=dataset)
    with caplog.at_level(logging.WARNING):
        progress = run(tmp_path / "b", actions, recipe, training=dataset, replace_unreadable=True)
    assert len(progress.rows) == 2
    assert caplog.text.count(f"segment {segment.id} cannot be read") == 1


def test_without_any_clip_that_can_be_read_a_run_stops(actions: Path, tmp_path: Path) -> None:
    dataset, names = clips(actions), clips(actions).segments
    dataset.segments[:] = [type(each)(each.id, "gone", label_class=1) for each in names]
    for options in ({"training": dataset}, {"validation": dataset}):
        with pytest.raises(OSError, match=r"12 segments cannot be read \(nothing is left"):
            run(tmp_path, actions, quick_recipe(), replace_unreadable=True, **options)


def test_batches_are_large_enough_for_all(actions: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size must be at most 12, .* drop_last .*got 16"):
        run(tmp_path, actions, quick_recipe(batch_size=16, drop_last=True))


def test_a_full_disk_leaves_the_checkpoint_of_before(
    actions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quick_recipe(epochs=2)
    run(tmp_path, actions, quick_recipe(epochs=1))
    before = (tmp_path / "last.pth.tar").read_bytes()

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("checkpoints.files.torch.save", fail)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, actions, recipe)
    assert (tmp_path / "last.pth.tar").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
    monkeypatch.undo()
    assert len(run(tmp_path, actions, recipe).rows) == 2


def train_on_videos(folder: Path) -> None:
    """Fork workers in every epoch, from a process of threads that has decoded the same videos."""
    torch.set_num_threads(2)
    segments = [
        Segment(str(i), f"{i}.mp4", seconds=(0.1, 0.9), label_class=i % 2) for i in range(4)
    ]
    for segment in segments:
        make_video(folder / segment.video, 30)
    training, validation = (
        ClipDataset(segments, folder, modality="RGB", num_segments=T, short_side=32, mode=mode)
        for mode in ("train", "test")
    )
    assert not training.problems()
    left: list[Any] = []
    for epochs in (1, 20):
        run = folder / str(epochs)
        recipe = quick_recipe(epochs=epochs, batch_size=2)
        train(
            small_model(num_class=2), recipe, training, validation, run, ALONE, request={},
            workers=2,
        )  # fmt: skip
        maps = Path("/proc/self/maps").read_text().splitlines()
        shared_tensors = sum("torch_" in line and "/dev/shm" in line for line in maps)
        left.append(
            (multiprocessing.active_children(), shared_tensors, os.listdir("/proc/self/fd"))
        )
    assert left[0] == left[1]
    assert left[0][:2] == ([], 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_workers_of_many_epochs_neither_hang_nor_leave_anything(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=train_on_videos, args=(tmp_path,))
    process.start()
    process.join(300)
    process.kill()
    assert process.exitcode == 0
