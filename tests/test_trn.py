"""TRN and MTRN: options, relations in the whole model, published weights."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub_cache import hub_cache_fixture  # noqa: F401 -- a fixture
from helpers.original_format import original
from helpers.small_models import randomised
from torch import Tensor

from ops.relation import MultiScaleRelation, TemporalRelation
from trn import MTRN, TRN
from tsn import TSN
from weights.published import find_published

T = 4
COMMON = [
    ("num_class", inspect.Parameter.empty),
    ("num_segments", inspect.Parameter.empty),
    ("modality", inspect.Parameter.empty),
    ("base_model", "resnet50"),
    ("new_length", None),
    ("before_softmax", True),
    ("dropout", 0.7),
    ("img_feature_dim", 256),
    ("partial_bn", True),
    ("pretrained", "imagenet"),
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(kind: type[TSN], num_class: Any = (5, 7), num_segments: int = T, **options: Any) -> Any:
    options = {"base_model": "resnet18", "img_feature_dim": 16, "pretrained": None, **options}
    return randomised(kind(num_class, num_segments, "RGB", **options))


def outputs(model: Callable[[Tensor], Any], num_segments: int = T) -> Any:
    inputs = torch.randn(2, num_segments * 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(inputs)


def test_signatures() -> None:
    for kind in (TRN, MTRN):
        parameters = [
            parameter
            for parameter in inspect.signature(kind).parameters.values()
            if parameter.kind is not parameter.KEYWORD_ONLY
        ]
        assert [(parameter.name, parameter.default) for parameter in parameters] == COMMON
    options = {
        parameter.name: parameter.default
        for parameter in inspect.signature(MTRN).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert options == {"relation_sampling": "expectation", "classifier_pairing": "published"}


@pytest.mark.parametrize(
    ("kind", "consensus_type", "consensus"),
    [(TRN, "TRN", TemporalRelation), (MTRN, "TRNMultiscale", MultiScaleRelation)],
)
@pytest.mark.parametrize("num_class", [5, (5, 7), [5, 7]])
def test_tasks_and_attributes(
    kind: type[TSN], consensus_type: str, consensus: type, num_class: Any
) -> None:
    model = make(kind, num_class)
    assert model.consensus_type == consensus_type
    assert type(model.consensus) is consensus
    assert (model.new_fc.in_features, model.new_fc.out_features) == (512, 16)
    scores = outputs(model)
    if num_class == 5:
        assert scores.shape == (2, 5)
    else:
        assert [task.shape for task in scores] == [(2, 5), (2, 7)]
        assert type(scores) is tuple


@pytest.mark.essential
@torch.no_grad()
def test_heads_see_the_reduced_features_in_order() -> None:
    for kind in (TRN, MTRN):
        model = make(kind)
        inputs = torch.randn(2, T * 3, 32, 32)
        features = model.features(inputs)
        assert features.shape == (2 * T, 512)
        expected = model.consensus(model.new_fc(features).view(2, T, 16))
        for one, other in zip(model(inputs), expected, strict=True):
            torch.testing.assert_close(one, other)
        # Another order of the segments is another clip.
        turned = inputs.view(2, T, 3, 32, 32).flip(1)
        assert not torch.allclose(model(turned)[0], model(inputs)[0])


def test_keys() -> None:
    names = [name for name in make(TRN, 5).state_dict() if not name.startswith("base_model.")]
    assert names == [
        f"{layer}.{kind}"
        for layer in ("new_fc", "consensus.pre_classifier.1", "consensus.classifiers.0")
        for kind in ("weight", "bias")
    ]
    names = [name for name in make(MTRN).state_dict() if not name.startswith("base_model.")]
    assert names == [
        f"{layer}.{kind}"
        for layer in (
            "new_fc",
            *(f"consensus.classifiers.{scale}.{task}" for scale in range(3) for task in (0, 1)),
            *(f"consensus.fc_fusion_scales.{scale}.1" for scale in range(3)),
        )
        for kind in ("weight", "bias")
    ]


@pytest.mark.parametrize("kind", [TRN, MTRN])
def test_probabilities_are_refused(kind: type[TSN]) -> None:
    with pytest.raises(ValueError, match="before_softmax=False"):
        kind(5, T, "RGB", before_softmax=False, pretrained=None)


def test_one_segment() -> None:
    assert outputs(make(TRN, 5, 1), 1).shape == (2, 5)
    with pytest.raises(ValueError, match=r"num_segments must be from 2 to 20 .* got 1$"):
        MTRN(5, 1, "RGB", base_model="resnet18", pretrained=None)


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [
        ("relation_sampling", "mean", "expectation, random"),
        ("relation_sampling", None, "expectation, random"),
        ("classifier_pairing", "original", "published, per-scale"),
    ],
)
def test_options_that_cannot_be(option: str, value: Any, valid: str, hub_cache: Path) -> None:
    with pytest.raises(ValueError, match=f"{option} must be one of {valid}, got {value!r}"):
        MTRN(5, T, "RGB", **{option: value})
    assert not list(hub_cache.iterdir())


@pytest.mark.essential
def test_evaluation_is_deterministic_unless_asked_otherwise() -> None:
    model = make(MTRN, num_segments=6)
    assert model.relation_sampling == "expectation"
    assert outputs(model, 6)[0].equal(outputs(model, 6)[0])
    model.relation_sampling = "random"
    torch.manual_seed(0)
    drawn = [outputs(model, 6)[0] for _ in range(4)]
    assert not all(one.equal(drawn[0]) for one in drawn)
    torch.manual_seed(0)
    assert outputs(model, 6)[0].equal(drawn[0])
    model.relation_sampling = "expectation"
    assert outputs(model, 6)[0].equal(outputs(model, 6)[0])
    with pytest.raises(ValueError, match="relation_sampling must be one of"):
        model.relation_sampling = "never"


def test_training_draws() -> None:
    model = make(MTRN, num_segments=6)
    model.consensus.train()
    drawn = [outputs(model, 6)[0] for _ in range(4)]
    assert not all(one.equal(drawn[0]) for one in drawn)


def test_random_sampling_from_the_start() -> None:
    model = make(MTRN, relation_sampling="Random")
    assert model.relation_sampling == model.consensus.sampling == "random"


def test_classifier_pairing() -> None:
    published, per_scale = make(MTRN), make(MTRN, classifier_pairing="per-scale")
    assert published.classifier_pairing == "published"
    assert per_scale.classifier_pairing == per_scale.consensus.classifier_pairing == "per-scale"
    assert not torch.allclose(outputs(published)[0], outputs(per_scale)[0])
    # With the classifiers moved up by one they are the same network.
    classifiers = per_scale.consensus.classifiers
    for scale in (2, 1):
        classifiers[scale].load_state_dict(classifiers[scale - 1].state_dict())
    torch.testing.assert_close(outputs(published), outputs(per_scale))


def test_sixteen_segments() -> None:
    assert outputs(make(MTRN, num_segments=16), 16)[1].isfinite().all()


@pytest.mark.parametrize("kind", [TRN, MTRN])
def test_every_parameter_learns_but_the_frozen_and_the_unused_is_one(kind: type[TSN]) -> None:
    model = kind(
        (5, 7), T, "RGB", base_model="resnet18", img_feature_dim=16, dropout=0.0, pretrained=None
    )
    sum(task.square().sum() for task in model(torch.randn(2, T * 3, 64, 64))).backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == frozen
    unused = {
        f"consensus.classifiers.2.{task}.{part}" for task in (0, 1) for part in ("weight", "bias")
    }
    of_heads = {name for name in frozen if not name.startswith("base_model.")}
    assert of_heads == (unused if kind is MTRN else set())


def test_classifiers_of_no_scale_stay_frozen_when_all_is_thawed() -> None:
    model = MTRN(5, T, "RGB", base_model="resnet18", pretrained=None)
    model.requires_grad_(False).requires_grad_(True).train()
    unused, used = model.consensus.classifiers[-1], model.consensus.classifiers[-2]
    assert not any(parameter.requires_grad for parameter in unused.parameters())
    assert all(parameter.requires_grad for parameter in used.parameters())


@pytest.mark.parametrize("kind", [TRN, MTRN])
def test_optimiser_groups_hold_the_relation_layers(kind: type[TSN]) -> None:
    model = make(kind)
    groups = {group["name"]: group["params"] for group in model.get_optim_policies()}
    weights, biases = (set(map(id, groups[name])) for name in ("normal_weight", "normal_bias"))
    for name, parameter in model.consensus.named_parameters():
        assert id(parameter) in (weights if name.endswith("weight") else biases)


@pytest.mark.essential
@pytest.mark.parametrize(("kind", "variant"), [(TRN, "TRN"), (MTRN, "MTRN")])
@pytest.mark.parametrize("num_class", [(125, 352), 11])
def test_published_weights(hub_cache: Path, kind: type[TSN], variant: str, num_class: Any) -> None:
    recorded = randomised(kind((125, 352), 8, "RGB", "BNInception", pretrained=None))
    name = find_published(variant, "BNInception", "RGB", num_segments=8, new_length=1).file_name
    torch.save(original(recorded, variant.lower()), hub_cache / name)
    model = kind(num_class, 8, "RGB", "BNInception", pretrained="epic-kitchens")
    expected, ours = recorded.state_dict(), model.state_dict()
    kept = [
        key
        for key in ours
        if num_class == (125, 352) or not key.startswith("consensus.classifiers.")
    ]
    assert "new_fc.weight" in kept
    assert all(ours[key].equal(expected[key]) for key in kept)
    if num_class == 11:
        for key in set(ours) - set(kept):
            assert 0 < ours[key].abs().max() < 0.1  # PyTorch's default, not the file's
    assert all(tensor.device.type == "cpu" for tensor in model.buffers())
    scores = model.eval()(torch.randn(1, 24, 32, 32))
    assert (scores if num_class == 11 else scores[0]).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [(TRN, "img_feature_dim", 128), (MTRN, "classifier_pairing", "per-scale")],
)
def test_published_weights_fix_the_arithmetic(
    hub_cache: Path, kind: type[TSN], option: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"{option} must be .* for the published weights"):
        kind((125, 352), 8, "RGB", pretrained="epic-kitchens", **{option: value})
    assert not list(hub_cache.iterdir())
