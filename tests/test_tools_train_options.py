"""The options of the program that trains: those of recipes come from the fields of `Recipe`."""

from dataclasses import fields, replace
from typing import Any

import pytest

from tools.train_options import make_recipe, train_parser
from training.recipes import RECIPES, Recipe

REQUIRED = ["--train", "train.csv", "--out", "run"]


def recipe_of(*words: str, model: str = "tsm") -> Recipe:
    return make_recipe(train_parser().parse_args([model, *REQUIRED, *words]))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_taken_as_it_is(name: str) -> None:
    assert recipe_of("--recipe", name) == RECIPES[name]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--pretrained NONE", "pretrained", None),
        ("--pretrained Weights.pth", "pretrained", "Weights.pth"),
        ("--dropout 0.25", "dropout", 0.25),
        ("--no-partial-bn", "partial_bn", False),
        ("--freeze-backbone", "freeze_backbone", True),
        ("--sampling DENSE", "sampling", "dense"),
        ("--no-flip", "flip", False),
        ("--epochs 3", "epochs", 3),
        ("--batch-size 5", "batch_size", 5),
        ("--accumulate 2", "accumulate", 2),
        ("--no-drop-last", "drop_last", False),
        ("--lr 2e-3", "lr", 0.002),
        ("--momentum 0.5", "momentum", 0.5),
        ("--weight-decay 0", "weight_decay", 0.0),
        ("--no-factors", "factors", False),
        ("--no-fc-lr5", "fc_lr5", False),
        ("--schedule cosine", "schedule", "cosine"),
        ("--milestones 4 8", "milestones", (4, 8)),
        ("--milestones", "milestones", ()),
        ("--warmup-epochs 0.5", "warmup_epochs", 0.5),
        ("--warmup-factor 0", "warmup_factor", 0.0),
        ("--clip-norm 5", "clip_norm", 5.0),
        ("--clip-norm 0", "clip_norm", None),
        ("--clip-norm none", "clip_norm", None),
        ("--label-smoothing 0.1", "label_smoothing", 0.1),
        ("--precision bfloat16", "precision", "bfloat16"),
        ("--compile", "compile", True),
        ("--channels-last", "channels_last", True),
        ("--sync-bn", "sync_bn", True),
        ("--seed 7", "seed", 7),
    ],
)
def test_every_value_can_be_replaced(words: str, field: str, value: Any) -> None:
    expected = replace(RECIPES["tsm-finetune"], **{field: value})
    assert recipe_of(*words.split()) == expected


def test_no_field_is_forgotten() -> None:
    options = {action.dest: action.help for action in train_parser()._actions}
    assert [field.name for field in fields(Recipe) if not options.get(field.name)] == []


def test_heads_of_other_models_learn_as_fast_as_all_else() -> None:
    """`fc_lr5` is a TSM's alone: recipes of TSM suit others without it."""
    assert recipe_of(model="tsn") == replace(RECIPES["tsm-finetune"], fc_lr5=False)
    assert recipe_of("--fc-lr5", model="tsn").fc_lr5  # which the optimiser then refuses


def test_recipes_are_listed_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_parser().parse_args(["--list-recipes"])
    assert ended.value.code == 0
    table = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line}
    assert lines.keys() >= RECIPES.keys()
    assert lines["tsm-finetune"][:6] == ["kinetics", "0.8", "yes", "yes", "25", "64"]
    assert lines["synthetic-actions"][0] == "none"
    assert "momentum 0.9" in table.splitlines()[-1]


@pytest.mark.parametrize("words", ["--clip-norm much", "--lr fast", "--recipe new", "--epochs 1.5"])
def test_what_is_no_value_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        recipe_of(*words.split())
    assert ended.value.code == 2
    option, value = words.split()
    error = capsys.readouterr().err.splitlines()[-1]
    assert option in error
    assert value in error
