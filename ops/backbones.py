"""Backbones as segment networks use them: by name, with weights and input specification.

Sources: ResNet (arXiv:1512.03385), VGG (arXiv:1409.1556) and Inception-V3 (arXiv:1512.00567) as
torchvision implements them; BN-Inception (arXiv:1502.03167) from `ops.bn_inception`; every other
architecture of pretrainedmodels that ends in a `last_linear`.

Differences from the original:
    - ResNets, VGGs and Inception-V3 are real classes with pretrainedmodels' names. The original's
      are torchvision instances with methods bound from outside, which a DataParallel replica
      carries along bound to the wrong model, and which cannot be pickled.
    - ImageNet weights come from torchvision (IMAGENET1K_V1) for these, and bring the preprocessing
      that they were trained with.
"""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import resnet, vgg

from checkpoints.errors import CheckpointError
from checkpoints.files import read_file
from checkpoints.state_dict import clean_state_dict
from data.preprocessing import CAFFE, TORCHVISION, Preprocessing
from ops.bn_inception import BNInception
from ops.loading import init_empty, load_weights
from weights.download import fetch

__all__ = [
    "BACKBONES",
    "VGG",
    "InceptionV3",
    "ResNet",
    "adapt_first_convolution",
    "canonical_name",
    "first_convolution",
    "make_backbone",
]


class ResNet(resnet.ResNet):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's ResNet with `last_linear` for `fc`, and `features` and `logits` apart."""

    def __init__(self, block: type[resnet.BasicBlock | resnet.Bottleneck], layers: list[int]):
        super().__init__(block, layers)
        self.last_linear = self.fc
        del self.fc
        self._expansion: int = block.expansion

    def stages(self) -> list[nn.Sequential]:
        """The four stages of residual blocks."""
        stages = [self.layer1, self.layer2, self.layer3, self.layer4]
        return [cast(nn.Sequential, stage) for stage in stages]

    def stage_channels(self, index: int) -> int:
        """Output channels of stage `index`, counted from 0."""
        return int(64 * 2**index * self._expansion)

    def features(self, x: Tensor) -> Tensor:
        """Activations of the last stage: (N, C, H, W) to (N, D, ~H/32, ~W/32)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return cast(Tensor, self.layer4(self.layer3(self.layer2(self.layer1(x)))))

    def logits(self, features: Tensor) -> Tensor:
        """Class scores (N, classes) of activations (N, D, h, w)."""
        return cast(Tensor, self.last_linear(self.avgpool(features).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, classes) of images (N, C, H, W)."""
        return self.logits(self.features(x))


class VGG(vgg.VGG):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's VGG with pretrainedmodels' names and split.

    Args:
        configuration: torchvision's letter: A, B, D or E for 11, 13, 16 or 19 layers.
        batch_norm: whether batch norm follows each convolution.
    """

    def __init__(self, configuration: str, batch_norm: bool):
        super().__init__(vgg.make_layers(vgg.cfgs[configuration], batch_norm))
        # As attributes, `features` and `classifier` would hide behind the methods' names.
        self._features = self._modules.pop("features")
        classifier = cast(nn.Sequential, self._modules.pop("classifier"))
        names = ("linear0", "relu0", "dropout0", "linear1", "relu1", "dropout1", "last_linear")
        for name, module in zip(names, classifier, strict=True):
            self.add_module(name, module)

    def features(self, x: Tensor) -> Tensor:
        """Output of the second last linear layer: (N, C, H, W) to (N, 4096)."""
        x = self.avgpool(cast(nn.Module, self._features)(x)).flatten(1)
        return cast(Tensor, self.linear1(self.dropout0(self.relu0(self.linear0(x)))))

    def logits(self, features: Tensor) -> Tensor:
        """Class scores (N, classes) of features (N, 4096)."""
        return cast(Tensor, self.last_linear(self.dropout1(self.relu1(features))))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, classes) of images (N, C, H, W)."""
        return self.logits(self.features(x))


class InceptionV3(torchvision.models.Inception3):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's Inception-V3 with `last_linear` for `fc`, and `features` and `logits` apart.

    The auxiliary classifier exists, since state dicts hold its weights, but is never run.
    """

    def __init__(self) -> None:
        super().__init__(transform_input=False, init_weights=True)
        self.last_linear = self.fc
        del self.fc

    def features(self, x: Tensor) -> Tensor:
        """Activations of the last block: (N, C, H, W) to (N, 2048, h, w), 8 x 8 for 299 x 299."""
        for name, module in self.named_children():
            if name.startswith(("Conv2d_", "maxpool", "Mixed_")):
                x = module(x)
        return x

    def logits(self, features: Tensor) -> Tensor:
        """Class scores (N, classes) of activations (N, 2048, h, w)."""
        return cast(Tensor, self.last_linear(self.dropout(self.avgpool(features)).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, classes) of images (N, C, H, W)."""
        return self.logits(self.features(x))


_INCEPTION_V3 = replace(CAFFE, input_size=299, scale_size=299 * 256 // 224)
# torchvision ported Google's weights, which take RGB in -1..1.
_INCEPTION_V3_IMAGENET = Preprocessing(
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), input_size=299, scale_size=299 * 256 // 224
)

_RESNETS: dict[str, tuple[type[resnet.BasicBlock | resnet.Bottleneck], list[int]]] = {
    "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet34": (resnet.BasicBlock, [3, 4, 6, 3]),
    "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
    "resnet101": (resnet.Bottleneck, [3, 4, 23, 3]),
    "resnet152": (resnet.Bottleneck, [3, 8, 36, 3]),
}
_VGGS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}

_CONSTRUCTORS: dict[str, Callable[[], nn.Module]] = {
    "BNInception": BNInception,
    **{name: partial(ResNet, *arguments) for name, arguments in _RESNETS.items()},
    **{name: partial(VGG, letter, batch_norm=False) for name, letter in _VGGS.items()},
    **{f"{name}_bn": partial(VGG, letter, batch_norm=True) for name, letter in _VGGS.items()},
    "inceptionv3": InceptionV3,
}
BACKBONES = tuple(_CONSTRUCTORS)
"""Names of the architectures that need no pretrainedmodels."""

# torchvision's names in its own weights, ours in our classes; the classifier is not wanted.
_RENAMED = {
    "features.": "_features.",
    "classifier.0.": "linear0.",
    "classifier.3.": "linear1.",
}
_CLASSIFIERS = ("fc.", "classifier.6.", "last_linear.")


def _pretrainedmodels() -> ModuleType:
    try:
        import pretrainedmodels
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this backbone or its ImageNet weights need the package {error.name!r}: "
            f"pip install pretrainedmodels six"
        ) from error
    return cast(ModuleType, pretrainedmodels)


def _other_names() -> list[str]:
    """Architectures of pretrainedmodels that end in a `last_linear` and are not ours."""
    ours = {name.lower() for name in BACKBONES}
    names = _pretrainedmodels().model_names
    return [name for name in names if name not in ours and not name.startswith("squeezenet")]


def canonical_name(name: str) -> str:
    """The spelling that `model.arch` and checkpoints use, whatever case came in.

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
    if name not in _CONSTRUCTORS:
        return _make_other(name, imagenet)
    preprocessing = TORCHVISION
    if name == "BNInception":
        preprocessing = CAFFE
    elif name == "inceptionv3":
        preprocessing = _INCEPTION_V3_IMAGENET if imagenet else _INCEPTION_V3
    if not imagenet:
        return _CONSTRUCTORS[name](), preprocessing
    state = _imagenet_state(name)
    with init_empty():  # which the file has
        backbone = _CONSTRUCTORS[name]()
    load_weights(backbone, state, source=f"ImageNet for {name}", absent=("last_linear.",))
    cast(nn.Linear, backbone.last_linear).to_empty(device="cpu").reset_parameters()
    return backbone.to(torch.empty(0).device), preprocessing


def _imagenet_state(name: str) -> dict[str, Tensor]:
    """ImageNet weights under our names, without the classifier."""
    if name == "BNInception":
        url = _pretrainedmodels().pretrained_settings["bninception"]["imagenet"]["url"]
    else:
        torchvision_name = "inception_v3" if name == "inceptionv3" else name
        url = torchvision.models.get_model_weights(torchvision_name)["IMAGENET1K_V1"].url
    path = _fetch(url)
    contents = read_file(path)
    try:
        state, _ = clean_state_dict(contents)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.startswith(_CLASSIFIERS):
            continue
        for old, new in _RENAMED.items():
            if key.startswith(old):
                key = new + key.removeprefix(old)
                break
        # Batch norms in BN-Inception's file, made by PyTorch 0.1, are [1, C].
        renamed[key] = tensor[0] if tensor.ndim == 2 and len(tensor) == 1 else tensor
    return renamed


def _fetch(url: str) -> Path:
    """The cached file of a URL in torch.hub's form, .../NAME-SHA256PREFIX.pth."""
    return fetch(url, sha256_prefix=url.rpartition("-")[2].partition(".")[0])


def _make_other(name: str, imagenet: bool) -> tuple[nn.Module, Preprocessing]:
    """The generic path: an architecture and its input specification from pretrainedmodels."""
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
    """Name and module of the convolution that sees the image."""
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
