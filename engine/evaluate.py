"""Logits of all segments of a dataset by one model, made of batches that outlive the run.

Batch k holds segments k*B ... (k+1)*B - 1 in a file of its own, and process r of W takes batches
r, r + W, ... A segment's logits do not depend on its batch: each goes through the model alone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.dataset import ClipDataset
from data.options import positive_integer
from engine.loading import load_items
from engine.output_folder import OutputFolder
from engine.processes import Processes
from engine.progress import show_progress
from presets import evaluation_transform
from tsn import TSN, to_tasks

__all__ = ["class_counts_by_task", "evaluate", "merge_batches"]

Logits: TypeAlias = dict[str, Tensor]
"""Task ("verb", "noun"; "label" of a model with one task) -> float32 (classes,)."""


def evaluate(
    model: TSN,
    dataset: ClipDataset,
    folder: OutputFolder,
    processes: Processes,
    *,
    crop_count: int = 1,
    batch_size: int = 16,
    workers: int = 2,
    skip: Collection[str] = (),
) -> dict[str, str]:
    """Write the logits of all segments that a folder does not have yet.

    Args:
        model: on the device of `processes`, best an optimised copy; it is put in evaluation mode.
        dataset: clips for this model, uint8 (k * T * L', C, H, W). The logits of a segment's k
            clips are averaged, as of the two that the mode "twice" samples.
        folder: where `batches/` lie. Its request must hold everything that the logits depend on.
        processes: the processes of this run.
        crop_count: 1, 3 or 10; the logits of the crops are averaged.
        batch_size: B, segments in a file. At most so many for each process are computed again
            after the run was killed.
        workers: processes that decode and resize clips, for each process of the run.
        skip: ids of segments to leave out.

    Returns:
        Id of each segment that could not be read -> why; the same in all processes. They are tried
        again when the run is repeated.

    Raises:
        ValueError: if the model gives probabilities, or an option is none of these.
        OSError: if a file cannot be written.
        RuntimeError: if a worker ended before its time.
    """
    if not model.before_softmax:
        raise ValueError("model must give logits: it was built with before_softmax=False")
    batch_size = positive_integer("batch_size", batch_size)
    model.eval()
    transform = evaluation_transform(model, crop_count)
    ids = [segment.id for segment in dataset.segments]
    batches = processes.share(range(-(-len(ids) // batch_size)))
    wanted, pending = 0, list[int]()
    for batch in batches:
        done = _read_batch(folder, batch)
        all_indices = range(batch * batch_size, min((batch + 1) * batch_size, len(ids)))
        indices = [index for index in all_indices if ids[index] not in skip]
        wanted += len(indices)
        pending += [index for index in indices if ids[index] not in done]

    failures: list[tuple[str, str]] = []
    clips = load_items(
        _Clips(dataset), pending, workers=workers, pin_memory=processes.device.type == "cuda"
    )
    several = f" of process 1 of {processes.count}" if processes.count > 1 else ""
    shown = show_progress(
        clips, wanted, unit=f"segments{several}", done=wanted - len(pending),
        hidden=processes.rank > 0,
    )  # fmt: skip
    for batch, items in groupby(shown, lambda item: item[0] // batch_size):
        logits: dict[str, Logits] = {}
        for index, clip in items:
            if isinstance(clip, str):
                failures.append((ids[index], clip))
            else:
                logits[ids[index]] = _clip_logits(model, transform, crop_count, clip)
        _add_to_batch(folder, batch, ids[batch * batch_size : (batch + 1) * batch_size], logits)
    return dict(processes.gather(failures))


def merge_batches(
    folder: OutputFolder, ids: Sequence[str], num_class: int | tuple[int, int], batch_size: int = 16
) -> dict[str, Any]:
    """Return the logits that all processes have written.

    Args:
        folder: as `evaluate` left it.
        ids: ids of all segments of the dataset, in its order.
        num_class: the model's.
        batch_size: as given to `evaluate`.

    Returns:
        "ids", those of the segments that there are, in order, each once; "verb" and "noun", or
        "label" of a model with one task: float32 arrays (segments, classes).
    """
    arrays = {
        task: np.empty((len(ids), count), dtype=np.float32)
        for task, count in class_counts_by_task(num_class).items()
    }
    wanted, found = set(ids), list[str]()
    for batch in range(-(-len(ids) // batch_size)):
        for name, logits in _read_batch(folder, batch).items():
            if name not in wanted:  # of a run over more segments
                continue
            for task, array in arrays.items():
                array[len(found)] = logits[task]
            found.append(name)
    return {"ids": found, **{task: array[: len(found)] for task, array in arrays.items()}}


class _Clips(Dataset[tuple[int, Tensor | str]]):
    """Clips with their indices; in the place of a clip that cannot be read, the reason."""

    def __init__(self, dataset: ClipDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        try:
            return index, self._dataset[index]["clip"]
        except ImportError:  # which no clip could be read without
            raise
        except Exception as error:  # a damaged file raises nearly anything from a decoder's depths
            reason = error.__cause__ or error  # without the segment's id, which is the index
            return index, " ".join(str(reason).split()) or type(reason).__name__


@torch.inference_mode()
def _clip_logits(
    model: TSN, transform: Callable[[Tensor], Tensor], crop_count: int, frames: Tensor
) -> Logits:
    """Return the logits (classes,) of each task, averaged over the clips and crops of a segment."""
    weights = next(model.parameters())
    outputs = []
    # 8-bit frames go to the accelerator, which crops and normalises them.
    for clip in frames.to(weights.device, non_blocking=True).split(
        model.num_segments * model.frames_per_snippet
    ):
        # (crops * T*L*C, H, W) -> (crops, T*L*C, H, W)
        crops = transform(clip).to(weights.dtype).unflatten(0, (crop_count, -1))
        # One at a time takes less memory on the CPU, and less time (ops.memory).
        outputs += [model(part) for part in (crops.split(1) if weights.is_cpu else [crops])]
    tasks = map(to_tasks, outputs)
    return {
        # (clips * crops, ..., classes) -> (classes,)
        task: torch.cat(scores).float().flatten(0, -2).mean(0)
        for task, scores in zip(
            class_counts_by_task(model.num_class), zip(*tasks, strict=True), strict=True
        )
    }


def class_counts_by_task(num_class: int | tuple[int, int]) -> dict[str, int]:
    """Return the number of classes of each task."""
    if isinstance(num_class, tuple):
        return dict(zip(("verb", "noun"), num_class, strict=True))
    return {"label": num_class}


def _batch_name(batch: int) -> str:
    return f"batches/{batch:06d}.safetensors"


def _read_batch(folder: OutputFolder, batch: int) -> dict[str, Logits]:
    """Return the logits of each segment that a batch's file holds; empty if there is no file."""
    if not folder.has(_batch_name(batch)):
        return {}
    arrays, metadata = folder.read(_batch_name(batch))
    return {
        name: {task: logits[row] for task, logits in arrays.items()}
        for row, name in enumerate(metadata["ids"])
    }


def _add_to_batch(
    folder: OutputFolder,
    batch: int,
    ids: Sequence[str],
    logits: Mapping[str, Logits],
) -> None:
    """Write the file of a batch anew, with these logits beside those that it holds."""
    if not logits:
        return
    known = {**_read_batch(folder, batch), **logits}
    present = [name for name in ids if name in known]
    arrays = {
        task: torch.stack([known[name][task].cpu() for name in present])
        for task in known[present[0]]
    }
    folder.write(_batch_name(batch), arrays, ids=present)
