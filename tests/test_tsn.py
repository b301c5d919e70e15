"""TSN: options, inputs in all layouts, partial batch norm, optimiser groups, weights."""

import copy
import dataclasses
import doctest
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hub_cache import hub_cache_fixture, torchvision_state  # noqa: F401 -- a fixture
from helpers.original_format import original
from helpers.small_models import assert_close, randomised
from torch import nn

from checkpoints.files import CheckpointError
from data.preprocessing import Preprocessing
from model_loader import load_checkpoint, save_checkpoint
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN
from weights.download import DownloadError
from weights.published import find_published

T = 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(
    num_class: Any = (5, 7), num_segments: int = T, modality: str = "RGB", **options: Any
) -> TSN:
    """A small model, evaluating, with weights and statistics that are not the initial ones."""
    model = TSN(
        num_class,
        num_segments,
        modality,
        **{"base_model": "resnet18", "pretrained": None, **options},
    )
    return randomised(model)


@contextmanager
def refused(*parts: object) -> Iterator[None]:
    """A ValueError whose message has all of these parts."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- the message is looked at below
        yield
    for part in parts:
        assert str(part) in str(error.value)
    assert not isinstance(error.value.__cause__, TypeError | RuntimeError)


@pytest.fixture(scope="module")
def tsn() -> TSN:
    """Two tasks; not to be changed."""
    return make()


# Options


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
    model = make(num_class)
    assert model.num_class == (5, 7)
    assert type(model.num_class) is tuple
    assert (model.fc_verb.out_features, model.fc_noun.out_features) == (5, 7)
    verbs, nouns = model(torch.randn(2, T * 3, 32, 32))
    assert (verbs.shape, nouns.shape) == ((2, 5), (2, 7))


@pytest.mark.parametrize("num_class", [5, np.int32(5)])
def test_one_task(num_class: Any) -> None:
    model = make(num_class)
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
    model = make(modality=given)
    assert (model.modality, model.new_length) == (canonical, length)
    assert model.base_model.conv1.in_channels == channels


def test_canonical_spellings() -> None:
    model = make(base_model="bninception", consensus_type="MAX")
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


# Arithmetic


@pytest.mark.essential
@torch.no_grad()
@pytest.mark.parametrize("consensus", ["avg", "max", "identity"])
@pytest.mark.parametrize("num_class", [5, (5, 7)])
def test_consensus(consensus: str, num_class: Any) -> None:
    model = make(num_class, consensus_type=consensus)
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
    model = make(num_class, before_softmax=False)
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
    model = make(num_class, consensus_type=consensus, img_feature_dim=16)
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
    model = make(5, 2, "RGBDiff", base_model=base_model, new_length=length)
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
def test_flow_channels_are_frame_major() -> None:
    model = make(modality="Flow", new_length=2)
    frames = torch.randn(1, T, 2, 2, 32, 32)
    u_and_v = [frames[:, t, frame, axis] for t in range(T) for frame in (0, 1) for axis in (0, 1)]
    assert_close(model(torch.stack(u_and_v, dim=1)), model(frames))


@torch.no_grad()
def test_dropout_takes_the_place_of_the_classifier() -> None:
    model = make(dropout=0.4)
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


# Layouts


@pytest.mark.essential
@torch.no_grad()
def test_crops_count_as_clips(tsn: TSN) -> None:
    crops = torch.randn(2, 10, T * 3, 32, 32)
    verbs, nouns = tsn(crops.flatten(1, 2))
    assert (verbs.shape, nouns.shape) == ((20, 5), (20, 7))
    for crop in range(10):
        assert_close((verbs[crop::10], nouns[crop::10]), tsn(crops[:, crop]))


@torch.no_grad()
@pytest.mark.parametrize("snippets", [1, 2, T, 7])
def test_features_of_any_number_of_snippets(tsn: TSN, snippets: int) -> None:
    six = torch.randn(2, snippets, 1, 3, 32, 32)
    expected = tsn.base_model(six.flatten(0, 2))
    assert expected.shape == (2 * snippets, 512)
    for inputs in (six, six.flatten(2, 3), six.flatten(1, 3), six.reshape(-1, 3, 32, 32)):
        assert_close(tsn.features(inputs), expected)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 8, 32, 32), "(N, 9, H, W) = 3 segments x 1 frame x 3 channels"),
        ((1, 3, 32, 32), "(N, 9, H, W)"),
        ((1, 12, 32, 32), "(N, 9, H, W)"),
        ((9, 32, 32), "(N, 9, H, W)"),
        ((1, 2, 3, 32, 32), "(N, 3, 3, H, W)"),
        ((1, 6, 3, 32, 32), "(N, 3, 3, H, W)"),
        ((1, 3, 9, 32, 32), "(N, 3, 3, H, W)"),
        ((1, 3, 1, 2, 32, 32), "(N, 3, 1, 3, H, W)"),
        ((1, 3, 2, 3, 32, 32), "(N, 3, 1, 3, H, W)"),
        ((1, 2, 1, 3, 32, 32), "(N, 3, 1, 3, H, W)"),
        ((1, 1, 3, 1, 3, 32, 32), "(N, 3, 1, 3, H, W)"),
        ((), "(N, 9, H, W)"),
        ((0, 9, 32, 32), "must not be empty"),
        ((1, 0, 32, 32), "must not be empty"),
        ((1, 9, 0, 32), "must not be empty"),
        ((0, 3, 1, 3, 32, 32), "must not be empty"),
    ],
)
def test_shapes_that_do_not_fit(tsn: TSN, shape: tuple[int, ...], expected: str) -> None:
    with refused(expected, f"got {shape}"):
        tsn(torch.zeros(shape))


@pytest.mark.parametrize(
    "shape", [(1, 8, 32, 32), (1, 4, 2, 32, 32), (1, 4, 2, 3, 32, 32), (3, 32, 32)]
)
def test_features_of_shapes_that_do_not_fit(tsn: TSN, shape: tuple[int, ...]) -> None:
    with refused("(N, T*3, H, W) = T segments x 1 frame x 3 channels", f"got {shape}"):
        tsn.features(torch.zeros(shape))


def test_flow_shapes_show_their_frames() -> None:
    with torch.device("meta"):
        model = TSN(5, 8, "Flow", base_model="resnet18", pretrained=None)
    with refused("(N, 80, H, W) = 8 segments x 5 frames x 2 channels", "got (1, 24, 32, 32)"):
        model(torch.zeros(1, 24, 32, 32))
    with refused("(N, 8, 10, H, W)", "(N, 8, 5, 2, H, W)", "got (1, 7, 10, 32, 32)"):
        model(torch.zeros(1, 7, 10, 32, 32))


def test_one_segment_means_exactly_one() -> None:
    model = make(5, 1)
    assert model(torch.zeros(2, 1, 3, 32, 32)).shape == (2, 5)
    for shape in ((2, 4, 3, 32, 32), (2, 4, 1, 3, 32, 32)):
        with refused("1 segment x 1 frame x 3 channels", f"got {shape}"):
            model(torch.zeros(shape))


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        (torch.zeros(1, 9, 32, 32, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 9, 32, 32, dtype=torch.int64), "torch.int64"),
        (torch.zeros(1, 9, 32, 32, dtype=torch.bool), "torch.bool"),
        (np.zeros((1, 9, 32, 32), dtype=np.float32), "ndarray"),
        ([torch.zeros(9, 32, 32)], "list"),
        (None, "NoneType"),
    ],
)
def test_inputs_that_are_no_floating_point_tensors(tsn: TSN, inputs: Any, kind: str) -> None:
    for function in (tsn, tsn.features):
        with refused("floating-point", f"got {kind}", "evaluation_transform"):
            function(inputs)


def test_sparse_inputs_are_named(tsn: TSN) -> None:
    with refused("inputs must be a dense tensor", "torch.sparse_coo", "inputs.to_dense()"):
        tsn(torch.randn(1, T * 3, 32, 32).to_sparse())


@pytest.mark.parametrize(
    ("features", "got"),
    [
        (torch.zeros(T + 1, 512), "(4, 512)"),
        (torch.zeros(0, 512), "(0, 512)"),
        (torch.zeros(T, 511), "(3, 511)"),
        (torch.zeros(1, T, 512), "(1, 3, 512)"),
        (torch.zeros(512), "(512,)"),
        (torch.zeros(T, 512, dtype=torch.int32), "torch.int32"),
        ([0.0], "list"),
    ],
)
def test_features_that_do_not_fit(tsn: TSN, features: Any, got: str) -> None:
    with refused("features", f"got {got}"):
        tsn.logits(features)


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
    model = make()
    model.base_model.last_linear = nn.Identity()
    assert model.dropout == 0
    with refused("dropout cannot be set: base_model.last_linear is Identity()"):
        model.dropout = 0.5


def test_dropout_can_be_set_and_is_saved(tmp_path: Path) -> None:
    model = make(dropout=0.5)
    model.dropout = 0.2
    assert model.base_model.last_linear.p == 0.2
    with refused("dropout must be a probability", 7):
        model.dropout = 7
    assert load_checkpoint(save_checkpoint(model, tmp_path / "m.pth.tar")).dropout == 0.2


# Training


def batch_norms(model: TSN) -> list[nn.BatchNorm2d]:
    modules = model.base_model.modules()
    return [module for module in modules if isinstance(module, nn.BatchNorm2d)]


def frozen(batch_norm: nn.BatchNorm2d) -> bool:
    states = {
        batch_norm.training,
        batch_norm.weight.requires_grad,
        batch_norm.bias.requires_grad,
    }
    assert len(states) == 1
    return not states.pop()


@pytest.mark.essential
@pytest.mark.parametrize("base_model", ["resnet18", "BNInception", "vgg11_bn"])
def test_partial_batch_norm_holds_from_the_start_and_whenever_training(base_model: str) -> None:
    with torch.device("meta"):
        model = TSN(5, T, "RGB", base_model=base_model, pretrained=None)
    first, *others = batch_norms(model)
    assert others
    assert model.training
    for _ in range(2):
        assert not frozen(first)
        assert all(map(frozen, others))
        assert model.eval() is model
        assert not any(batch_norm.training for batch_norm in batch_norms(model))
        assert model.train() is model
    assert model.train(False) is model
    assert not model.training


def test_partial_batch_norm_can_be_undone() -> None:
    model = make().train()
    first, *others = batch_norms(model)
    model.partialBN(False)
    for _ in range(2):
        assert not any(map(frozen, [first, *others]))
        model.train()
    model.partialBN(True)
    assert all(map(frozen, others))
    assert not frozen(first)
    # In evaluation mode nothing starts to train.
    model.eval().partialBN(False)
    assert not any(batch_norm.training for batch_norm in [first, *others])
    assert not any(map(frozen, batch_norms(model.train())))


def test_without_partial_batch_norm() -> None:
    model = make(partial_bn=False).train()
    assert not any(map(frozen, batch_norms(model)))
    # What a user froze stays so.
    chosen = batch_norms(model)[3]
    chosen.weight.requires_grad_(False)
    model.partialBN(False)
    model.train()
    assert not chosen.weight.requires_grad


def test_partial_batch_norm_touches_nothing_else() -> None:
    model = make()
    chosen = [model.base_model.conv1.weight, batch_norms(model)[0].bias, model.fc_verb.bias]
    for parameter in chosen:
        parameter.requires_grad_(False)
    model.train().partialBN(False)
    model.partialBN(True)
    model.eval().train()
    assert not any(parameter.requires_grad for parameter in chosen)
    assert model.fc_noun.bias.requires_grad


@pytest.mark.parametrize("options", [{}, {"non_local": True, "temporal_pool": True}])
def test_partial_batch_norm_outlives_a_conversion_to_sync_batch_norm(options: Any) -> None:
    def state(model: TSN) -> dict[str, tuple[bool, bool]]:
        """Of every batch norm, whether it trains and whether its scale learns."""
        return {
            name: (module.training, module.weight.requires_grad)
            for name, module in model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        }

    def groups(model: TSN) -> list[list[int]]:
        return [[id(p) for p in group["params"]] for group in model.get_optim_policies()]

    kind = TSM if options else TSN
    model = kind(5, 4, "RGB", "resnet18", pretrained=None, **options)
    expected, parameters = state(model), groups(model)
    assert {(True, True), (False, False)} == set(expected.values())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(converted.base_model.bn1, nn.SyncBatchNorm)
    assert state(converted.eval().train()) == expected
    assert groups(converted) == parameters
    converted.partialBN(False)
    assert set(state(converted).values()) == {(True, True)}
    converted.partialBN(True)
    assert state(converted) == expected


@pytest.mark.parametrize(
    ("options", "said"), [({}, 1), ({"partial_bn": False}, 0), ({"base_model": "vgg11"}, 0)]
)
def test_frozen_statistics_of_fresh_layers_are_named_once(
    options: Any, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = TSN(5, T, "RGB", **{"base_model": "resnet18", "pretrained": None, **options})
    clips = torch.randn(1, T * 3, 64, 64)
    model.eval()(clips)
    assert not caplog.records
    for _ in range(2):
        model.train()(clips)
        replica = model._replicate_for_data_parallel()  # new ones at each step of DataParallel
        assert replica._training_began == [True]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * said
    assert all("pretrained='imagenet'" in record.message for record in caplog.records)


def test_models_without_values_train_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    models = [TSN(5, T, "RGB", "resnet18", pretrained=None).train() for _ in range(2)]
    stacked = torch.func.stack_module_state(models)
    clips = torch.randn(2, 1, T * 3, 32, 32)

    def run(parameters: Any, buffers: Any, clip: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(models[0], (parameters, buffers), (clip,))

    models[0].base_model.bn1.eval()  # which would write its statistics
    assert torch.vmap(run, randomness="different")(*stacked, clips).shape == (2, 1, 5)
    assert not caplog.records


def test_statistics_of_trained_layers_need_no_word(caplog: pytest.LogCaptureFixture) -> None:
    make().train()(torch.randn(1, T * 3, 64, 64))
    assert not caplog.records


def test_a_step_of_training_keeps_frozen_statistics() -> None:
    torch.manual_seed(0)
    model = make(dropout=0.0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = [
        {**group, "lr": 1e-6 * group["lr_mult"]}
        for group in model.get_optim_policies()
        if group["params"]
    ]
    optimizer = torch.optim.SGD(groups, lr=1e-6)
    verbs, nouns = model(torch.randn(2, T * 3, 64, 64))
    (verbs.logsumexp(1) + nouns.logsumexp(1)).sum().backward()
    optimizer.step()
    changed = {
        name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    }
    frozen_names = {
        name
        for name in before
        if (".bn" in name or "downsample.1" in name) and not name.startswith("base_model.bn1.")
    }
    assert not changed & frozen_names
    assert {"base_model.bn1.running_mean", "base_model.conv1.weight", "fc_verb.weight"} <= changed


GROUPS = ["first_conv_weight", "first_conv_bias", "normal_weight", "normal_bias", "BN scale/shift"]


@pytest.mark.essential
@pytest.mark.parametrize("modality", ["RGB", "Flow", "RGBDiff"])
@pytest.mark.parametrize("base_model", ["resnet18", "BNInception", "vgg11_bn", "inceptionv3"])
def test_optimiser_groups(base_model: str, modality: str) -> None:
    with torch.device("meta"):
        model = TSN((5, 7), T, modality, base_model=base_model, pretrained=None)
    groups = {group["name"]: group for group in model.get_optim_policies()}
    assert list(groups) == GROUPS
    five = 5 if modality == "Flow" else 1
    assert [(group["lr_mult"], group["decay_mult"]) for group in groups.values()] == [
        (five, 1), (2 * five, 0), (1, 1), (2, 0), (1, 0)
    ]  # fmt: skip
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert [id(p) for p in groups["first_conv_weight"]["params"]] == [id(first.weight)]
    assert len(groups["first_conv_bias"]["params"]) == (first.bias is not None)
    for enabled in (True, False):
        model.partialBN(enabled)
        listed = [id(p) for group in model.get_optim_policies() for p in group["params"]]
        assert len(listed) == len(set(listed))
        assert set(listed) == {id(p) for p in model.parameters() if p.requires_grad}
    scales = {id(p) for bn in batch_norms(model) for p in bn.parameters()}
    [last] = [g for g in model.get_optim_policies() if g["name"] == "BN scale/shift"]
    assert {id(p) for p in last["params"]} == scales


# Weights


def test_the_example_of_optimiser_groups_runs() -> None:
    text = inspect.cleandoc(TSN.get_optim_policies.__doc__ or "")
    example = doctest.DocTestParser().get_doctest(text, {"torch": torch}, "groups", None, None)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_imagenet_is_the_default_and_comes_from_the_cache(hub_cache: Path) -> None:
    state = torchvision_state("resnet18")
    torch.save(state, hub_cache / "resnet18-f37072fd.pth")
    model = TSN((5, 7), T, "RGB", "resnet18")
    ours = model.base_model.state_dict()
    assert set(ours) == {name for name in state if not name.startswith("fc.")}
    assert all(ours[name].equal(state[name]) for name in ours)
    assert isinstance(model.base_model.last_linear, nn.Dropout)
    assert model.fc_verb.weight.abs().max() < 0.01
    assert all(map(frozen, batch_norms(model)[1:]))
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
    assert all(map(frozen, batch_norms(model)[1:]))
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


def test_preprocessing_is_a_value() -> None:
    model = make()
    model.input_mean[0] = 7
    assert model.input_mean[0] == 0.485
    model.preprocessing = dataclasses.replace(model.preprocessing, input_size=112)
    assert (model.input_size, model.crop_size) == (112, 112)
