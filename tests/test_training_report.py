"""The transfer report says what learns: what the optimiser gets, and nothing else."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.small_tsn import refused

from model_loader import save_checkpoint
from ops.inference import optimize_for_inference
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
11,173,196 of 11,182,668 parameters learn (99.92%); all take 44,730,672 bytes"""
    assert describe_transfer(model, RECIPE) == expected


@pytest.mark.essential
@pytest.mark.parametrize("freeze", [False, True], ids=["all", "freeze_backbone"])
@pytest.mark.parametrize("name", VARIANTS)
def test_what_learns_is_what_the_optimiser_gets(name: str, freeze: bool) -> None:
    model = make(name)
    if freeze:
        model.base_model.requires_grad_(False)
    groups = [p for group in model.get_optim_policies() for p in group["params"]]
    learning = sum(p.numel() for p in groups if p.requires_grad)
    report = describe_transfer(model, RECIPE)
    table = read_table(report)
    total = sum(p.numel() for p in model.parameters())
    assert list(table) == ["backbone", "batch norms", "heads", "all"]
    assert table["all"][1] == learning
    assert table["all"][1] + table["all"][3] == total
    assert f"{learning:,} of {total:,} parameters learn" in report
    assert f" {4 * total:,} bytes" in report
    if freeze:
        assert table["backbone"][:2] == table["batch norms"][:2] == (0, 0)
    else:
        assert table["backbone"][2:] == (0, 0)
    # Twenty of resnet18's, and those of two non-local blocks after them.
    non_local = 2 if name == "TSM non-local" else 0
    assert sum(table["batch norms"][::2]) == 20 + non_local
    if not freeze:
        assert table["batch norms"][0] == (20 if not model.partial_bn else 1) + non_local


def test_what_learns_gets_new_values_and_what_is_frozen_does_not() -> None:
    torch.manual_seed(0)
    model = make("MTRN").train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    groups = [p for group in model.get_optim_policies() for p in group["params"]]
    optimizer = torch.optim.SGD([p for p in groups if p.requires_grad], lr=1.0, weight_decay=0.1)
    for output in model(torch.randn(2, 12, 32, 32)):
        output.square().mean().backward(retain_graph=True)
    optimizer.step()
    changed = sum(p.numel() for n, p in model.named_parameters() if not p.equal(before[n]))
    assert changed == read_table(describe_transfer(model, RECIPE))["all"][1]


def test_classifiers_that_the_published_mtrn_does_not_use() -> None:
    report = describe_transfer(make("MTRN"), RECIPE)
    # 257 parameters for each of 5 verbs and 7 nouns.
    assert read_table(report)["heads"][2:] == (2, 257 * 12)
    assert report.endswith(
        "frozen heads: consensus.classifiers.2.0, consensus.classifiers.2.1 "
        "(classifier_pairing='published' does not use the last classifiers)"
    )
    assert "frozen heads" not in describe_transfer(make("MTRN per scale"), RECIPE)
    model = make()
    model.fc_noun.bias.requires_grad_(False)
    report = describe_transfer(model, RECIPE)
    assert report.endswith("\nfrozen heads: fc_noun")
    assert read_table(report)["heads"] == (2, 513 * 12 - 7, 1, 7)


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
