"""Parameter groups: names, factors, and each parameter in one of them."""

import doctest
import inspect

import pytest
import torch
from helpers.small_tsn import batch_norms
from torch import nn

from tsn import TSN

T = 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


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


def test_the_example_of_optimiser_groups_runs() -> None:
    text = inspect.cleandoc(TSN.get_optim_policies.__doc__ or "")
    example = doctest.DocTestParser().get_doctest(text, {"torch": torch}, "groups", None, None)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
