"""Optimisers: the rate and decay of each group, and learning rates step by step."""

import io
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.small_tsn import refused, small_tsn
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from training.optimizer import make_optimizer, make_schedule
from training.recipes import RECIPES, Recipe
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

RECIPE = Recipe(lr=0.5, epochs=10, batch_size=8, dropout=0.0)
STEPS = 4
"""Of the optimiser, in an epoch."""


def meta_model(kind: type[TSN] = TSN, modality: str = "RGB", **options: Any) -> TSN:
    with torch.device("meta"):
        return kind((5, 7), 3, modality, base_model="resnet18", pretrained=None, **options)


def rates(model: TSN, recipe: Recipe) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each group, in units of the recipe's."""
    groups = make_optimizer(model, recipe).param_groups
    assert {group["momentum"] for group in groups} == {recipe.momentum}
    assert all(group["params"] for group in groups)
    return {
        group["name"]: (
            round(group["lr"] / recipe.lr, 9),
            round(group["weight_decay"] / recipe.weight_decay, 9),
        )
        for group in groups
    }


COMMON = {"normal_weight": (1, 1), "normal_bias": (2, 0), "BN scale/shift": (1, 0)}


@pytest.mark.essential
def test_rates_of_groups() -> None:
    """ResNets have no bias in the first convolution; the group of it is left out."""
    assert rates(meta_model(), RECIPES["tsn-rgb"]) == {"first_conv_weight": (1, 1), **COMMON}
    flow = rates(meta_model(modality="Flow"), RECIPES["tsn-flow"])
    assert flow == {"first_conv_weight": (5, 1), **COMMON}


@pytest.mark.essential
def test_rates_of_c1_are_the_same_for_all_parameters() -> None:
    for kind, name in ((TSN, "c1-tsn"), (MTRN, "c1-mtrn"), (TSM, "c1-tsm")):
        found = rates(meta_model(kind, modality="Flow"), RECIPES[name])
        assert list(found) == ["first_conv_weight", *COMMON]
        assert set(found.values()) == {(1, 1)}


def test_fast_heads_of_tsm() -> None:
    """As the recipe says, whatever the model was made with."""
    common = {key: value for key, value in COMMON.items() if key != "normal_bias"}
    expected = {"first_conv_weight": (1, 1), **common, "lr5_weight": (5, 1), "lr10_bias": (10, 0)}
    for made_with in (False, True):
        model = meta_model(TSM, fc_lr5=made_with)
        assert rates(model, RECIPES["tsm-finetune"]) == expected
        groups = make_optimizer(model, RECIPES["tsm-finetune"]).param_groups
        heads = [model.fc_verb, model.fc_noun]
        assert [id(p) for p in groups[-1]["params"]] == [id(head.bias) for head in heads]
        assert rates(model, RECIPE) == {"first_conv_weight": (1, 1), **COMMON}


@pytest.mark.parametrize("kind", [TSN, TRN, MTRN])
def test_fast_heads_are_for_tsm_alone(kind: type[TSN]) -> None:
    with refused("fc_lr5 must be False for a ", kind.__name__, "got True"):
        make_optimizer(meta_model(kind), RECIPES["tsm-finetune"])


@pytest.mark.parametrize(
    ("kind", "base_model"),
    [(TSN, "resnet18"), (TSM, "resnet18"), (TRN, "BNInception"), (MTRN, "BNInception")],
)
@pytest.mark.parametrize("frozen", ["nothing", "partial batch norm", "backbone", "a layer"])
def test_each_parameter_that_learns_is_in_one_group(
    kind: type[TSN], base_model: str, frozen: str
) -> None:
    with torch.device("meta"):
        model = kind(
            5, 3, "RGB", base_model=base_model, pretrained=None,
            partial_bn=frozen == "partial batch norm",
        )  # fmt: skip
    if frozen == "backbone":
        model.base_model.requires_grad_(False)
    elif frozen == "a layer":
        next(iter(model.base_model.children())).requires_grad_(False)
    optimizer = make_optimizer(model, RECIPE)
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    if frozen == "backbone":
        assert [g["name"] for g in optimizer.param_groups] == ["normal_weight", "normal_bias"]


def test_a_step_applies_the_factors() -> None:
    """w - lr (g + decay w) for weights; b - 2 lr g for biases; batch norms without decay."""
    recipe = replace(RECIPE, weight_decay=0.25, partial_bn=False)
    moved: dict[bool, dict[str, float]] = {}
    for factors in (True, False):
        model = small_tsn(5, partial_bn=False)
        batch_norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        parameters = {
            "weight": model.new_fc.weight,
            "bias": model.new_fc.bias,
            "scale": batch_norm.weight,
        }
        for parameter in parameters.values():
            parameter.data.fill_(1.0)
            parameter.grad = torch.full_like(parameter, 0.5)
        make_optimizer(model, replace(recipe, factors=factors)).step()
        moved[factors] = {name: 1 - p.flatten()[0].item() for name, p in parameters.items()}
    assert moved[True] == {"weight": 0.5 * (0.5 + 0.25), "bias": 2 * 0.5 * 0.5, "scale": 0.5 * 0.5}
    assert set(moved[False].values()) == {0.5 * (0.5 + 0.25)}


def optimizer_of_two_groups() -> torch.optim.SGD:
    """Make one whose second group learns twice as fast."""
    weight, bias = (nn.Parameter(torch.ones(2)) for _ in range(2))
    return torch.optim.SGD(
        [{"params": [weight]}, {"params": [bias], "lr": 2 * RECIPE.lr}], lr=RECIPE.lr, momentum=0.9
    )


def learning_rates(recipe: Recipe, steps: int) -> list[float]:
    """Shares of the groups' learning rates, which are the same for all of them, by steps."""
    optimizer = optimizer_of_two_groups()
    schedule = make_schedule(optimizer, recipe, STEPS)
    shares = []
    for _ in range(steps):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == 2 * first
        shares.append(first / recipe.lr)
        optimizer.step()
        schedule.step()
    return shares


def test_a_milestone_is_a_number_of_finished_epochs() -> None:
    """Milestone 2: epochs 1 and 2 have the whole rate, the third is the first with less."""
    shares = learning_rates(replace(RECIPE, milestones=(2, 5, 99)), 10 * STEPS)
    assert shares == pytest.approx([1] * 2 * STEPS + [0.1] * 3 * STEPS + [0.01] * 5 * STEPS)


def test_a_constant_rate_ignores_milestones() -> None:
    recipe = replace(RECIPE, schedule="constant", milestones=(1,))
    assert learning_rates(recipe, 3 * STEPS) == [1] * 3 * STEPS


@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_cosine_begins_after_the_warm_up_and_ends_at_0(warmup_epochs: int) -> None:
    recipe = replace(RECIPE, schedule="cosine", warmup_epochs=warmup_epochs, warmup_factor=0.2)
    warmup, total = warmup_epochs * STEPS, 10 * STEPS
    shares = learning_rates(recipe, total + 3)
    growth = [0.2 + 0.8 * step / warmup for step in range(warmup)]
    assert shares[:warmup] == pytest.approx(growth)
    assert shares[warmup] == 1
    assert shares[(warmup + total) // 2] == pytest.approx(0.5)
    last = total - 1 - warmup
    assert shares[total - 1] == pytest.approx((1 + math.cos(math.pi * last / (total - warmup))) / 2)
    assert shares[warmup:] == sorted(shares[warmup:], reverse=True)
    assert shares[total:] == [0, 0, 0]


def test_warm_up_multiplies_the_schedule() -> None:
    """From the factor at the first step to 1 at the first step after it, also within epochs."""
    recipe = replace(RECIPE, milestones=(1,), warmup_epochs=2.5, warmup_factor=0.1)
    shares = learning_rates(recipe, 3 * STEPS)
    growth = [0.1 + 0.9 * step / 10 for step in range(10)] + [1, 1]
    assert shares == pytest.approx(growth[:STEPS] + [0.1 * share for share in growth[STEPS:]])


def test_warm_up_of_mmaction2() -> None:
    """5 epochs, linear from a tenth; milestones count from the start of the training."""
    recipe = RECIPES["mmaction2-tsm"]
    optimizer = optimizer_of_two_groups()
    schedule = make_schedule(optimizer, recipe, 100)
    share = schedule.lr_lambdas[0]
    assert [share(step) for step in (0, 250, 500, 2499, 2500, 4500)] == pytest.approx(
        [0.1, 0.55, 1, 1, 0.1, 0.01]
    )


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_an_epoch_has_steps(value: Any) -> None:
    with refused("steps_per_epoch must be a positive integer", value):
        make_schedule(optimizer_of_two_groups(), RECIPE, value)


@pytest.mark.parametrize("stop", [3, 2 * STEPS - 1, 2 * STEPS, 7 * STEPS + 1])
@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_a_resumed_training_is_the_same_bit_for_bit(schedule: str, stop: int) -> None:
    recipe = replace(RECIPE, lr=0.3, schedule=schedule, milestones=(2, 7), warmup_epochs=1.5)

    def start() -> tuple[nn.Parameter, torch.optim.SGD, LambdaLR]:
        optimizer = optimizer_of_two_groups()
        return (
            optimizer.param_groups[0]["params"][0],
            optimizer,
            make_schedule(optimizer, recipe, STEPS),
        )

    def go_on(weight: nn.Parameter, optimizer: torch.optim.SGD, schedule: LambdaLR, n: int) -> Any:
        seen = []
        for _ in range(n):
            weight.grad = weight.detach().sin()
            optimizer.step()
            schedule.step()
            seen.append((weight.detach().clone(), schedule.get_last_lr()))
        return seen

    whole = go_on(*start(), 10 * STEPS)
    weight, optimizer, rates = start()
    go_on(weight, optimizer, rates, stop)
    file = io.BytesIO()
    torch.save([weight.data, optimizer.state_dict(), rates.state_dict()], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    weight, optimizer, rates = start()
    for target, state in zip((optimizer, rates), saved[1:], strict=True):
        target.load_state_dict(state)
    weight.data.copy_(saved[0])
    for (ours, our_lr), (theirs, their_lr) in zip(
        go_on(weight, optimizer, rates, 10 * STEPS - stop), whole[stop:], strict=True
    ):
        assert torch.equal(ours, theirs)
        assert our_lr == their_lr
