"""Batches of clips in a random order, the same whatever the number of processes and workers.

What is random of a clip, its frames, crop and flip, depends on seed, epoch and clip alone: a run
that goes on in the middle of an epoch sees what it would have seen.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.dataset import ClipDataset
from training.recipes import Recipe

__all__ = ["Batch", "ClipBatches", "Part", "derive_seed", "plan_epoch", "steps_per_epoch"]

_MAX_CANDIDATES = 100
"""Clips that are tried for one. If none can be read, none is there: a folder has gone offline."""


@dataclass(frozen=True)
class Part:
    """What a process computes between two others: all of a batch, or a part of it.

    Attributes:
        epoch: number of the epoch, from 0.
        indices: of this process's clips, at least one.
        batch_size: clips of the whole batch, of all processes.
        is_last: whether it is the last part of its batch.
        is_spare: whether the clip is another process's, which counts for nothing: the batch has too
            few for all, and processes wait for one another.
    """

    epoch: int
    indices: tuple[int, ...]
    batch_size: int
    is_last: bool = True
    is_spare: bool = False


@dataclass(frozen=True)
class Batch:
    """Clips as a model takes them.

    Attributes:
        part: what was asked for.
        inputs: float32 (N, T * L' * C, H, W).
        labels: task ("verb", "noun"; "label") -> int64 (N,).
        ids: of the segments.
        unreadable: id of each segment that could not be read -> why. Others were read in their
            places, or the batch is smaller.
    """

    part: Part
    inputs: Tensor
    labels: dict[str, Tensor]
    ids: tuple[str, ...]
    unreadable: dict[str, str]

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; DataLoader calls it."""
        labels = {task: tensor.pin_memory() for task, tensor in self.labels.items()}
        return replace(self, inputs=self.inputs.pin_memory(), labels=labels)


def steps_per_epoch(count: int, recipe: Recipe) -> int:
    """Return the number of batches that so many clips make.

    Raises:
        ValueError: if there is none.
    """
    if not recipe.drop_last:
        return -(-count // recipe.batch_size)
    if count < recipe.batch_size:
        raise ValueError(
            f"batch_size must be at most {count}, the number of training clips, or drop_last be "
            f"False, got {recipe.batch_size}: no batch would be whole"
        )
    return count // recipe.batch_size


def plan_epoch(
    count: int,
    recipe: Recipe,
    epoch: int,
    *,
    rank: int = 0,
    processes: int = 1,
    first_step: int = 0,
) -> list[Part]:
    """Return what a process computes in an epoch.

    A batch holds the same clips whatever the number of processes, which take every so manyth.

    Args:
        count: number of training clips.
        recipe: for the size of batches, their parts, and the seed.
        epoch: number of the epoch, from 0.
        rank: number of the process.
        processes: how many there are.
        first_step: number of batches that were computed before.
    """
    generator = np.random.default_rng(derive_seed(recipe.seed, epoch))
    order = generator.permutation(count).tolist()
    parts = []
    for step in range(first_step, steps_per_epoch(count, recipe)):
        batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        shares = min(recipe.accumulate, len(batch))
        for number in range(shares):
            share = batch[number::shares]
            own = share[rank::processes]
            parts.append(
                Part(
                    epoch, tuple(own or share[:1]), len(batch),
                    is_last=number == shares - 1, is_spare=not own,
                )
            )  # fmt: skip
    return parts


class ClipBatches(Dataset[Batch]):
    """Batches of a dataset's clips, by the `Part` that asks for them.

    Args:
        clips: frames and labels.
        transform: makes frames into a model's input, with draws from torch's generator.
        seed: of everything random.
        replace: whether the next segment that can be read takes the place of one that cannot;
            otherwise the batch lacks it.
    """

    def __init__(
        self,
        clips: ClipDataset,
        transform: Callable[[Tensor], Tensor],
        *,
        seed: int = 0,
        replace: bool = False,
    ) -> None:
        self._clips = clips
        self._transform = transform
        self._seed = seed
        self._replace = replace

    def __getitem__(self, part: Part) -> Batch:
        items: list[dict[str, Any]] = []
        unreadable: dict[str, str] = {}
        for first in part.indices:
            others = min(len(self._clips), _MAX_CANDIDATES) if self._replace else 1
            for index in range(first, first + others):
                index %= len(self._clips)
                try:
                    items.append(self._read(part.epoch, index))
                    break
                except ImportError:  # which no clip could be read without
                    raise
                except Exception as error:  # a damaged file raises nearly anything
                    reason = " ".join(str(error.__cause__ or error).split())
                    unreadable[self._clips.segments[index].id] = reason or type(error).__name__
        return Batch(
            part,
            torch.stack([item["clip"] for item in items]) if items else torch.empty(0),
            {
                name.removesuffix("_class"): torch.tensor([item[name] for item in items])
                for name in (items[0] if items else ())
                if name.endswith("_class")
            },
            tuple(item["id"] for item in items),
            unreadable,
        )

    def _read(self, epoch: int, index: int) -> dict[str, Any]:
        torch.manual_seed(derive_seed(self._seed, epoch, index))
        item = self._clips[index]
        item["clip"] = self._transform(item["clip"])
        return item


def derive_seed(*numbers: int) -> int:
    """Return a seed that numbers determine, unlike those of neighbouring numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
