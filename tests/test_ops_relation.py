"""Relation heads against sums over relations that are written out here."""

import copy
from collections.abc import Callable, Iterable
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ops.relation import MultiScaleRelation, TemporalRelation, _join

WIDTH = 6
CLASSES = (5, 3)
Draw = Callable[[int, list[tuple[int, ...]]], Iterable[tuple[int, ...]]]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def relation(num_segments: int, **options: str) -> MultiScaleRelation:
    torch.manual_seed(num_segments)
    return MultiScaleRelation(WIDTH, num_segments, CLASSES, **options).eval()


def scores_of(model: MultiScaleRelation, index: int, features: Tensor, members: tuple[int, ...],
              classifier: int) -> list[Tensor]:  # fmt: skip
    """Logits of one relation, layer by layer."""
    hidden = model.fc_fusion_scales[index](features[:, list(members)].flatten(1))
    return [head(hidden) for head in model.classifiers[classifier]]


def add_up(model: MultiScaleRelation, features: Tensor, draw: Draw) -> list[Tensor]:
    """Sum over scales and drawn relations, straight from the definition."""
    t = features.shape[1]
    total = [torch.zeros(len(features), count) for count in CLASSES]
    for index, scale in enumerate(range(t, 1, -1)):
        classifier = index
        if model.classifier_pairing == "published":
            classifier = max(index - 1, 0)
        for members in draw(scale, list(combinations(range(t), scale))):
            scores = scores_of(model, index, features, members, classifier)
            total = [sum_ + score for sum_, score in zip(total, scores, strict=True)]
    return total


def expectation(model: MultiScaleRelation, features: Tensor) -> list[Tensor]:
    """Three (or as many as there are) times the mean over all relations of each scale."""
    t = features.shape[1]
    total = [torch.zeros(len(features), count) for count in CLASSES]
    for scale in range(2, t + 1):
        every = add_up(model, features, lambda s, r, scale=scale: r if s == scale else [])
        factor = min(3, comb(t, scale)) / comb(t, scale)
        total = [sum_ + factor * part for sum_, part in zip(total, every, strict=True)]
    return total


def assert_same(ours: list[Tensor], expected: list[Tensor], **tolerances: float) -> None:
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerances)


@pytest.mark.essential
@torch.no_grad()
def test_single_scale_equals_its_definition() -> None:
    model = TemporalRelation(WIDTH, 4, CLASSES)
    features = torch.randn(3, 4, WIDTH)
    first = model.pre_classifier[1]
    assert first.weight.shape == (512, 4 * WIDTH)
    hidden = (features.relu().reshape(3, -1) @ first.weight.T + first.bias).relu()
    expected = [hidden @ head.weight.T + head.bias for head in model.classifiers]
    assert_same(model(features), expected)
    assert [tuple(scores.shape) for scores in model(features)] == [(3, 5), (3, 3)]


def test_single_scale_knows_the_order_of_segments() -> None:
    model = TemporalRelation(WIDTH, 3, [4])
    features = torch.randn(1, 3, WIDTH)
    assert not torch.allclose(model(features)[0], model(features.flip(1))[0])


def test_names() -> None:
    assert list(TemporalRelation(WIDTH, 4, CLASSES).state_dict()) == [
        f"{layer}.{kind}"
        for layer in ("pre_classifier.1", "classifiers.0", "classifiers.1")
        for kind in ("weight", "bias")
    ]
    model = relation(3)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == {
        **{
            f"classifiers.{i}.{task}.weight": (CLASSES[task], 256)
            for i in (0, 1)
            for task in (0, 1)
        },
        **{f"classifiers.{i}.{task}.bias": (CLASSES[task],) for i in (0, 1) for task in (0, 1)},
        "fc_fusion_scales.0.1.weight": (256, 3 * WIDTH),
        "fc_fusion_scales.0.1.bias": (256,),
        "fc_fusion_scales.1.1.weight": (256, 2 * WIDTH),
        "fc_fusion_scales.1.1.bias": (256,),
    }


def test_relations_are_all_combinations_in_order() -> None:
    model = relation(9)
    for scale in range(2, 10):
        expected = list(combinations(range(9), scale))
        assert list(map(tuple, model.relations(scale).tolist())) == expected


@pytest.mark.essential
@torch.no_grad()
@pytest.mark.parametrize("pairing", ["published", "per-scale"])
@pytest.mark.parametrize("num_segments", [2, 3, 4, 5, 6, 9])
def test_expectation_equals_the_sum_over_all_relations(num_segments: int, pairing: str) -> None:
    model = relation(num_segments, classifier_pairing=pairing)
    features = torch.randn(2, num_segments, WIDTH)
    assert_same(model(features), expectation(model, features))
    assert_same(model(features), model(features), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("pairing", ["published", "per-scale"])
def test_expectation_in_chunks(pairing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = relation(6, classifier_pairing=pairing)
    features = torch.randn(2, 6, WIDTH)
    monkeypatch.setattr("ops.relation._CHUNK", 7)
    assert_same(model(features), expectation(model, features))


@pytest.mark.essential
@torch.no_grad()
def test_random_sampling_adds_the_drawn_relations(monkeypatch: pytest.MonkeyPatch) -> None:
    model = relation(5, sampling="random")
    features = torch.randn(2, 5, WIDTH)
    monkeypatch.setattr(torch, "randperm", lambda n: torch.arange(n - 1, -1, -1))
    assert_same(model(features), add_up(model, features, lambda _, r: r[::-1][:3]))


@torch.no_grad()
def test_random_sampling_draws_without_repetition() -> None:
    model = relation(4, sampling="random")
    for _ in range(50):
        drawn = _join(*model._chosen_relations(2)).tolist()
        assert len(drawn) == len(set(map(tuple, drawn))) == 3
    assert _join(*model._chosen_relations(4)).tolist() == [[0, 1, 2, 3]]


@torch.no_grad()
def test_expectation_is_the_mean_of_many_draws() -> None:
    model = relation(4, sampling="random")
    features = torch.randn(1, 4, WIDTH)
    torch.manual_seed(0)
    draws = torch.stack([model(features)[0] for _ in range(400)])
    model.sampling = "expectation"
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert (error < 0.05 * model(features)[0].abs()).all()  # tight enough to notice a wrong factor
    assert ((draws.mean(dim=0) - model(features)[0]).abs() < 4 * error).all()


@torch.no_grad()
def test_draws_come_from_torchs_generator_alone() -> None:
    model = relation(6, sampling="random")
    features = torch.randn(1, 6, WIDTH)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global one is what is looked at
    torch.manual_seed(3)
    first = [model(features)[0] for _ in range(4)]
    torch.manual_seed(3)
    second = [model(features)[0] for _ in range(4)]
    assert all(one.equal(other) for one, other in zip(first, second, strict=True))
    assert not all(one.equal(first[0]) for one in first)
    after = np.random.get_state()[1]  # noqa: NPY002 - as above
    assert np.array_equal(before, after)


@torch.no_grad()
def test_training_draws_whatever_evaluation_does() -> None:
    model = relation(6).train()
    features = torch.randn(1, 6, WIDTH)
    torch.manual_seed(0)
    outputs = [model(features)[0] for _ in range(4)]
    assert not all(output.equal(outputs[0]) for output in outputs)
    # As many as evaluation with the draw: a scale counts three times, not once for each relation.
    torch.manual_seed(0)
    model.eval().sampling = "random"
    assert all(output.equal(model(features)[0]) for output in outputs)


def test_published_pairing_is_off_by_one() -> None:
    """Published weights were trained so: scale i > 0 goes through the classifiers of i - 1."""
    model = relation(4)
    features = torch.randn(2, 4, WIDTH)
    for draws in (model.eval(), model.train()):
        draws.zero_grad()
        sum(scores.sum() for scores in draws(features)).backward()
        used = [[head.weight.grad is not None for head in heads] for heads in model.classifiers]
        assert used == [[True, True], [True, True], [False, False]]
    # The first classifiers serve scales 4 and 3: without their weights, scale 2's scores remain.
    model.eval()
    with torch.no_grad():
        for head in model.classifiers[0]:
            head.weight.zero_()
            head.bias.zero_()
        alone = [
            3 / 6 * sum_
            for sum_ in add_up(model, features, lambda scale, r: r if scale == 2 else [])
        ]
        assert_same(model(features), alone)


def test_per_scale_pairing_uses_every_classifier() -> None:
    model = relation(4, classifier_pairing="per-scale")
    sum(scores.sum() for scores in model(torch.randn(2, 4, WIDTH))).backward()
    for heads in model.classifiers:
        for head in heads:
            assert head.weight.grad.abs().max() > 0


def test_two_segments_have_one_scale() -> None:
    for pairing in ("published", "per-scale"):
        model = relation(2, classifier_pairing=pairing)
        sum(scores.sum() for scores in model(torch.randn(2, 2, WIDTH))).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("num_segments", [0, 1, 21])
def test_numbers_of_segments_that_cannot_be(num_segments: int) -> None:
    with pytest.raises(ValueError, match=f"num_segments must be from 2 to 20.*got {num_segments}"):
        MultiScaleRelation(WIDTH, num_segments, CLASSES)


@pytest.mark.parametrize(
    ("option", "named"),
    [({"sampling": "mean"}, "relation_sampling"), ({"classifier_pairing": "no"}, "pairing")],
)
def test_unknown_options(option: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} must be one of .*got"):
        MultiScaleRelation(WIDTH, 4, CLASSES, **option)


class LargestTensor(TorchDispatchMode):
    """Records how many elements the largest result of an operation has."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]  # torch's own signature has no types
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


class GatheredRows(TorchDispatchMode):
    """Counts the rows that are picked from tables."""

    rows = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]  # torch's own signature has no types
        result = function(*arguments, **(keywords or {}))
        if function is torch.ops.aten.index_select.default:
            self.rows += result.shape[1]
        return result


@torch.no_grad()
def test_halves_of_relations_are_added_up_once() -> None:
    """Rather than as many rows for each relation as it has segments."""
    model = relation(16)
    with GatheredRows() as gathered:
        model(torch.randn(1, 16, WIDTH))
    relations = sum(comb(16, scale) for scale in range(2, 17))
    one_by_one = sum(scale * comb(16, scale) for scale in range(2, 17))
    assert 2 * relations < gathered.rows < one_by_one / 3


@torch.no_grad()
def test_sixteen_segments_need_little_memory() -> None:
    model = relation(16)
    assert len(model.relations(8)) == comb(16, 8) == 12870
    with LargestTensor() as largest:
        scores, _ = model(torch.randn(2, 16, WIDTH))
    assert scores.isfinite().all()
    # 512 relations of two clips at a time, although the eighth scale has 12870. Of the halves
    # there are 792 at most: what nine segments end with.
    assert largest.elements == comb(12, 5) * 2 * 256


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_segments", [2, 8, 12, 16])
def test_half_precision(
    num_segments: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if num_segments == 12:  # 462 chunks of the sixth scale, more than twenty segments have
        monkeypatch.setattr("ops.relation._CHUNK", 2)
    exact = relation(num_segments).double()
    moving = torch.randn(2, num_segments, WIDTH).double()
    still = moving[:, :1].expand_as(moving)  # every relation and every chunk adds the same
    for features in (moving, still):
        expected = exact(features)
        largest = max(scores.abs().max() for scores in expected)
        plain = relation(num_segments)
        ours = copy.deepcopy(plain).to(dtype)(features.to(dtype))
        with torch.autocast("cpu", dtype):
            autocast = plain(features.float())
        for one, two, other in zip(ours, autocast, expected, strict=True):
            assert one.dtype == two.dtype == dtype
            for scores in (one, two):
                # As far off as three layers may be, however many terms are summed.
                assert (scores - other).abs().max() <= 1.2 * torch.finfo(dtype).eps * largest


@torch.no_grad()
def test_half_precision_holds_large_values() -> None:
    """Sums over thousands of relations would leave float16's range, their mean does not."""
    model = relation(12)
    features = torch.full((1, 12, WIDTH), 4000.0)
    expected = model(features)
    ours = model.half()(features.half())
    for one, other in zip(ours, expected, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one.float(), other, rtol=0, atol=2e-3 * other.abs().max().item())


def test_relations_are_real_on_the_meta_device_and_not_saved() -> None:
    with torch.device("meta"):
        model = MultiScaleRelation(WIDTH, 4, CLASSES)
    assert model.relations(2).device.type == "cpu"
    assert model.classifiers[0][0].weight.device.type == "meta"
    assert not any("relations" in name for name in model.state_dict())


def test_options_show() -> None:
    assert "sampling='random', classifier_pairing='per-scale'" in repr(
        relation(3, sampling="random", classifier_pairing="per-scale")
    )
