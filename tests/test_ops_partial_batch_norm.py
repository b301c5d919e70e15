"""Partial batch norm: which layers are frozen, and when."""

from typing import Any

import pytest
import torch
from helpers.small_tsn import batch_norms, is_frozen, small_tsn
from torch import nn

from tsm import TSM
from tsn import TSN

T = 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.essential
@pytest.mark.parametrize("base_model", ["resnet18", "BNInception", "vgg11_bn"])
def test_partial_batch_norm_holds_from_the_start_and_whenever_training(base_model: str) -> None:
    with torch.device("meta"):
        model = TSN(5, T, "RGB", base_model=base_model, pretrained=None)
    first, *others = batch_norms(model)
    assert others
    assert model.training
    for _ in range(2):
        assert not is_frozen(first)
        assert all(map(is_frozen, others))
        assert model.eval() is model
        assert not any(batch_norm.training for batch_norm in batch_norms(model))
        assert model.train() is model
    assert model.train(False) is model
    assert not model.training


def test_partial_batch_norm_can_be_undone() -> None:
    model = small_tsn().train()
    first, *others = batch_norms(model)
    model.partialBN(False)
    for _ in range(2):
        assert not any(map(is_frozen, [first, *others]))
        model.train()
    model.partialBN(True)
    assert all(map(is_frozen, others))
    assert not is_frozen(first)
    # In evaluation mode nothing starts to train.
    model.eval().partialBN(False)
    assert not any(batch_norm.training for batch_norm in [first, *others])
    assert not any(map(is_frozen, batch_norms(model.train())))


def test_without_partial_batch_norm() -> None:
    model = small_tsn(partial_bn=False).train()
    assert not any(map(is_frozen, batch_norms(model)))
    # What a user froze stays so.
    chosen = batch_norms(model)[3]
    chosen.weight.requires_grad_(False)
    model.partialBN(False)
    model.train()
    assert not chosen.weight.requires_grad


def test_partial_batch_norm_touches_nothing_else() -> None:
    model = small_tsn()
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
    small_tsn().train()(torch.randn(1, T * 3, 64, 64))
    assert not caplog.records


def test_a_step_of_training_keeps_frozen_statistics() -> None:
    torch.manual_seed(0)
    model = small_tsn(dropout=0.0).train()
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
