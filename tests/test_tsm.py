"""TSM: where it shifts, pools and attends in the whole model, and what it refuses."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub_cache import hub_cache_fixture, torchvision_state  # noqa: F401 -- a fixture
from helpers.original_format import original
from helpers.small_models import assert_close, randomised
from torch import Tensor, nn

from ops.temporal_shift import TemporalShift
from tsm import TSM
from tsn import TSN
from weights.published import find_published

T = 4


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(num_class: Any = (5, 7), num_segments: int = T, **options: Any) -> TSM:
    options = {"base_model": "resnet18", "pretrained": None, **options}
    return randomised(TSM(num_class, num_segments, "RGB", **options))


def on_meta(**options: Any) -> TSM:
    options = {"base_model": "resnet18", "pretrained": None, **options}
    with torch.device("meta"):
        return TSM((5, 7), options.pop("num_segments", T), "RGB", **options)


def test_signature() -> None:
    parameters = inspect.signature(TSM).parameters.values()
    assert [
        (parameter.name, parameter.default)
        for parameter in parameters
        if parameter.kind is not parameter.KEYWORD_ONLY
    ] == [
        ("num_class", inspect.Parameter.empty),
        ("num_segments", inspect.Parameter.empty),
        ("modality", inspect.Parameter.empty),
        ("base_model", "resnet50"),
        ("new_length", None),
        ("consensus_type", "avg"),
        ("before_softmax", True),
        ("dropout", 0.8),
        ("partial_bn", True),
        ("shift_div", 8),
        ("shift_place", "blockres"),
        ("fc_lr5", False),
        ("temporal_pool", False),
        ("non_local", False),
        ("pretrained", "imagenet"),
    ]
    assert [
        (parameter.name, parameter.default)
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    ] == [("shift_every", 1), ("shift_direction", "both")]


@pytest.mark.essential
@pytest.mark.parametrize("num_class", [5, (5, 7), [5, 7]])
@pytest.mark.parametrize("consensus", ["avg", "max", "identity"])
def test_tasks_and_consensus(num_class: Any, consensus: str) -> None:
    model = make(num_class, 2, consensus_type=consensus)
    scores = model(torch.randn(3, 2 * 3, 32, 32))
    shape = (3, 2) if consensus == "identity" else (3,)
    if num_class == 5:
        assert scores.shape == (*shape, 5)
    else:
        assert [task.shape for task in scores] == [(*shape, 5), (*shape, 7)]


def test_probabilities() -> None:
    verbs, nouns = make(before_softmax=False)(torch.randn(1, T * 3, 32, 32))
    torch.testing.assert_close(torch.stack([verbs.sum(), nouns.sum()]), torch.ones(2))


@torch.no_grad()
def test_without_channels_to_shift_it_is_a_tsn() -> None:
    """One part in more than there are channels is none."""
    model = make(shift_div=1024, shift_place="block")
    tsn = TSN((5, 7), T, "RGB", "resnet18", pretrained=None).eval()
    tsn.load_state_dict(
        {name.replace(".net.", "."): tensor for name, tensor in model.state_dict().items()}
    )
    inputs = torch.randn(2, T * 3, 32, 32)
    assert_close(model.features(inputs), tsn.features(inputs))
    assert not torch.allclose(
        make(shift_place="block").features(inputs), tsn.features(inputs), rtol=0.01
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "base_model.layer1.0.conv1.net.weight"),
        ({"shift_place": "block"}, "base_model.layer1.0.net.conv1.weight"),
        ({"shift_place": "BLOCK"}, "base_model.layer1.0.net.conv1.weight"),
        ({"non_local": True}, "base_model.layer2.0.block.conv1.net.weight"),
        ({"non_local": True}, "base_model.layer3.0.nl.phi.0.bias"),
        ({"non_local": True, "shift_place": "block"}, "base_model.layer2.0.block.net.bn1.weight"),
        ({"temporal_pool": True}, "base_model.layer2.net.1.conv1.net.weight"),
        ({"temporal_pool": True, "non_local": True}, "base_model.layer2.net.0.nl.W.1.weight"),
    ],
)
def test_keys(options: dict[str, Any], expected: str) -> None:
    assert expected in on_meta(**options).state_dict()


def test_every_second_block_of_a_deep_network() -> None:
    names = on_meta(base_model="resnet101", shift_every=2).state_dict()
    shifted = [int(name.split(".")[2]) for name in names if "layer3" in name and ".net." in name]
    assert shifted == list(range(0, 23, 2))
    every = on_meta(base_model="resnet101").state_dict()
    assert sum(".net." in name for name in every) == 3 + 4 + 23 + 3


@pytest.mark.essential
@torch.no_grad()
@pytest.mark.parametrize(
    ("base_model", "place"),
    [("resnet18", "block"), ("resnet18", "blockres"), ("BNInception", "block")],
)
def test_a_shift_from_the_past_does_not_see_the_future(base_model: str, place: str) -> None:
    options = {"base_model": base_model, "shift_place": place, "consensus_type": "identity"}
    inputs = torch.randn(1, 6, 3, 32, 32)
    changed = inputs.clone()
    changed[:, 3] = torch.randn(3, 32, 32)
    past = make(5, num_segments=6, shift_direction="past", **options)
    same = (past(inputs) == past(changed)).all(-1)[0].tolist()
    assert same == [True, True, True, False, False, False]
    both = make(5, num_segments=6, **options)
    assert not (both(inputs) == both(changed)).all(-1).any()


@pytest.mark.essential
@torch.no_grad()
def test_only_neighbours_are_seen_by_one_shift() -> None:
    """A change of the first segment reaches further with every block, and no other clip."""
    model = make(num_segments=8)
    stem = nn.Sequential(
        model.base_model.conv1, model.base_model.bn1, model.base_model.layer1[0].eval()
    )
    inputs = torch.randn(2 * 8, 3, 32, 32)
    changed = inputs.clone()
    changed[3] += 1
    difference = (stem(changed) - stem(inputs)).abs().amax(dim=(1, 2, 3))
    assert difference.nonzero().flatten().tolist() == [2, 3, 4]


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"non_local": True}, {"shift_place": "block"}])
def test_temporal_pool_halves_the_segments(options: dict[str, Any]) -> None:
    model = make(5, temporal_pool=True, consensus_type="identity", **options)
    inputs = torch.randn(3, T * 3, 64, 64)
    features = model.features(inputs)
    assert features.shape == (3 * T // 2, 512)
    assert model(inputs).shape == (3, T // 2, 5)
    assert_close(model(inputs).flatten(0, 1), model.new_fc(features))
    shifts = {
        name: module.num_segments
        for name, module in model.named_modules()
        if isinstance(module, TemporalShift)
    }
    assert {count for name, count in shifts.items() if ".layer1" in name} == {T}
    assert {count for name, count in shifts.items() if ".layer1" not in name} == {T // 2}
    with pytest.raises(ValueError, match=r"\(N\*2, 512\)"):
        model.logits(features[:3])
    # One prediction for each clip, of both tasks.
    averaging = make(temporal_pool=True, **options)
    assert [task.shape for task in averaging(inputs)] == [(3, 5), (3, 7)]


@torch.no_grad()
def test_temporal_pool_takes_maxima_of_the_first_stage() -> None:
    model = make(temporal_pool=True)
    backbone = model.base_model
    snippets = torch.randn(2 * T, 3, 32, 32)
    seen: list[Tensor] = []
    backbone.layer2.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.features(snippets)
    first = backbone.layer1(backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(snippets)))))
    clips = first.unflatten(0, (2, T))
    expected = torch.stack([clips[:, :2].amax(1), clips[:, 1:4].amax(1)], dim=1)
    assert_close(seen[0], expected.flatten(0, 1))


@torch.no_grad()
@pytest.mark.parametrize("base_model", ["resnet18", "resnet50"])
def test_fresh_non_local_blocks_change_nothing(base_model: str) -> None:
    plain = TSM((5, 7), 2, "RGB", base_model, pretrained=None).eval()
    model = TSM((5, 7), 2, "RGB", base_model, non_local=True, pretrained=None).eval()
    model.load_state_dict(
        {
            **{name: tensor for name, tensor in model.state_dict().items() if ".nl." in name},
            **{
                wrapped: plain.state_dict()[wrapped.replace(".block.", ".")]
                for wrapped in model.state_dict()
                if ".nl." not in wrapped
            },
        }
    )
    inputs = torch.randn(1, 2 * 3, 64, 64)
    assert_close(model.features(inputs), plain.features(inputs))


@pytest.mark.parametrize("base_model", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_non_local_and_pooling_on_any_resnet(base_model: str) -> None:
    model = on_meta(base_model=base_model, non_local=True, temporal_pool=True)
    verbs, nouns = model.eval()(torch.empty(2, T * 3, 64, 64, device="meta"))
    assert (verbs.shape, nouns.shape) == ((2, 5), (2, 7))


@torch.no_grad()
def test_bn_inception() -> None:
    model = make(base_model="BNInception", shift_place="block")
    tsn = TSN((5, 7), T, "RGB", "BNInception", pretrained=None).eval()
    tsn.load_state_dict(model.state_dict())  # the same names
    inputs = 60 * torch.randn(2, T * 3, 64, 64)
    shifted, plain = model.features(inputs), tsn.features(inputs)
    assert shifted.shape == (2 * T, 1024)
    assert (shifted - plain).abs().max() > 0.01 * plain.abs().max()


REFUSED = [
    ({"base_model": "BNInception"}, "shift_place='blockres'.*use shift_place='block'"),
    ({"base_model": "BNInception", "shift_place": "block", "non_local": True}, "non_local.*ResNet"),
    ({"base_model": "BNInception", "shift_place": "block", "shift_every": 2}, "shift_every"),
    ({"base_model": "BNInception", "shift_place": "block", "temporal_pool": True}, "temporal_pool"),
    ({"base_model": "vgg11"}, "base_model must be one of BNInception, resnet18.* got a VGG"),
    (
        {"base_model": "se_resnet50"},
        "base_model must be one of BNInception, resnet18.* got a SENet",
    ),
    ({"num_segments": 5, "temporal_pool": True}, "temporal_pool needs an even num_segments, got 5"),
    ({"shift_place": "inside"}, "shift_place must be one of block, blockres, got 'inside'"),
    ({"shift_div": 0}, "shift_div must be a positive integer, got 0"),
    ({"shift_div": 2.5}, "shift_div must be a positive integer, got 2.5"),
    ({"shift_every": 0}, "shift_every must be a positive integer, got 0"),
    ({"shift_direction": "future"}, "shift_direction must be one of"),
    ({"shift_direction": "past", "temporal_pool": True}, "temporal_pool must be False with"),
    ({"shift_direction": "past", "non_local": True}, "non_local must be False with"),
    ({"consensus_type": "TRN"}, "consensus_type must be one of avg, max, identity, got 'TRN'"),
]


@pytest.mark.parametrize("pretrained", [None, "imagenet"])
@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_that_cannot_be(
    options: dict[str, Any], message: str, pretrained: str | None, hub_cache: Path
) -> None:
    """Also with weights to fetch: there is no network here, so nothing was tried."""
    options = {"num_segments": T, "base_model": "resnet18", **options}
    with pytest.raises(ValueError, match=message):
        TSM((5, 7), modality="RGB", pretrained=pretrained, **options)


@torch.no_grad()
def test_features_of_whole_clips() -> None:
    model = make()
    clips = torch.randn(2, T, 1, 3, 32, 32)
    expected = model.features(clips)
    for inputs in (
        clips.flatten(2, 3),
        clips.flatten(1, 3),
        clips.reshape(2 * T, 3, 32, 32),  # a row of single snippets
        clips.reshape(2 * T, 1, 3, 32, 32),
        clips.reshape(1, 2 * T * 3, 32, 32),  # two clips in one item
        clips.reshape(1, 2 * T, 1, 3, 32, 32),
    ):
        assert_close(model.features(inputs), expected)


@pytest.mark.parametrize(
    "shape",
    [
        (1, (T - 1) * 3, 32, 32),
        (1, (T + 1) * 3, 32, 32),
        (T - 1, 3, 32, 32),
        (2, T // 2, 3, 32, 32),  # two halves are not a clip
        (2, T // 2 * 3, 32, 32),
        (T, T - 1, 1, 3, 32, 32),
    ],
)
def test_features_of_parts_of_clips_are_refused(shape: tuple[int, ...]) -> None:
    model = on_meta()
    with pytest.raises(ValueError, match=r"expected whole clips.*multiple of 4") as error:
        model.features(torch.zeros(shape))
    assert str(shape) in str(error.value)


def names_in_groups(model: TSM) -> dict[str, set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        group["name"]: {names[id(parameter)] for parameter in group["params"]}
        for group in model.get_optim_policies()
    }


def test_optimiser_groups() -> None:
    plain, fast = on_meta(), on_meta(fc_lr5=True)
    expected = [
        ("first_conv_weight", 1, 1), ("first_conv_bias", 2, 0), ("normal_weight", 1, 1),
        ("normal_bias", 2, 0), ("BN scale/shift", 1, 0), ("custom_ops", 1, 1),
        ("lr5_weight", 5, 1), ("lr10_bias", 10, 0),
    ]  # fmt: skip
    for model in (plain, fast):
        groups = model.get_optim_policies()
        assert [(g["name"], g["lr_mult"], g["decay_mult"]) for g in groups] == expected
        listed = [id(parameter) for group in groups for parameter in group["params"]]
        assert len(listed) == len(set(listed))
        assert set(listed) == {id(p) for p in model.parameters() if p.requires_grad}
    weights, biases = {"fc_verb.weight", "fc_noun.weight"}, {"fc_verb.bias", "fc_noun.bias"}
    assert names_in_groups(plain)["lr5_weight"] == set()
    assert names_in_groups(plain)["normal_bias"] == biases
    assert names_in_groups(fast)["lr5_weight"] == weights
    assert names_in_groups(fast)["lr10_bias"] == biases
    assert names_in_groups(fast)["normal_bias"] == set()
    assert names_in_groups(fast)["normal_weight"] == (
        names_in_groups(plain)["normal_weight"] - weights
    )


@pytest.mark.parametrize("partial_bn", [True, False])
def test_non_local_parameters_are_in_the_groups(partial_bn: bool) -> None:
    groups = names_in_groups(on_meta(non_local=True, partial_bn=partial_bn))
    own = "base_model.layer2.0.nl"
    assert {f"{own}.W.1.weight", f"{own}.W.1.bias"} <= groups["BN scale/shift"]
    assert {f"{own}.{part}.weight" for part in ("g.0", "W.0", "theta", "phi.0")} <= (
        groups["normal_weight"]
    )
    assert {f"{own}.{part}.bias" for part in ("g.0", "W.0", "theta", "phi.0")} <= (
        groups["normal_bias"]
    )


def test_partial_batch_norm_leaves_non_local_blocks_alone() -> None:
    model = on_meta(non_local=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            assert module.training
            assert module.weight.requires_grad
    wrapped = model.base_model.layer2[0].block.bn1
    assert not wrapped.training
    assert not wrapped.weight.requires_grad


def test_imagenet_weights_reach_the_wrapped_layers(hub_cache: Path) -> None:
    state = torchvision_state("resnet18")
    torch.save(state, hub_cache / "resnet18-f37072fd.pth")
    model = TSM((5, 7), T, "RGB", "resnet18", temporal_pool=True, non_local=True)
    ours = model.base_model.state_dict()
    assert ours["layer1.0.conv1.net.weight"].equal(state["layer1.0.conv1.weight"])
    assert ours["layer2.net.0.block.conv1.net.weight"].equal(state["layer2.0.conv1.weight"])
    assert ours["layer4.1.bn2.running_var"].equal(state["layer4.1.bn2.running_var"])


@pytest.mark.essential
def test_published_weights(hub_cache: Path) -> None:
    recorded = randomised(TSM((125, 352), 8, "Flow", pretrained=None))
    name = find_published("TSM", "resnet50", "Flow", num_segments=8, new_length=5).file_name
    torch.save(original(recorded, "tsm"), hub_cache / name)
    model = TSM((125, 352), 8, "Flow", pretrained="epic-kitchens")
    expected, ours = recorded.state_dict(), model.state_dict()
    assert list(ours) == list(expected)
    assert all(ours[key].equal(expected[key]) for key in ours)
    assert (model.input_mean, model.input_std) == ([0.5], [0.226])


@pytest.mark.parametrize(
    ("option", "value"),
    [("shift_div", 4), ("shift_place", "block"), ("shift_every", 2), ("shift_direction", "past"),
     ("temporal_pool", True), ("non_local", True)],
)  # fmt: skip
def test_published_weights_fix_the_arithmetic(hub_cache: Path, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option} must be .* for the published weights"):
        TSM((125, 352), 8, "RGB", pretrained="epic-kitchens", **{option: value})
