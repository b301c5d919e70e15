"""Backbones by name, with ImageNet weights and the preprocessing that these want.

Here are the classes of ours, a file each, and the generic path to every other architecture of
pretrainedmodels that ends in a `last_linear`.

Differences from the original:
    - ImageNet weights come from torchvision (IMAGENET1K_V1) for ResNets, VGGs and Inception-V3.
"""

import warnings
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from checkpoints.errors import CheckpointError
from checkpoints.files import read_file
from checkpoints.state_dict import clean_state_dict
from data.preprocessing import Preprocessing
from ops.backbone import Backbone
from ops.bn_inception import BNInception
from ops.inception_v3 import InceptionV3
from ops.loading import init_empty, load_weights
from ops.mobilenet_v2 import MobileNetV2
from ops.resnet import ResNet
from ops.vgg import VGG
from weights.download import fetch

__all__ = [
    "BACKBONES",
    "SHIFTABLE",
    "adapt_first_convolution",
    "canonical_name",
    "first_convolution",
    "make_backbone",
]

_FAMILIES: dict[str, type[Backbone]] = {
    name: family
    for family in (BNInception, ResNet, VGG, InceptionV3, MobileNetV2)
    for name in family.architectures
}
BACKBONES = tuple(_FAMILIES)
"""Names of the architectures that need no pretrainedmodels."""
SHIFTABLE = tuple(
    name for name, family in _FAMILIES.items() if family.shift_places is not Backbone.shift_places
)
"""Names of the architectures that can shift channels through time."""


def _pretrainedmodels() -> ModuleType:
    try:
        import pretrainedmodels
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this backbone needs the package {error.name!r}: pip install pretrainedmodels six"
        ) from error
    return cast(ModuleType, pretrainedmodels)


def _other_names() -> list[str]:
    """Return the architectures of pretrainedmodels that end in a `last_linear` and are not ours."""
    ours = {name.lower() for name in BACKBONES}
    names = _pretrainedmodels().model_names
    return [name for name in names if name not in ours and not name.startswith("squeezenet")]


def canonical_name(name: str) -> str:
    """Return the spelling that `model.arch` and checkpoints use, whatever case came in.

    Args:
        name: name of an architecture, in any case.

    Returns:
        One of `BACKBONES`, or a name of pretrainedmodels.

    Raises:
        ValueError: for an unknown name, with the list of known ones.
        ModuleNotFoundError: if only pretrainedmodels could know it, which is not installed.
    """
    if not isinstance(name, str):
        raise ValueError(f"base_model must be the name of an architecture, got {name!r}")
    known = {candidate.lower(): candidate for candidate in BACKBONES}
    if name.lower() in known:
        return known[name.lower()]
    try:
        others = _other_names()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"base_model must be one of {', '.join(BACKBONES)}, got {name!r}; {error}"
        ) from error
    if name.lower() in others:
        return name.lower()
    close = get_close_matches(name.lower(), [*known, *others], n=1)
    hint = f" (did you mean {known.get(close[0], close[0])!r}?)" if close else ""
    raise ValueError(
        f"base_model must be the name of a known architecture, got {name!r}{hint}; known are "
        f"{', '.join(BACKBONES)}, and of pretrainedmodels {', '.join(others)}"
    )


def make_backbone(name: str, *, imagenet: bool = False) -> tuple[nn.Module, Preprocessing]:
    """Build a backbone.

    Args:
        name: an architecture of `BACKBONES` or pretrainedmodels, in any case.
        imagenet: whether to load ImageNet weights (from torch.hub's cache, or downloaded into it).

    Returns:
        The network, with `features`, `logits` and a `last_linear` whose weights are never the
        ImageNet ones (whoever asks for a backbone replaces it), and its RGB preprocessing.

    Raises:
        ValueError: for an unknown name.
        weights.download.DownloadError: if the weights cannot be fetched.
        checkpoints.errors.CheckpointError: if the file in the cache does not hold them.
    """
    name = canonical_name(name)
    if name not in _FAMILIES:
        return _make_other(name, imagenet)
    family = _FAMILIES[name]
    arguments = family.architectures[name]
    if not imagenet:
        return family(*arguments), family.preprocessing
    state = _imagenet_state(family, name)
    with init_empty():  # which the file has
        backbone = family(*arguments)
    load_weights(backbone, state, source=f"ImageNet for {name}", absent=("last_linear.",))
    cast(nn.Linear, backbone.last_linear).to_empty(device="cpu").reset_parameters()
    return backbone.to(torch.empty(0).device), family.imagenet_preprocessing


def _imagenet_state(family: type[Backbone], name: str) -> dict[str, Tensor]:
    """Return ImageNet weights under our names, without the classifier."""
    path = _fetch(family.imagenet_url(name))
    contents = read_file(path)
    try:
        state, _ = clean_state_dict(contents)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        for theirs, ours in family.imagenet_prefixes.items():
            if key.startswith(theirs):
                key = ours + key.removeprefix(theirs)
                break
        # Batch norms in BN-Inception's file, made by PyTorch 0.1, are [1, C].
        renamed[key] = tensor[0] if tensor.ndim == 2 and len(tensor) == 1 else tensor
    return {key: tensor for key, tensor in renamed.items() if not key.startswith("last_linear.")}


def _fetch(url: str) -> Path:
    """Return the cached file of a URL in torch.hub's form, .../NAME-SHA256PREFIX.pth."""
    return fetch(url, sha256_prefix=url.rpartition("-")[2].partition(".")[0])


def _make_other(name: str, imagenet: bool) -> tuple[nn.Module, Preprocessing]:
    """Build an architecture of pretrainedmodels, with its input specification."""
    library = _pretrainedmodels()
    all_settings: dict[str, Any] = library.pretrained_settings[name]
    # Some weights are published only after training on more classes ("imagenet+5k").
    source = "imagenet" if "imagenet" in all_settings else next(iter(all_settings))
    settings = all_settings[source]
    if imagenet:
        _fetch(settings["url"])  # into the cache, where the library looks before it downloads
    with warnings.catch_warnings():
        # It calls torchvision as one did before 0.13.
        warnings.filterwarnings("ignore", module=r"torchvision\.models\._utils")
        backbone = library.__dict__[name](
            num_classes=settings["num_classes"], pretrained=source if imagenet else None
        )
    if name.startswith("resnext"):
        # Its ResNeXts are one module, which all instances share: this one becomes ours alone.
        backbone = deepcopy(backbone).to(torch.empty(0).device)
        for module in backbone.modules():
            if not imagenet and isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.reset_parameters()
    size = int(settings["input_size"][-1])
    preprocessing = Preprocessing(
        mean=tuple(float(value) for value in settings["mean"]),
        std=tuple(float(value) for value in settings["std"]),
        input_space=settings["input_space"],
        input_range=(0.0, float(settings["input_range"][1])),
        input_size=size,
        scale_size=size * 256 // 224,
    )
    return backbone, preprocessing


def first_convolution(backbone: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return name and module of the convolution that sees the image."""
    if isinstance(backbone, Backbone):
        name = backbone.first_convolution
        return name, cast(nn.Conv2d, backbone.get_submodule(name))
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise ValueError(f"{type(backbone).__name__} has no convolution")


def adapt_first_convolution(backbone: nn.Module, channels: int) -> None:
    """Let the first convolution take `channels` input channels, in place.

    Every new channel gets the mean of the old ones' weights (cross-modality initialisation,
    arXiv:1608.00859, section 3.2).

    Args:
        backbone: a backbone.
        channels: number of channels of a snippet.
    """
    name, old = first_convolution(backbone)
    new = nn.Conv2d(
        channels,
        old.out_channels,
        cast(tuple[int, int], old.kernel_size),
        cast(tuple[int, int], old.stride),
        cast(tuple[int, int], old.padding),
        bias=old.bias is not None,
        device="meta",
    )
    mean = old.weight.detach().mean(dim=1, keepdim=True)
    new.weight = nn.Parameter(mean.repeat(1, channels, 1, 1))
    new.bias = old.bias
    parent, _, leaf = name.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, new)
