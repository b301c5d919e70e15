"""Small models from torch.hub or a plain import, in this process or another."""

import importlib
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers.small_models import randomised

KINDS = {"TSN": "tsn", "TRN": "trn", "MTRN": "trn", "TSM": "tsm"}
"""Models, and the modules that define them."""
T = 3
FRAMES = torch.arange(T * 3 * 256 * 300, dtype=torch.int64).remainder(251).to(torch.uint8)
FRAMES = FRAMES.view(T, 3, 256, 300)
CLIP = (FRAMES[..., :64, :64].float() / 250).reshape(1, T * 3, 64, 64)


def hub(repository: str | Path, entry: str, *arguments: Any, **options: Any) -> Any:
    """Return what an entry point of a repository returns."""
    return torch.hub.load(str(repository), entry, *arguments, source="local", **options)


def make(repository: str | Path | None, kind: str, **options: Any) -> Any:
    """Make a small model with weights that can be recognised: from torch.hub, or imported."""
    arguments = (5, T, "RGB", "resnet18")
    if repository:
        model = hub(repository, kind, *arguments, pretrained=None, **options)
    else:
        plain = getattr(importlib.import_module(KINDS[kind]), kind)
        model = plain(*arguments, pretrained=None, **options)
    return randomised(model, seed=len(kind))


def module_of(model: object, name: str) -> Any:
    """Import a module from where a model's class is, be that a private package or not."""
    package, dot, _ = type(model).__module__.rpartition(KINDS.get(type(model).__name__, "?"))[0:3]
    return importlib.import_module(f"{package if dot else ''}{name}")


@torch.no_grad()
def logits(model: nn.Module) -> list[float]:
    outputs = model(CLIP)
    return [round(value, 4) for value in outputs[0].tolist()]


def digest(model: nn.Module) -> int:
    """Return a checksum of the weights and their names."""
    value = 0
    for name, tensor in model.state_dict().items():
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensor.contiguous().numpy(), value)
    return value
