"""TSN: options, attributes, heads, consensus."""

import copy
import dataclasses
import inspect
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_models import assert_close
from helpers.small_tsn import refused, small_tsn
from torch import nn

from model_loader import load_checkpoint, save_checkpoint
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

T = 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_signature() -> None:
    parameters = inspect.signature(TSN).parameters.values()
    assert [(parameter.name, parameter.default) for parameter in parameters] == [
        ("num_class", inspect.Parameter.empty),
        ("num_segments", inspect.Parameter.empty),
        ("modality", inspect.Parameter.empty),
        ("base_model", "resnet50"),
        ("new_length", None),
        ("consensus_type", "avg"),
        ("before_softmax", True),
        ("dropout", 0.7),
        ("img_feature_dim", 256),
        ("partial_bn", True),
        ("pretrained", "imagenet"),
    ]
    assert all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)


@pytest.mark.essential
@pytest.mark.parametrize("num_class", [(5, 7), [5, 7], (np.int64(5), np.int64(7))])
def test_two_tasks(num_class: Any) -> None:
    model = small_tsn(num_class)
    assert model.num_class == (5, 7)
    assert type(model.num_class) is tuple
    assert (model.fc_verb.out_features, model.fc_noun.out_features) == (5, 7)
    verbs, nouns = model(torch.randn(2, T * 3, 32, 32))
    assert (verbs.shape, nouns.shape) == ((2, 5), (2, 7))


@pytest.mark.parametrize("num_class", [5, np.int32(5)])
def test_one_task(num_class: Any) -> None:
    model = small_tsn(num_class)
    assert model.num_class == 5
    assert model.new_fc.out_features == 5
    assert not hasattr(model, "fc_verb")
    assert model(torch.randn(2, T * 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    "num_class", [0, -1, (5,), (5, 7, 9), "57", 5.0, None, (5, 0), True, [5, "7"]]
)
def test_numbers_of_classes_that_cannot_be(num_class: Any) -> None:
    with refused("num_class", "got"):
        TSN(num_class, T, "RGB", pretrained=None)


@pytest.mark.parametrize(
    ("given", "canonical", "length", "channels"),
    [("rgb", "RGB", 1, 3), ("RGB", "RGB", 1, 3), ("FLOW", "Flow", 5, 10), ("flow", "Flow", 5, 10),
     ("rgbdiff", "RGBDiff", 5, 15), ("RgbDiff", "RGBDiff", 5, 15)],
)  # fmt: skip
def test_modalities_in_any_case(given: str, canonical: str, length: int, channels: int) -> None:
    model = small_tsn(modality=given)
    assert (model.modality, model.new_length) == (canonical, length)
    assert model.base_model.conv1.in_channels == channels


def test_canonical_spellings() -> None:
    model = small_tsn(base_model="bninception", consensus_type="MAX")
    assert (model.arch, model.consensus_type) == ("BNInception", "max")


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [
        ("modality", "audio", "RGB, Flow, RGBDiff"),
        ("modality", None, "RGB, Flow, RGBDiff"),
        ("base_model", "resnet1", "resnet50"),
        ("consensus_type", "mean", "avg, max, identity, TRN, TRNMultiscale"),
        ("pretrained", "kinetics", "epic-kitchens"),
        ("pretrained", True, "imagenet"),
        ("num_segments", 0, "positive integer"),
        ("num_segments", 8.0, "positive integer"),
        ("num_segments", "8", "positive integer"),
        ("new_length", 0, "positive integer"),
        ("new_length", 5, "1 for modality RGB"),
        ("dropout", 1.5, "from 0 to 1"),
        ("dropout", -0.1, "from 0 to 1"),
        ("dropout", float("nan"), "from 0 to 1"),
        ("dropout", "0.5", "from 0 to 1"),
        ("dropout", None, "from 0 to 1"),
        ("img_feature_dim", 0, "positive integer"),
    ],
)
def test_options_that_cannot_be(option: str, value: Any, valid: str) -> None:
    options = {"num_class": 5, "num_segments": T, "modality": "RGB", "pretrained": None}
    with refused(option, valid, f"got {value!r}"):
        TSN(**{**options, option: value})


def test_defaults() -> None:
    with torch.device("meta"):
        model = TSN(5, 8, "RGB", pretrained=None)
    assert (model.arch, model.consensus_type, model.before_softmax) == ("resnet50", "avg", True)
    assert (model.dropout, model.img_feature_dim) == (0.7, 256)
    assert model.training


@pytest.mark.parametrize(
    ("base_model", "width", "size", "scale", "mean", "std", "space", "high"),
    [
        ("resnet18", 512, 224, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "RGB", 1),
        ("resnet50", 2048, 224, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "RGB", 1),
        ("vgg16", 4096, 224, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "RGB", 1),
        ("BNInception", 1024, 224, 256, [104, 117, 128], [1], "BGR", 255),
        ("inceptionv3", 2048, 299, 341, [104, 117, 128], [1], "BGR", 255),
    ],
)
def test_attributes(
    base_model: str, width: int, size: int, scale: int, mean: list, std: list, space: str, high: int
) -> None:
    with torch.device("meta"):
        model = TSN((5, 7), 4, "RGB", base_model=base_model, pretrained=None)
        flow = TSN((5, 7), 4, "Flow", base_model=base_model, pretrained=None)
    assert (model.arch, model.feature_dim) == (base_model, width)
    assert (model.input_size, model.crop_size, model.scale_size) == (size, size, scale)
    assert (model.input_mean, model.input_std) == (mean, std)
    expected = model.preprocessing
    assert (expected.input_space, expected.input_range) == (space, (0, high))
    assert (flow.input_mean, flow.input_std) == (([128], [1]) if high == 255 else ([0.5], [0.226]))
    assert model(torch.empty(1, 4 * 3, size, size, device="meta"))[0].shape == (1, 5)
    assert flow(torch.empty(1, 4 * 10, size, size, device="meta"))[1].shape == (1, 7)


@pytest.mark.parametrize("base_model", ["se_resnet50", "cafferesnet101", "nasnetamobile", "dpn68"])
def test_other_architectures_through_the_generic_path(base_model: str) -> None:
    with torch.device("meta"):
        model = TSN((5, 7), 2, "Flow", base_model=base_model, new_length=3, pretrained=None).eval()
    size = model.input_size
    verbs, _ = model(torch.empty(1, 2 * 3 * 2, size, size, device="meta"))
    assert verbs.shape == (1, 5)
    assert model.input_mean == ([128] if base_model == "cafferesnet101" else [0.5])


def test_heads_start_small() -> None:
    torch.manual_seed(0)
    model = TSN((400, 300), T, "RGB", base_model="resnet18", pretrained=None)
    for head in (model.fc_verb, model.fc_noun):
        assert head.weight.std().item() == pytest.approx(0.001, rel=0.02)
        assert not head.bias.any()
    relational = TSN(9, T, "RGB", base_model="resnet18", consensus_type="TRN", pretrained=None)
    assert relational.new_fc.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert not relational.new_fc.bias.any()
    # PyTorch's default: uniform in +-1/sqrt(fan_in).
    first = relational.consensus.pre_classifier[1].weight
    bound = (T * 256) ** -0.5
    assert first.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert first.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.essential
@torch.no_grad()
@pytest.mark.parametrize("consensus", ["avg", "max", "identity"])
@pytest.mark.parametrize("num_class", [5, (5, 7)])
def test_consensus(consensus: str, num_class: Any) -> None:
    model = small_tsn(num_class, consensus_type=consensus)
    inputs = torch.randn(2, T * 3, 32, 32)
    features = model.features(inputs)
    assert features.shape == (2 * T, 512)
    heads = [model.new_fc] if num_class == 5 else [model.fc_verb, model.fc_noun]
    scores = [head(features).view(2, T, -1) for head in heads]
    agree = {"avg": lambda s: s.mean(1), "max": lambda s: s.max(1).values, "identity": lambda s: s}
    expected = tuple(agree[consensus](score) for score in scores)
    assert_close(model(inputs), expected if num_class != 5 else expected[0])
    assert_close(model.logits(features), expected if num_class != 5 else expected[0])


@torch.no_grad()
@pytest.mark.parametrize("num_class", [5, (5, 7)])
def test_softmax_before_consensus(num_class: Any) -> None:
    model = small_tsn(num_class, before_softmax=False)
    for head in (module for module in model.children() if isinstance(module, nn.Linear)):
        head.weight.mul_(0.01)  # away from probabilities of 0 and 1
    inputs = torch.randn(2, T * 3, 32, 32)
    features = model.features(inputs)
    heads = [model.new_fc] if num_class == 5 else [model.fc_verb, model.fc_noun]
    expected = [head(features).view(2, T, -1).softmax(-1).mean(1) for head in heads]
    outputs = model(inputs)
    assert_close(outputs if num_class != 5 else (outputs,), tuple(expected))
    for probabilities in outputs if num_class != 5 else [outputs]:
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))


@pytest.mark.parametrize("consensus", ["max", "identity", "TRN", "TRNMultiscale"])
def test_softmax_goes_with_the_average_alone(consensus: str) -> None:
    with refused("before_softmax", "'avg'", repr(consensus)):
        TSN(5, T, "RGB", consensus_type=consensus, before_softmax=False, pretrained=None)


@torch.no_grad()
@pytest.mark.parametrize(
    ("consensus", "kind"),
    [("TRN", TRN), ("trn", TRN), ("TRNMultiscale", MTRN), ("trnmultiscale", MTRN)],
)
@pytest.mark.parametrize("num_class", [5, (5, 7)])
def test_relational_consensus(consensus: str, kind: type[TSN], num_class: Any) -> None:
    model = small_tsn(num_class, consensus_type=consensus, img_feature_dim=16)
    twin = kind(num_class, T, "RGB", "resnet18", img_feature_dim=16, pretrained=None).eval()
    twin.load_state_dict(model.state_dict())
    assert model.consensus_type == twin.consensus_type
    inputs = torch.randn(2, T * 3, 32, 32)
    assert_close(model(inputs), twin(inputs))


@pytest.mark.essential
@torch.no_grad()
@pytest.mark.parametrize("base_model", ["resnet18", "BNInception"])
def test_rgb_differences(base_model: str) -> None:
    length = 2
    model = small_tsn(5, 2, "RGBDiff", base_model=base_model, new_length=length)
    assert model.frames_per_snippet == length + 1
    # Two clips of two snippets of three frames.
    frames = torch.randn(2, 2, length + 1, 3, 32, 32)
    differences = torch.empty(4, length * 3, 32, 32)
    for clip in range(2):
        for segment in range(2):
            for t in range(length):
                difference = frames[clip, segment, t + 1] - frames[clip, segment, t]
                differences[2 * clip + segment, 3 * t : 3 * t + 3] = difference
    expected = model.base_model(differences)
    assert_close(model.features(frames), expected)
    assert_close(model(frames.flatten(1, 3)), model.logits(expected))
    mean, std = model.input_mean, model.input_std
    if base_model == "BNInception":
        assert (mean, std) == ([104, 117, 128] * (1 + length), [1])
    else:
        assert mean == [0.485, 0.456, 0.406] + [0] * 3 * length
        assert std == pytest.approx([0.229, 0.224, 0.225] + [0.452] * 3 * length)


@torch.no_grad()
def test_dropout_takes_the_place_of_the_classifier() -> None:
    model = small_tsn(dropout=0.4)
    assert isinstance(model.base_model.last_linear, nn.Dropout)
    assert model.base_model.last_linear.p == 0.4
    inputs = torch.rand(4, T * 3, 32, 32)
    without = model.features(inputs)
    model.base_model.last_linear.train()
    torch.manual_seed(0)
    features = model.features(inputs)
    dropped = (features == 0) & (without != 0)
    assert dropped.sum() / (without != 0).sum() == pytest.approx(0.4, abs=0.05)
    assert_close(features[~dropped], without[~dropped] / 0.6)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (TSN, "num_class", 3),
        (TSN, "num_segments", 16),
        (TSN, "modality", "Flow"),
        (TSN, "arch", "resnet34"),
        (TSN, "new_length", 5),
        (TSN, "consensus_type", "max"),
        (TSN, "before_softmax", False),
        (TRN, "img_feature_dim", 128),
        (partial(TSN, consensus_type="TRNMultiscale"), "classifier_pairing", "per-scale"),
        (MTRN, "classifier_pairing", "per-scale"),
        (TSM, "shift_div", 4),
        (TSM, "shift_place", "block"),
        (TSM, "shift_every", 2),
        (TSM, "shift_direction", "past"),
        (TSM, "temporal_pool", True),
        (TSM, "non_local", True),
    ],
)
def test_what_was_built_in_cannot_be_set(kind: type[TSN], option: str, value: Any) -> None:
    with torch.device("meta"):
        model = kind((5, 7), 4, "RGB", "resnet18", pretrained=None)
    built = getattr(model, option)
    for twin in (model, copy.deepcopy(model)):
        with pytest.raises(AttributeError, match=f"{option} is .* for good"):
            setattr(twin, option, value)
        assert getattr(twin, option) == built
        setattr(twin, option, built)


def test_dropout_of_a_model_without_that_layer() -> None:
    model = small_tsn()
    model.base_model.last_linear = nn.Identity()
    assert model.dropout == 0
    with refused("dropout cannot be set: base_model.last_linear is Identity()"):
        model.dropout = 0.5


def test_dropout_can_be_set_and_is_saved(tmp_path: Path) -> None:
    model = small_tsn(dropout=0.5)
    model.dropout = 0.2
    assert model.base_model.last_linear.p == 0.2
    with refused("dropout must be a number from 0 to 1", 7):
        model.dropout = 7
    assert load_checkpoint(save_checkpoint(model, tmp_path / "m.pth.tar")).dropout == 0.2


def test_preprocessing_is_a_value() -> None:
    model = small_tsn()
    model.input_mean[0] = 7
    assert model.input_mean[0] == 0.485
    model.preprocessing = dataclasses.replace(model.preprocessing, input_size=112)
    assert (model.input_size, model.crop_size) == (112, 112)
