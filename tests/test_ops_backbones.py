"""Backbones: pretrainedmodels' names and outputs, ImageNet weights, first convolutions."""

import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pretrainedmodels
import pytest
import torch
import torchvision
from helpers.hub_cache import hub_cache_fixture, torchvision_state  # noqa: F401 -- a fixture
from helpers.small_models import assert_close, randomised
from torch import Tensor, nn

from checkpoints.errors import CheckpointError
from data.preprocessing import Preprocessing
from ops import backbones
from ops.backbones import (
    BACKBONES,
    adapt_first_convolution,
    canonical_name,
    first_convolution,
    make_backbone,
)
from weights.download import DownloadError

LISTED = [
    "BNInception",
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"vgg{depth}" for depth in (11, 13, 16, 19)),
    *(f"vgg{depth}_bn" for depth in (11, 13, 16, 19)),
    "inceptionv3",
    "mobilenetv2",
]
OF_PRETRAINEDMODELS = [name for name in LISTED if name != "mobilenetv2"]
OTHERS = [
    name
    for name in pretrainedmodels.model_names
    if name not in {listed.lower() for listed in LISTED} and not name.startswith("squeezenet")
]
RGB_01 = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
BGR_255 = Preprocessing(
    mean=(104.0, 117.0, 128.0), std=(1.0,), input_space="BGR", input_range=(0.0, 255.0)
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def on_meta(name: str) -> tuple[nn.Module, Preprocessing]:
    """A backbone without memory: names and shapes are right, there are no values."""
    with torch.device("meta"):
        return make_backbone(name)


def theirs(name: str) -> nn.Module:
    """pretrainedmodels' network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision as one did before 0.13
        return getattr(pretrainedmodels, name.lower())(pretrained=None)


# Names


def test_listed_names() -> None:
    assert sorted(BACKBONES) == sorted(LISTED)


@pytest.mark.parametrize("name", [*LISTED, "se_resnet50", "cafferesnet101"])
def test_names_in_any_case(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert canonical_name(spelling) == name


@pytest.mark.parametrize("name", ["resnet51", "squeezenet1_0", "", "vgg", "features", None, 50])
def test_unknown_names_are_refused_with_the_list(name: object) -> None:
    with pytest.raises(ValueError, match=r"base_model .*must be") as error:
        make_backbone(name)  # type: ignore[arg-type]  # wrong on purpose
    assert repr(name) in str(error.value)
    if isinstance(name, str):
        assert all(known in str(error.value) for known in LISTED + OTHERS)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pretrainedmodels", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pretrainedmodels six"):
        make_backbone("se_resnet50")
    make_backbone("resnet18")


# Structure and arithmetic


@pytest.mark.essential
@pytest.mark.parametrize("name", OF_PRETRAINEDMODELS)
def test_state_dict_is_pretrainedmodels(name: str) -> None:
    ours = on_meta(name)[0].state_dict()
    with torch.device("meta"):
        expected = theirs(name).state_dict()
    assert [(key, ours[key].shape, ours[key].dtype) for key in ours] == [
        (key, expected[key].shape, expected[key].dtype) for key in expected
    ]


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size", "scale"),
    [("BNInception", 224, 60), ("resnet18", 64, 1), ("resnet50", 64, 1),
     ("vgg11_bn", 224, 1), ("inceptionv3", 299, 1)],
)  # fmt: skip
def test_outputs_are_pretrainedmodels(name: str, size: int, scale: int) -> None:
    # Without the default initialisation, which takes long for some and is overwritten here.
    expected_network = randomised(theirs_empty(name))
    ours = on_meta(name)[0].to_empty(device="cpu").eval()
    ours.load_state_dict(expected_network.state_dict())
    x = scale * torch.randn(1, 3, size, size)
    features, expected = ours.features(x), expected_network.features(x)
    assert features.shape == expected.shape
    assert_close(features, expected)
    assert_close(ours.logits(features), expected_network.logits(expected))
    assert_close(ours(x), expected_network(x))


def theirs_empty(name: str) -> nn.Module:
    with torch.device("meta"):
        network = theirs(name)
    return network.to_empty(device="cpu")


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *((name, 4096) for name in LISTED if name.startswith("vgg")),
        *((f"resnet{depth}", 512) for depth in (18, 34)),
        *((f"resnet{depth}", 2048) for depth in (50, 101, 152)),
        ("BNInception", 1024),
        ("inceptionv3", 2048),
        ("mobilenetv2", 1280),
    ],
)
def test_width_at_the_classifier_and_input_specification(name: str, width: int) -> None:
    backbone, preprocessing = on_meta(name)
    assert backbone.last_linear.in_features == width
    backbone.last_linear = nn.Identity()
    size = preprocessing.input_size
    x = torch.empty(2, 3, size, size, device="meta")
    assert backbone.eval()(x).shape == (2, width)
    if name == "inceptionv3":
        assert (size, preprocessing.scale_size) == (299, 341)
    else:
        assert preprocessing == (BGR_255 if name == "BNInception" else RGB_01)


@pytest.mark.parametrize("name", ["BNInception", "resnet18", "inceptionv3", "mobilenetv2"])
def test_other_input_sizes(name: str) -> None:
    backbone, _ = on_meta(name)
    for height, width in ((112, 112), (150, 203), (96, 161)):
        x = torch.empty(1, 3, height, width, device="meta")
        assert backbone.eval()(x).shape == (1, 1000)


def test_auxiliary_classifier_of_inception_never_runs() -> None:
    backbone, _ = on_meta("inceptionv3")
    backbone.AuxLogits = None
    x = torch.empty(2, 3, 299, 299, device="meta")
    assert backbone.train()(x).shape == (2, 1000)


@pytest.mark.parametrize("name", LISTED)
def test_every_batch_norm_can_be_folded_into_a_convolution(name: str) -> None:
    backbone, _ = on_meta(name)
    pairs = list(backbone.foldable())
    modules = list(backbone.modules())
    assert {norm for _, norm in pairs} == {m for m in modules if isinstance(m, nn.BatchNorm2d)}
    convolutions = [convolution for convolution, _ in pairs]
    assert len(convolutions) == len(set(convolutions))
    if pairs:  # VGGs without batch norms have none
        assert set(convolutions) == {m for m in modules if isinstance(m, nn.Conv2d)}
    assert all(convolution.out_channels == norm.num_features for convolution, norm in pairs)


@pytest.mark.parametrize("name", [name for name in LISTED if name.startswith("resnet")])
def test_stages_have_the_channels_that_they_say(name: str) -> None:
    backbone, _ = on_meta(name)
    x = torch.empty(1, 64, 16, 16, device="meta")
    assert list(backbone.stages()) == ["layer1", "layer2", "layer3", "layer4"]
    for stage, channels in backbone.stages().items():
        x = backbone.get_submodule(stage)(x)
        assert x.shape[1] == channels


# The generic path


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_architecture_takes_its_own_input(name: str) -> None:
    settings = next(iter(pretrainedmodels.pretrained_settings[name].values()))
    backbone, preprocessing = on_meta(name)
    assert preprocessing == Preprocessing(
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        input_space=settings["input_space"],
        input_range=(0.0, float(settings["input_range"][1])),
        input_size=settings["input_size"][1],
        scale_size=settings["input_size"][1] * 256 // 224,
    )
    width = backbone.last_linear.weight.shape[1]
    backbone.last_linear = nn.Identity()
    size = preprocessing.input_size
    x = torch.empty(2, 3, size, size, device="meta")
    assert backbone.eval()(x).shape == (2, width)


@torch.no_grad()
@pytest.mark.parametrize("name", ["alexnet", "dpn68", "se_resnet50"])
def test_generic_path_really_runs(name: str, recwarn: pytest.WarningsRecorder) -> None:
    backbone, preprocessing = make_backbone(name)
    x = torch.randn(1, 3, preprocessing.input_size, preprocessing.input_size)
    assert backbone.eval()(x).isfinite().all()
    assert not recwarn.list


def test_resnext_networks_share_nothing() -> None:
    """pretrainedmodels builds its ResNeXts around one module, made when it is imported."""
    first, second = (make_backbone("resnext101_32x4d")[0] for _ in range(2))
    assert not set(map(id, first.modules())) & set(map(id, second.modules()))
    assert not first_convolution(first)[1].weight.equal(first_convolution(second)[1].weight)
    adapt_first_convolution(first, 10)
    assert first_convolution(second)[1].in_channels == 3
    assert first_convolution(make_backbone("resnext101_32x4d")[0])[1].in_channels == 3


# The first convolution


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("BNInception", "conv1_7x7_s2"),
        ("resnet18", "conv1"),
        ("vgg11", "_features.0"),
        ("vgg11_bn", "_features.0"),
        ("inceptionv3", "Conv2d_1a_3x3.conv"),
        ("mobilenetv2", "features.0.0"),
        ("se_resnet50", "layer0.conv1"),
        ("dpn68", "features.conv1_1.conv"),
    ],
)
def test_first_convolution_takes_other_channels(name: str, place: str) -> None:
    backbone, _ = on_meta(name)
    found, old = first_convolution(backbone)
    assert found == place
    adapt_first_convolution(backbone, 10)
    new = backbone.get_submodule(place)
    assert new is first_convolution(backbone)[1]
    assert new.in_channels == 10
    assert new.weight.shape == (old.out_channels, 10, *old.kernel_size)
    kept = ("kernel_size", "stride", "padding", "dilation", "groups", "out_channels")
    assert [getattr(new, name) for name in kept] == [getattr(old, name) for name in kept]
    assert new.bias is old.bias


@torch.no_grad()
def test_first_convolution_repeats_the_mean() -> None:
    backbone, _ = make_backbone("BNInception")
    weight = backbone.conv1_7x7_s2.weight.clone()
    bias = backbone.conv1_7x7_s2.bias.clone()
    adapt_first_convolution(backbone, 4)
    ours = backbone.conv1_7x7_s2
    for channel in range(4):
        torch.testing.assert_close(ours.weight[:, channel], weight.sum(dim=1) / 3)
    assert ours.bias.equal(bias)
    assert ours.weight.requires_grad
    assert ours.bias.requires_grad


# ImageNet weights, from torch.hub's cache


def put(directory: Path, name: str, state: dict[str, Tensor], *, legacy: bool = False) -> None:
    torch.save(state, directory / name, _use_new_zipfile_serialization=not legacy)


def test_resnet_from_the_cache(hub_cache: Path) -> None:
    state = torchvision_state("resnet18")
    put(hub_cache, "resnet18-f37072fd.pth", state)
    backbone, preprocessing = make_backbone("ResNet18", imagenet=True)
    ours = backbone.state_dict()
    kept = {name for name in state if not name.startswith("fc.")}
    assert set(ours) == kept | {"last_linear.weight", "last_linear.bias"}
    assert all(ours[name].equal(state[name]) for name in kept)
    assert ours["last_linear.weight"].shape == state["fc.weight"].shape
    assert not ours["last_linear.weight"].equal(state["fc.weight"])
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert preprocessing == RGB_01


def test_vgg_under_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torchvision_state("vgg11_bn")
    monkeypatch.setattr(backbones, "fetch", lambda *_, **__: Path("vgg11_bn.pth"))
    monkeypatch.setattr(backbones, "read_file", lambda _: dict(state))  # half a gigabyte
    backbone, preprocessing = make_backbone("vgg11_bn", imagenet=True)
    ours = backbone.state_dict()
    assert len(ours) == len(state)
    assert not ours["last_linear.bias"].equal(state["classifier.6.bias"])
    assert ours["_features.0.weight"].equal(state["features.0.weight"])
    assert ours["_features.26.running_var"].equal(state["features.26.running_var"])
    assert ours["linear0.weight"].equal(state["classifier.0.weight"])
    assert ours["linear1.bias"].equal(state["classifier.3.bias"])
    assert preprocessing == RGB_01


@torch.no_grad()
def test_mobilenet_v2_from_the_cache(hub_cache: Path) -> None:
    state = torchvision_state("mobilenet_v2")
    put(hub_cache, "mobilenet_v2-b0353104.pth", state)
    ours, preprocessing = make_backbone("MobileNetV2", imagenet=True)
    theirs = torchvision.models.mobilenet_v2().eval()
    theirs.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    assert_close(ours.eval().features(x), theirs.features(x))
    assert not ours.last_linear.weight.equal(state["classifier.1.weight"])
    assert preprocessing == RGB_01


def test_inception_v3_from_the_cache_with_its_own_preprocessing(hub_cache: Path) -> None:
    state = torchvision_state("inception_v3", init_weights=False)
    put(hub_cache, "inception_v3_google-0cc3c7bd.pth", state)
    backbone, preprocessing = make_backbone("inceptionv3", imagenet=True)
    ours = backbone.state_dict()
    kept = {name for name in state if not name.startswith("fc.")}
    assert set(ours) == kept | {"last_linear.weight", "last_linear.bias"}
    assert all(ours[name].equal(state[name]) for name in kept)
    assert ours["last_linear.weight"].shape == state["fc.weight"].shape
    assert not ours["last_linear.weight"].equal(state["fc.weight"])
    # What torchvision's own transform_input makes of its usual preprocessing: RGB in -1..1.
    network = torchvision.models.Inception3(transform_input=True, init_weights=False)
    pixels = torch.rand(1, 3, 4, 4)
    usual = (pixels - torch.tensor(RGB_01.mean).view(3, 1, 1)) / torch.tensor(RGB_01.std).view(
        3, 1, 1
    )
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert preprocessing.input_space == "RGB"
    assert preprocessing.input_range == (0.0, 1.0)
    assert (preprocessing.input_size, preprocessing.scale_size) == (299, 341)
    torch.testing.assert_close((pixels - 0.5) / 0.5, network._transform_input(usual))


def test_bn_inception_from_the_cache_without_pretrainedmodels(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is from PyTorch 0.1: statistics are [1, C], and batches are not counted."""
    with torch.device("meta"):
        network = theirs("BNInception")
    state = randomised(network.to_empty(device="cpu")).state_dict()
    old = OrderedDict(
        (name, tensor[None] if "_bn." in name else tensor)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    )
    put(hub_cache, "bn_inception-52deb4733.pth", old, legacy=True)
    monkeypatch.setitem(sys.modules, "pretrainedmodels", None)
    backbone, preprocessing = make_backbone("bninception", imagenet=True)
    ours = backbone.state_dict()
    assert set(ours) == set(state)
    for name, tensor in ours.items():
        if name.startswith("last_linear."):
            assert not tensor.equal(state[name])
        elif name.endswith("num_batches_tracked"):
            assert tensor == 0
        else:
            assert tensor.equal(state[name])
    assert preprocessing == BGR_255


def test_generic_path_from_the_cache(hub_cache: Path) -> None:
    state = randomised(theirs("dpn68")).state_dict()
    put(hub_cache, "dpn68-4af7d88d2.pth", state)
    ours = make_backbone("dpn68", imagenet=True)[0].state_dict()
    assert all(ours[name].equal(state[name]) for name in ours)


@pytest.mark.parametrize("name", ["resnet18", "BNInception", "dpn68"])
def test_without_cache_and_network(name: str, hub_cache: Path) -> None:
    with pytest.raises(DownloadError, match="cannot download") as error:
        make_backbone(name, imagenet=True)
    assert str(hub_cache) in str(error.value)
    assert not list(hub_cache.iterdir())


@pytest.mark.parametrize("name", LISTED)
def test_the_hash_in_the_name_is_checked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def record(url: str, *, sha256_prefix: str) -> Path:
        asked.append((url, sha256_prefix))
        raise DownloadError("as expected")

    monkeypatch.setattr(backbones, "fetch", record)
    with pytest.raises(DownloadError, match="as expected"):
        make_backbone(name, imagenet=True)
    [(url, prefix)] = asked
    assert url.endswith(f"-{prefix}.pth")
    assert len(prefix) >= 8
    bn_inception = pretrainedmodels.pretrained_settings["bninception"]["imagenet"]["url"]
    torchvision_names = {"inceptionv3": "inception_v3", "mobilenetv2": "mobilenet_v2"}
    torchvision_name = torchvision_names.get(name, name)
    if name == "BNInception":
        assert url == bn_inception
    else:
        assert url == torchvision.models.get_model_weights(torchvision_name).IMAGENET1K_V1.url


def test_a_damaged_file(hub_cache: Path) -> None:
    (hub_cache / "resnet18-f37072fd.pth").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd\.pth"):
        make_backbone("resnet18", imagenet=True)


@pytest.mark.parametrize("contents", [[1], {}, {"conv1.weight": 1}, {1: torch.ones(1)}])
def test_a_file_without_weights(hub_cache: Path, contents: Any) -> None:
    put(hub_cache, "resnet18-f37072fd.pth", contents)
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd\.pth: state_dict must"):
        make_backbone("resnet18", imagenet=True)


def test_a_file_with_other_weights(hub_cache: Path) -> None:
    put(hub_cache, "resnet18-f37072fd.pth", torchvision_state("resnet34"))
    with pytest.raises(CheckpointError, match=r"resnet18.*unexpected"):
        make_backbone("resnet18", imagenet=True)


def test_weights_follow_the_default_device(hub_cache: Path) -> None:
    put(hub_cache, "resnet18-f37072fd.pth", torchvision_state("resnet18"))
    with torch.device("meta"):
        backbone, _ = make_backbone("resnet18", imagenet=True)
    assert {parameter.device.type for parameter in backbone.parameters()} == {"meta"}


def test_without_pretrainedmodels_the_other_names_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pretrainedmodels", None)
    assert canonical_name("RESNET50") == "resnet50"
    with pytest.raises(ModuleNotFoundError, match=r"one of BNInception, resnet18.*pip install"):
        canonical_name("resnet99")
