"""Models train under DistributedDataParallel, with its default options."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

KINDS = {"TSN": TSN, "TRN": TRN, "MTRN": MTRN, "TSM": TSM}
T = 4


def train(rank: int, world: int, store: str) -> None:
    """Train each kind of model, each process on clips of its own: weights stay equal."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{store}", timedelta(seconds=60), rank=rank, world_size=world
    )
    for name, kind in KINDS.items():
        torch.manual_seed(0)
        model = kind((5, 7), T, "RGB", "resnet18", pretrained=None, partial_bn=False)
        before = model.state_dict()["base_model.conv1.weight"].clone()
        torch.manual_seed(rank + 1)  # of what MTRN draws too
        parallel = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.get_optim_policies(), lr=0.01)
        for _ in range(2):  # the first arranges the buckets
            optimizer.zero_grad()
            verbs, nouns = parallel(torch.randn(2, T * 3, 32, 32))
            (verbs.logsumexp(1) + nouns.logsumexp(1)).sum().backward()
            optimizer.step()
        for parameter_name, parameter in model.named_parameters():
            others = [torch.empty_like(parameter) for _ in range(world)]
            distributed.all_gather(others, parameter.detach())
            assert all(other.equal(others[0]) for other in others), (name, parameter_name)
        assert not model.base_model.conv1.weight.equal(before), name
    distributed.barrier()
    os._exit(0)  # PyTorch 2.6 may hang in ending its threads, which hold tensors of Python's


@pytest.mark.essential
@pytest.mark.skipif(not distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_ddp_trains(tmp_path: Path) -> None:
    multiprocessing.spawn(train, (2, str(tmp_path / "store")), nprocs=2)
