"""Recipes: the published values, and one message for each value that cannot be."""

import math
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from training.recipes import KINETICS, RECIPES, Recipe

RECIPE = Recipe(lr=0.01, epochs=10, batch_size=8, dropout=0.5)

PUBLISHED = {
    # lr, milestones, epochs, batch, weight decay, dropout, clip, partial BN, start
    "c1-tsn": (0.01, (20, 40), 80, 128, 5e-4, 0.7, 20, True, "imagenet"),
    "c1-mtrn": (0.01, (20, 40), 80, 128, 5e-4, 0.7, 20, True, "imagenet"),
    "c1-tsm": (0.01, (20, 40), 80, 64, 5e-4, 0.7, 20, True, KINETICS),
    "tsn-rgb": (0.001, (30, 60), 80, 128, 5e-4, 0.8, 20, True, "imagenet"),
    "tsn-flow": (0.001, (190, 300), 340, 128, 5e-4, 0.7, 20, True, "imagenet"),
    "tsn-rgbdiff": (0.001, (80, 160), 180, 128, 5e-4, 0.8, 40, True, "imagenet"),
    "trn": (0.001, (50, 100), 120, 64, 5e-4, 0.8, 20, True, "imagenet"),
    "tsm-kinetics": (0.02, (20, 40), 50, 128, 1e-4, 0.5, 20, False, "imagenet"),
    "tsm-something": (0.01, (20, 40), 50, 64, 5e-4, 0.5, 20, False, "imagenet"),
    "tsm-finetune": (0.001, (10, 20), 25, 64, 5e-4, 0.8, 20, True, KINETICS),
    "mmaction2-tsm": (0.02, (25, 45), 50, 8 * 16, 1e-4, 0.5, 20, False, "imagenet"),
}


@pytest.mark.essential
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    recipe = RECIPES[name]
    assert PUBLISHED[name] == (
        recipe.lr, recipe.milestones, recipe.epochs, recipe.batch_size, recipe.weight_decay,
        recipe.dropout, recipe.clip_norm, recipe.partial_bn, recipe.pretrained,
    )  # fmt: skip
    is_tsm = name in ("tsm-kinetics", "tsm-something", "tsm-finetune", "mmaction2-tsm")
    assert asdict(recipe) == asdict(
        replace(
            recipe,
            momentum=0.9,
            schedule="step",
            sampling="train",
            factors=not name.startswith("c1-"),
            fc_lr5=is_tsm,
            drop_last=is_tsm,
            flip=name != "tsm-something",
            warmup_epochs=5 if name == "mmaction2-tsm" else 0,
            warmup_factor=0.1,
            label_smoothing=0,
            seed=42,
        )
    )


def test_all_other_recipes_are_of_this_library() -> None:
    assert set(RECIPES) - set(PUBLISHED) == {"synthetic-actions"}


@pytest.mark.parametrize(
    ("name", "values", "valid"),
    [
        ("epochs", [0, -1, 1.5, True, "8"], "a positive integer"),
        ("batch_size", [0, 2.0], "a positive integer"),
        ("accumulate", [0, None], "a positive integer"),
        ("accumulate", [9], "at most the batch_size, 8"),
        ("lr", [0, -0.1, math.inf, math.nan, "0.1"], "a positive number"),
        ("momentum", [-0.1, 1, math.nan, None], "at least 0 and below 1"),
        ("weight_decay", [-1e-4, math.inf, math.nan, "0"], "at least 0 and below inf"),
        ("dropout", [-0.1, 1.1, math.nan, None], "a number from 0 to 1"),
        ("label_smoothing", [-0.1, 1.1], "a number from 0 to 1"),
        ("clip_norm", [0, -20, math.inf], "a positive number"),
        ("milestones", [(0, 5), (5, 5), (7, 3), (2.5,), "20", 20, None], "ascending positive int"),
        ("schedule", ["steps", None], "one of step, cosine, constant"),
        ("precision", ["float64", 16], "one of float32, bfloat16, float16"),
        ("sampling", ["test", "dense-test"], "one of train, dense"),
        ("warmup_epochs", [-1, math.nan, "1"], "at least 0"),
        ("warmup_epochs", [10.0, 12.5], "fewer than the epochs, 10"),
        ("warmup_factor", [-0.1, 1.1], "a number from 0 to 1"),
        ("seed", [-1, 2**63, 0.5, None], r"an integer from 0 to 2\*\*63 - 1"),
        *(
            (field.name, ["False", 1, None], "True or False")
            for field in fields(Recipe)
            if field.type is bool
        ),
    ],
)
def test_values_out_of_range(name: str, values: list[Any], valid: str) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} must be {valid}.*, got ") as error:
            replace(RECIPE, **{name: value})
        assert str(error.value).endswith(f", got {value!r}")


def test_values_at_the_ends_of_their_ranges() -> None:
    ends: list[dict[str, Any]] = [
        {"epochs": 1, "batch_size": 1, "accumulate": 1},
        {"accumulate": 8, "momentum": 0, "weight_decay": 0, "dropout": 0, "label_smoothing": 0},
        {"dropout": 1, "label_smoothing": 1, "warmup_epochs": 9.5, "warmup_factor": 1},
        {"clip_norm": None, "warmup_factor": 0, "seed": 0},
        {"milestones": (1, 2, 1000), "seed": 2**63 - 1},  # the last one never comes
    ]
    for values in ends:
        recipe = replace(RECIPE, **values)
        assert {name: getattr(recipe, name) for name in values} == values


def test_values_are_spelled_in_one_way() -> None:
    """For recipes of two runs to be compared, also after one was in a file."""
    recipe = replace(RECIPE, schedule="Cosine", milestones=[1, 2], dropout=0)
    assert recipe == replace(RECIPE, schedule="cosine", milestones=(1, 2), dropout=0.0)
