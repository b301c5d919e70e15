"""The order of clips, and what is random of each."""

import random
from itertools import chain
from pathlib import Path

import pytest
import torch
from helpers.training_runs import clips, quick_recipe, small_model
from torch import Tensor

from data.dataset import ClipDataset
from engine.loading import load_items
from training.batches import Batch, ClipBatches, Part, derive_seed, plan_epoch, steps_per_epoch


def steps_of(parts: list[Part]) -> list[list[int]]:
    """Return the clips of each step."""
    steps: list[list[int]] = [[]]
    for part in parts:
        steps[-1] += [] if part.is_spare else part.indices
        if part.is_last:
            steps.append([])
    return steps[:-1]


def test_an_epoch_has_each_clip_once_in_an_order_of_its_own() -> None:
    recipe = quick_recipe()
    epochs = [plan_epoch(10, recipe, epoch) for epoch in range(2)]
    for epoch in epochs:
        assert [len(step) for step in steps_of(epoch)] == [4, 4, 2]
        assert sorted(chain.from_iterable(steps_of(epoch))) == list(range(10))
    assert steps_of(epochs[0]) != steps_of(epochs[1])
    assert plan_epoch(10, recipe, 0) == epochs[0]
    assert plan_epoch(10, quick_recipe(seed=1), 0) != epochs[0]


def test_a_run_goes_on_in_the_middle_of_an_epoch() -> None:
    recipe = quick_recipe(accumulate=2)
    assert plan_epoch(10, recipe, 3, first_step=1) == plan_epoch(10, recipe, 3)[2:]
    assert plan_epoch(10, recipe, 3, first_step=3) == []


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("count", [9, 10, 13])
def test_processes_share_the_same_batches(processes: int, accumulate: int, count: int) -> None:
    recipe = quick_recipe(batch_size=12, accumulate=accumulate)
    alone = steps_of(plan_epoch(count, quick_recipe(batch_size=12), 0))
    plans = [
        plan_epoch(count, recipe, 0, rank=rank, processes=processes) for rank in range(processes)
    ]
    assert len({len(plan) for plan in plans}) == 1  # or one would wait for the others forever
    for parts in zip(*plans, strict=True):
        assert len({(part.is_last, part.batch_size) for part in parts}) == 1
        assert all(part.indices for part in parts)
    shared = [
        sorted(chain.from_iterable(steps)) for steps in zip(*map(steps_of, plans), strict=True)
    ]
    assert shared == [sorted(step) for step in alone]
    weights = [
        0 if part.is_spare else len(part.indices) / part.batch_size
        for plan in plans
        for part in plan
    ]
    assert sum(weights) == pytest.approx(len(alone))


def test_the_last_batch_is_left_out_where_it_is_smaller() -> None:
    recipe = quick_recipe(drop_last=True)
    assert steps_per_epoch(10, recipe) == 2
    assert [len(step) for step in steps_of(plan_epoch(10, recipe, 0))] == [4, 4]
    with pytest.raises(ValueError, match=r"batch_size must be at most 3, .* drop_last .*got 4"):
        steps_per_epoch(3, recipe)


def read(batches: ClipBatches, *parts: Part, workers: int = 0) -> list[Batch]:
    return list(load_items(batches, parts, workers=workers))


def test_what_is_random_of_a_clip_depends_on_seed_epoch_and_clip_alone(actions: Path) -> None:
    transform = small_model().training_transform()
    batches = ClipBatches(clips(actions), transform, seed=5)
    (first,) = read(batches, Part(0, (3, 7), 2))
    torch.manual_seed(1)
    random.seed(1)
    again = read(batches, Part(0, (1,), 1), Part(0, (7, 3), 2), workers=2)[1]
    assert first.inputs.equal(again.inputs.flip(0))
    assert first.ids == again.ids[::-1]
    assert first.labels["label"].equal(again.labels["label"].flip(0))
    for other in (
        ClipBatches(clips(actions), transform, seed=6)[Part(0, (3, 7), 2)],
        batches[Part(1, (3, 7), 2)],
    ):
        assert not other.inputs.equal(first.inputs)
    assert not first.inputs[0].equal(batches[Part(0, (3, 3), 2)].inputs[1].roll(1))


def test_tasks_keep_their_names(actions: Path) -> None:
    batch = ClipBatches(clips(actions, two_tasks=True), torch.Tensor.float)[Part(0, (2, 3), 2)]
    assert {task: label.tolist() for task, label in batch.labels.items()} == {
        "verb": [2, 3],
        "noun": [0, 1],
    }


class DamagedClips(ClipDataset):
    """Clips of which 3 and 4 cannot be decoded."""

    def __getitem__(self, index: int) -> dict[str, object]:
        if index in (3, 4):
            raise ValueError(f"segment {self.segments[index].id}: damaged") from OSError("cut off")
        return super().__getitem__(index)


def test_what_cannot_be_read_is_replaced_by_the_next_clip(actions: Path) -> None:
    damaged = clips(actions)
    damaged.__class__ = DamagedClips
    ids = [segment.id for segment in damaged.segments]

    def size(frames: Tensor) -> Tensor:
        return frames.float()

    replacing = ClipBatches(damaged, size, replace=True)[Part(0, (3, 8), 2)]
    assert replacing.ids == (ids[5], ids[8])
    assert replacing.unreadable == {ids[3]: "cut off", ids[4]: "cut off"}
    plain = ClipBatches(damaged, size)[Part(0, (3, 8), 2)]
    assert (plain.ids, plain.unreadable) == ((ids[8],), {ids[3]: "cut off"})
    nothing = ClipBatches(damaged, size)[Part(0, (3,), 1)]
    assert (nothing.ids, nothing.labels) == ((), {})


def test_seeds_of_neighbours_differ() -> None:
    seeds = {derive_seed(0, epoch, clip) for epoch in range(20) for clip in range(20)}
    assert len(seeds) == 400
