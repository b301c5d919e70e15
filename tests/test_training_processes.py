"""Training by two processes, against one that has the same batches."""

import csv
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training_runs import clips, quick_recipe, small_model
from torch import distributed, multiprocessing

from data.synthetic_actions import make_actions
from engine.processes import Processes
from model_loader import load_checkpoint
from training.loop import train
from training.recipes import Recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_available(), reason="PyTorch without torch.distributed"),
]

FROZEN = {"freeze_backbone": True, "accumulate": 2, "batch_size": 5, "label_smoothing": 0.1}
"""The last batch has 3 clips for 2 x 2 parts of processes. Batch norms see the same in any case."""


def train_in(
    processes: Processes, folder: Path, actions: Path, kind: str, recipe: Recipe
) -> list[dict[str, Any]]:
    dataset = clips(actions)
    dataset.segments.append(dataset.segments[0])  # 13
    model = small_model(kind)
    progress = train(
        model, recipe, dataset, clips(actions, "validation"), folder / f"{kind}-{processes.count}",
        processes, request={}, workers=1,
    )  # fmt: skip
    if processes.count > 1:
        for tensor in model.state_dict().values():
            others = [torch.empty_like(tensor) for _ in range(processes.count)]
            distributed.all_gather(others, tensor)
            assert all(other.equal(tensor) for other in others)
    return progress.rows


def train_all(rank: int, folder: Path, actions: Path, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), 2)
    store.set_timeout(timedelta(seconds=60))
    # A run ends its process group, but its models are compared afterwards.
    end_group = distributed.destroy_process_group
    distributed.destroy_process_group = lambda: None
    for kind in ("TSN", "TRN", "MTRN", "TSM"):
        own_store = distributed.PrefixStore(kind, store)
        processes = Processes(rank, 2, torch.device("cpu"), 1, own_store)
        rows = train_in(processes, folder, actions, kind, quick_recipe(**options))
        all_rows = processes.gather([[row | {"seconds": 0} for row in rows]])
        assert all_rows[0] == all_rows[1]
        end_group()
    os._exit(0)  # PyTorch 2.6 may hang in ending its threads


@pytest.mark.parametrize("options", [FROZEN, {"batch_size": 6, "precision": "bfloat16"}])
def test_two_processes_learn_what_one_learns(tmp_path: Path, options: dict[str, Any]) -> None:
    actions = make_actions(tmp_path / "actions", train_count=2, validation_count=1)
    multiprocessing.spawn(train_all, (tmp_path, actions, options), nprocs=2)
    alone = Processes(0, 1, torch.device("cpu"), 1)
    for kind in ("TSN", "TRN", "MTRN", "TSM"):
        rows = train_in(alone, tmp_path, actions, kind, quick_recipe(**options))
        both = tmp_path / f"{kind}-2"
        with open(both / "epochs.csv", newline="") as file:
            shared = list(csv.DictReader(file))
        close = 1e-5 if options is FROZEN else 0.1  # batch norms of halves of the batches
        if kind == "MTRN":
            close = 0.1  # draws of its own in each process
        for row, other in zip(rows, shared, strict=True):
            assert float(other["training_loss"]) == pytest.approx(row["training_loss"], rel=close)
            assert float(other["validation_loss"]) == pytest.approx(
                row["validation_loss"], rel=close
            )
        assert load_checkpoint(both / "last.pth.tar").num_class == 6
