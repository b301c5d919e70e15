"""torch.hub's cache in an empty folder, without a network behind it.

from helpers.hub_cache import hub_cache_fixture  # noqa: F401 -- a fixture

def test_something(hub_cache: Path) -> None:
    torch.save(state, hub_cache / "resnet18-f37072fd.pth")
    make_backbone("resnet18", imagenet=True)
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from helpers.small_models import randomised


def _no_network(request: Any, *_: object, **__: object) -> None:
    raise OSError(f"no network in tests: {getattr(request, 'full_url', request)}")


def write_class_names(folder: Path) -> None:
    """Files like the official ones of EPIC-KITCHENS-55, with synthetic names."""
    for kind, count in (("verb", 125), ("noun", 352)):
        rows = "".join(f"{index},{kind}{index},[]\n" for index in range(count))
        table = f"{kind}_id,class_key,{kind}s\n{rows}"
        (folder / f"EPIC_{kind}_classes.csv").write_text(table)


@pytest.fixture(name="hub_cache")
def hub_cache_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """torch.hub's folder of checkpoints, empty; whoever asks the network gets an OSError."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    monkeypatch.setattr("torch.hub.urlopen", _no_network)
    directory = tmp_path / "hub" / "checkpoints"
    directory.mkdir(parents=True)
    yield directory
    shutil.rmtree(directory)  # pytest would keep it for a while, and weights are large


def torchvision_state(name: str, **options: Any) -> dict[str, Tensor]:
    """A state dict of torchvision, under its own names, with values that can be recognised."""
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(**options)
    return randomised(network.to_empty(device="cpu")).state_dict()
