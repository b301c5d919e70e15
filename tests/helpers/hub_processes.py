"""What runs in another process to read pickles, and to use worker processes of its own."""

import multiprocessing
import os
import pickle
import re
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from helpers.hub_models import CLIP, FRAMES, digest, logits, make, module_of


def read(paths: list[str], clone: str | None) -> list[Any]:
    """Return what files of pickles and of torch.save hold."""
    sys.path[:0] = [clone] if clone else []
    return [
        described(
            torch.load(path, weights_only=False)
            if path.endswith(".pt")
            else pickle.loads(Path(path).read_bytes())
        )
        for path in paths
    ]


def described(found: Any) -> Any:
    """Return what a test can compare of an object from another process."""
    if isinstance(found, nn.Module):
        if hasattr(found, "num_class"):
            return [type(found).__name__, digest(found), logits(found)]
        return [type(found).__name__, digest(found)]
    if callable(found):
        return [type(found).__name__, zlib.crc32(found(FRAMES).numpy())]
    text = re.sub(r" at 0x\w+", "", repr(found))
    return [type(found).__name__, text, repr(getattr(found, "__dict__", None))]


class Transformed(Dataset[Tensor]):
    """Clips through a model's transform."""

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(FRAMES.roll(index, -1)).mean()


class Classified(Dataset[Tensor]):
    """Clips through a model, and for index 3 an error of its checkpoint reader."""

    def __init__(self, model: nn.Module, failing: bool = False) -> None:
        self.model = model
        self.failing = failing

    def __len__(self) -> int:
        return 3

    @torch.no_grad()
    def __getitem__(self, index: int) -> Tensor:
        if self.failing:
            module_of(self.model, "model_loader").load_checkpoint(os.devnull)
        return self.model(CLIP.roll(index, -1))


def workers(repository: str | None, clone: str | None, loaders: list[list[Any]]) -> list[Any]:
    """Return whether workers do what this process does, and name the error of one that fails.

    Args:
        repository: where torch.hub finds the model.
        clone: what is imported instead.
        loaders: for each, the way to start workers, their number, and what the dataset holds.
    """
    sys.path[:0] = [clone] if clone else []
    model = make(repository, "TSM")
    error = module_of(model, "checkpoints.files").CheckpointError
    datasets = {
        "transform": Transformed(model.evaluation_transform()),
        "model": Classified(model),
    }
    answers: list[Any] = []
    for method, count, held in loaders:
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["torch"])
        dataset = datasets[held]
        loader = DataLoader(dataset, None, num_workers=count, multiprocessing_context=context)
        expected = [dataset[index] for index in range(len(dataset))]
        answers.append(torch.equal(torch.stack(expected), torch.stack(list(loader))))
    try:
        list(DataLoader(Classified(model, failing=True), None, num_workers=1))
    except error as refusal:
        answers.append(os.devnull in str(refusal))
    return answers


def _preprocessing(repository: str | None, clone: str | None) -> Any:
    sys.path[:0] = [clone] if clone else []
    model = make(repository, "TSN")
    prediction = module_of(model, "predictor").Prediction
    label = module_of(model, "predictor").Label
    return model.preprocessing, prediction(classes=(label("wash", (3,), 0.5),))


def _refused(repository: str | None, clone: str | None) -> None:
    sys.path[:0] = [clone] if clone else []
    model = make(repository, "TSN")
    module_of(model, "model_loader").load_checkpoint(os.devnull)


def pool(repository: str | None, clone: str | None) -> list[Any]:
    """Return what comes back from a spawned process, in one that has loaded nothing itself."""
    sys.path[:0] = [clone] if clone else []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        preprocessing, prediction = executor.submit(_preprocessing, repository, clone).result()
        error = executor.submit(_refused, repository, clone).exception()
    return [preprocessing.input_size, str(prediction), type(error).__name__, str(error)]
