"""TSN with ImageNet or published weights, from the cache."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub_cache import hub_cache_fixture, torchvision_state  # noqa: F401 -- a fixture
from helpers.original_format import original
from helpers.small_models import randomised
from helpers.small_tsn import batch_norms, is_frozen, refused
from torch import nn

from checkpoints.errors import CheckpointError
from data.preprocessing import Preprocessing
from tsn import TSN
from weights.download import DownloadError
from weights.published import find_published

T = 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_imagenet_is_the_default_and_comes_from_the_cache(hub_cache: Path) -> None:
    state = torchvision_state("resnet18")
    torch.save(state, hub_cache / "resnet18-f37072fd.pth")
    model = TSN((5, 7), T, "RGB", "resnet18")
    ours = model.base_model.state_dict()
    assert set(ours) == {name for name in state if not name.startswith("fc.")}
    assert all(ours[name].equal(state[name]) for name in ours)
    assert isinstance(model.base_model.last_linear, nn.Dropout)
    assert model.fc_verb.weight.abs().max() < 0.01
    assert all(map(is_frozen, batch_norms(model)[1:]))
    assert model(torch.randn(1, T * 3, 32, 32))[0].shape == (1, 5)


@pytest.mark.parametrize(("modality", "channels"), [("Flow", 10), ("RGBDiff", 15)])
def test_imagenet_weights_of_the_first_convolution_are_averaged(
    hub_cache: Path, modality: str, channels: int
) -> None:
    state = torchvision_state("resnet18")
    torch.save(state, hub_cache / "resnet18-f37072fd.pth")
    model = TSN(5, T, modality, "resnet18")
    expected = state["conv1.weight"].mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
    torch.testing.assert_close(model.base_model.conv1.weight.detach(), expected)
    assert model.base_model.layer1[0].conv1.weight.equal(state["layer1.0.conv1.weight"])


def test_imagenet_inception_v3_has_the_preprocessing_of_its_weights(hub_cache: Path) -> None:
    state = torchvision_state("inception_v3", init_weights=False)
    torch.save(state, hub_cache / "inception_v3_google-0cc3c7bd.pth")
    model = TSN(5, T, "RGB", "inceptionv3")
    assert (model.input_mean, model.input_std) == ([0.5] * 3, [0.5] * 3)
    expected = model.preprocessing
    assert (expected.input_space, expected.input_range, expected.input_size) == ("RGB", (0, 1), 299)


def test_random_numbers_do_not_depend_on_the_rehearsal(hub_cache: Path) -> None:
    """Heads are initialised alike whether the backbone's weights are fetched or not."""
    torch.save(torchvision_state("resnet18"), hub_cache / "resnet18-f37072fd.pth")
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(TSN(5, T, "RGB", "resnet18"))
    assert models[0].new_fc.weight.equal(models[1].new_fc.weight)


def test_contradictions_are_found_before_anything_is_fetched(hub_cache: Path) -> None:
    with refused("num_segments must be from 2 to 20", "got 1"):
        TSN(5, 1, "RGB", "resnet18", consensus_type="TRNMultiscale")
    with pytest.raises(DownloadError, match="cannot download") as error:
        TSN(5, T, "RGB", "resnet18")
    assert str(hub_cache / "resnet18-f37072fd.pth") in str(error.value)


def published_file(hub_cache: Path, model: TSN, modality: str = "RGB", length: int = 1) -> Path:
    """Put a model's weights where its published ones would lie, in the original's format."""
    published = find_published("TSN", model.arch, modality, num_segments=8, new_length=length)
    path = hub_cache / published.file_name
    torch.save(original(model, "tsn"), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def published_tsn(hub_cache: Path) -> TSN:
    model = randomised(TSN((125, 352), 8, "RGB", "BNInception", pretrained=None))
    published_file(hub_cache, model)
    return model


@pytest.mark.essential
def test_published_weights(published_tsn: TSN, caplog: pytest.LogCaptureFixture) -> None:
    model = TSN([125, 352], 8, "rgb", "bninception", pretrained="epic-kitchens")
    expected = published_tsn.state_dict()
    ours = model.state_dict()
    assert list(ours) == list(expected)
    assert all(ours[name].equal(expected[name]) for name in ours)
    assert all(map(is_frozen, batch_norms(model)[1:]))
    assert model.training
    assert model.preprocessing == Preprocessing(
        mean=(104.0, 117.0, 128.0), std=(1.0,), input_space="BGR", input_range=(0.0, 255.0)
    )
    assert not caplog.records


@pytest.mark.parametrize("num_class", [(5, 352), (97, 300), 125])
def test_published_weights_with_other_classes(
    published_tsn: TSN, num_class: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = TSN(num_class, 8, "RGB", "BNInception", pretrained="epic-kitchens")
    assert "(125, 352)" in caplog.text
    assert str(num_class) in caplog.text
    assert any("the heads start anew" in sentence for sentence in model.load_report)
    expected = published_tsn.base_model.state_dict()
    assert all(
        tensor.equal(expected[name]) for name, tensor in model.base_model.state_dict().items()
    )
    heads = [module for module in model.children() if isinstance(module, nn.Linear)]
    assert len(heads) == (1 if num_class == 125 else 2)
    for head in heads:
        assert head.weight.std().item() == pytest.approx(0.001, rel=0.1)
        assert not head.bias.any()
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())
    model.eval()(torch.zeros(1, 24, 32, 32))


def test_published_flow_weights(hub_cache: Path) -> None:
    recorded = randomised(TSN((125, 352), 8, "Flow", "BNInception", pretrained=None))
    published_file(hub_cache, recorded, "Flow", 5)
    model = TSN((125, 352), 8, "Flow", "BNInception", pretrained="epic-kitchens")
    weight = model.base_model.conv1_7x7_s2.weight
    assert weight.equal(recorded.base_model.conv1_7x7_s2.weight)
    assert (model.input_mean, model.input_std) == ([128], [1])
    assert model.preprocessing.input_range == (0, 255)


@pytest.mark.parametrize(
    "options",
    [
        {"base_model": "resnet18"},
        {"num_segments": 16},
        {"modality": "RGBDiff"},
        {"modality": "Flow", "new_length": 3},
    ],
)
def test_configurations_without_published_weights(hub_cache: Path, options: dict) -> None:
    arguments = {"num_class": (125, 352), "num_segments": 8, "modality": "RGB", **options}
    with refused("no published weights", "TSN  resnet50    Flow", "MTRN BNInception RGB"):
        TSN(**arguments, pretrained="epic-kitchens")


def test_a_published_file_of_another_model(hub_cache: Path) -> None:
    other = TSN((125, 352), 8, "RGB", "resnet18", pretrained=None)
    path = (
        hub_cache / find_published("TSN", "resnet50", "RGB", num_segments=8, new_length=1).file_name
    )
    torch.save(original(other, "tsn"), path)
    with pytest.raises(CheckpointError, match="arch is 'resnet18' there, not 'resnet50'"):
        TSN((125, 352), 8, "RGB", "resnet50", pretrained="epic-kitchens")
