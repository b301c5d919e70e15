"""The transfer report says what learns: what the optimiser gets, and nothing else."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.small_tsn import refused

from model_loader import save_checkpoint
from ops.inference import optimize_for_inference
from training.optimizer import make_optimizer
from training.recipes import KINETICS, RECIPES
from training.report import describe_transfer
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

RECIPE = replace(RECIPES["c1-tsn"], pretrained=None)
VARIANTS: dict[str, tuple[type[TSN], dict[str, Any]]] = {
    "TSN": (TSN, {}),
    "TSN flow": (TSN, {"modality": "Flow"}),
    "TSN one task": (TSN, {"num_class": 6, "partial_bn": False}),
    "TRN": (TRN, {}),
    "MTRN": (MTRN, {}),
    "MTRN per scale": (MTRN, {"classifier_pairing": "per-scale"}),
    "TSM": (TSM, {"partial_bn": False}),
    "TSM non-local": (TSM, {"non_local": True, "fc_lr5": True}),
}


def make(name: str = "TSN", **options: Any) -> TSN:
    kind, own = VARIANTS[name]
    options = {"num_class": (5, 7), "num_segments": 4, "modality": "RGB", **own, **options}
    if kind in (TRN, MTRN):
        options["img_feature_dim"] = 16
    return kind(**{"base_model": "resnet18", "pretrained": None, **options})


def read_table(report: str) -> dict[str, tuple[int, ...]]:
    """Return part -> layers and parameters that learn, layers and parameters that are frozen."""
    rows = re.findall(r"^(\w[a-z ]*?) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+)$", report, re.M)
    return {part: tuple(int(cell.replace(",", "")) for cell in row) for part, *row in rows}


def test_the_whole_report() -> None:
    model = make(partial_bn=True)
    expected = """\
start: random weights
                            learns                frozen
              layers    parameters  layers    parameters
backbone          20    11,166,912       0             0
batch norms        1           128      19         9,472
heads              2         6,156       0             0
all               23    11,173,196      19         9,472
11,173,196 of 11,182,668 parameters learn (99.92%); all take 44,730,672 bytes
lr 0.01, weight decay 0.0005: first_conv_weight, normal_weight, normal_bias, BN scale/shift"""
    assert describe_transfer(model, RECIPE) == expected


@pytest.mark.essential
@pytest.mark.parametrize("freeze", [False, True], ids=["all", "freeze_backbone"])
@pytest.mark.parametrize("name", VARIANTS)
def test_what_learns_is_what_the_optimiser_gets(name: str, freeze: bool) -> None:
    model = make(name)
    if freeze:
        model.base_model.requires_grad_(False)
    groups = make_optimizer(model, RECIPE).param_groups
    learning = sum(p.numel() for group in groups for p in group["params"])
    total = sum(p.numel() for p in model.parameters())
    report = describe_transfer(model, RECIPE)
    assert f"\n{learning:,} of {total:,} parameters learn" in report
    assert f" {4 * total:,} bytes" in report

    table = read_table(report)
    assert list(table) == ["backbone", "batch norms", "heads", "all"]
    assert table["all"] == tuple(map(sum, zip(*list(table.values())[:3], strict=True)))
    assert table["all"][1::2] == (learning, total - learning)
    # The twenty of resnet18, and one in each non-local block, which partial batch norm leaves.
    non_local = 2 if name == "TSM non-local" else 0
    learning_norms = 0 if freeze else (1 if model.partial_bn else 20) + non_local
    assert table["batch norms"][::2] == (learning_norms, 20 + non_local - learning_norms)
    assert table["backbone"][0 if freeze else 2] == 0


def test_what_learns_gets_new_values_and_what_is_frozen_does_not() -> None:
    torch.manual_seed(0)
    model = make("MTRN").train()
    recipe = replace(RECIPE, lr=1.0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = make_optimizer(model, recipe)
    for output in model(torch.randn(2, 12, 32, 32)):
        output.square().mean().backward(retain_graph=True)
    optimizer.step()
    changed = sum(p.numel() for n, p in model.named_parameters() if not p.equal(before[n]))
    assert changed == read_table(describe_transfer(model, recipe))["all"][1]


def test_classifiers_that_the_published_mtrn_does_not_use() -> None:
    report = describe_transfer(make("MTRN"), RECIPE)
    # 257 parameters for each of 5 verbs and 7 nouns.
    assert read_table(report)["heads"][2:] == (2, 257 * 12)
    assert report.endswith(
        "frozen heads: consensus.classifiers.2.0, consensus.classifiers.2.1 "
        "(classifier_pairing='published' does not use the last classifiers)"
    )
    model = make("MTRN per scale")
    assert "frozen heads" not in describe_transfer(model, RECIPE)
    model.new_fc.requires_grad_(False)
    assert describe_transfer(model, RECIPE).endswith("\nfrozen heads: new_fc")
    model = make()
    model.fc_noun.bias.requires_grad_(False)
    report = describe_transfer(model, RECIPE)
    assert report.endswith("\nfrozen heads: fc_noun")
    assert read_table(report)["heads"] == (2, 513 * 12 - 7, 1, 7)


def test_learning_rates_that_differ() -> None:
    model = make("TSM", modality="Flow", num_class=3)
    report = describe_transfer(model, replace(RECIPE, factors=True, fc_lr5=True, lr=0.02))
    assert report.splitlines()[-4:] == [
        "lr 0.1, weight decay 0.0005: first_conv_weight, lr5_weight",
        "lr 0.02, weight decay 0.0005: normal_weight",
        "lr 0.02, weight decay 0: BN scale/shift",
        "lr 0.2, weight decay 0: lr10_bias",
    ]
    with refused("fc_lr5 must be False"):
        describe_transfer(make(), replace(RECIPE, fc_lr5=True))


@pytest.mark.parametrize("sync", [False, True])
def test_gradients_that_no_optimiser_takes_do_not_count(sync: bool) -> None:
    model = make(partial_bn=True)
    if sync:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.requires_grad_(True)  # of frozen batch norms too, which are in no group
    assert read_table(describe_transfer(model, RECIPE))["batch norms"] == (1, 128, 19, 9472)


def test_where_it_starts(tmp_path: Any) -> None:
    path = tmp_path / "own.pth.tar"
    save_checkpoint(make(num_class=3), path)

    def start(model: TSN, pretrained: str | None) -> list[str]:
        report = describe_transfer(model, replace(RECIPE, pretrained=pretrained))
        return report.partition("\n      ")[0].splitlines()

    assert start(make(), "imagenet") == ["start: ImageNet weights of the backbone, random heads"]
    assert start(make(), "epic-kitchens-100") == ["start: epic-kitchens-100"]
    same = make(num_class=3, pretrained=path)
    loaded = f"  all weights of {path} were loaded"
    assert start(same, str(path)) == [f"start: {path}", loaded]
    assert start(same, KINETICS) == ["start: kinetics", loaded]
    assert start(same, "imagenet") == start(same, None) == ["start: a checkpoint", loaded]
    lines = start(make(pretrained=path), str(path))
    assert len(lines) == 2
    assert lines[1].endswith("all weights but the heads' were loaded, the heads start anew")


def test_memory_counts_the_precision() -> None:
    assert " 22,365,336 bytes" in describe_transfer(make().half(), RECIPE)


def test_models_for_inference_are_refused() -> None:
    with refused("cannot be trained"):
        describe_transfer(optimize_for_inference(make().eval()), RECIPE)
