"""Steps: losses, gradients, precision, what is frozen, and numbers that are not finite."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from helpers.training_runs import ALONE, clips, quick_recipe, small_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from training.batches import Batch, ClipBatches, plan_epoch
from training.learner import Learner, prepare_model
from training.recipes import Recipe
from tsn import TSN


def learn(model: TSN, recipe: Recipe, folder: Path, steps: int = 2) -> list[float]:
    """Let a model learn from the first batches of an epoch; return their losses."""
    two_tasks = isinstance(model.num_class, tuple)
    dataset = clips(folder, two_tasks=two_tasks)
    batches = ClipBatches(dataset, model.training_transform(flip=False), seed=recipe.seed)
    learner = Learner(model, recipe, ALONE, 3)
    losses: list[float] = []
    for part in plan_epoch(len(dataset), recipe, 0):
        result = learner.learn(batches[part], len(losses), stop=False)
        assert (result is not None) == part.is_last
        if result is not None:
            losses.append(result[0])
        if len(losses) == steps:
            break
    return losses


def weights(model: TSN) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_step_is_that_of_a_plain_loop(actions: Path) -> None:
    recipe = quick_recipe(clip_norm=0.5, weight_decay=0.1, momentum=0.5, schedule="constant")
    model = small_model("TSN", (6, 2))
    plain = deepcopy(model)
    groups = plain.get_optim_policies()
    for group in groups:
        group["lr"], group["weight_decay"] = 0.01 * group["lr_mult"], 0.1 * group["decay_mult"]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.5)
    dataset = clips(actions, two_tasks=True)
    batches = ClipBatches(dataset, plain.training_transform(flip=False), seed=recipe.seed)
    losses = []
    plain.dropout = 0
    plain.train()
    for part in plan_epoch(len(dataset), recipe, 0)[:2]:
        batch = batches[part]
        verbs, nouns = plain(batch.inputs)
        loss = cross_entropy(verbs, batch.labels["verb"])
        loss = (loss + cross_entropy(nouns, batch.labels["noun"])) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    assert learn(model, recipe, actions) == pytest.approx(losses, rel=1e-5)
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["TSN", "TRN", "MTRN", "TSM"])
@pytest.mark.parametrize("num_class", [6, (6, 2)])
def test_all_models_learn(actions: Path, kind: str, num_class: int | tuple[int, int]) -> None:
    model = small_model(kind, num_class)
    before = weights(model)
    losses = learn(model, quick_recipe(), actions)
    assert len(set(losses)) == 2
    same = {name for name, tensor in weights(model).items() if tensor.equal(before[name])}
    unused = {name for name in before if name.startswith("consensus.classifiers.")}
    assert same <= (unused if kind == "MTRN" else set())


@pytest.mark.parametrize("accumulate", [2, 3])
def test_parts_of_a_batch_add_up_to_it(actions: Path, accumulate: int) -> None:
    results = []
    for parts in (1, accumulate):
        # Batch norms, which would see other batches, are frozen.
        model = small_model("TSN", (6, 2))
        recipe = quick_recipe(accumulate=parts, freeze_backbone=True, label_smoothing=0.1)
        results.append((learn(model, recipe, actions), model.fc_verb.weight.detach()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1])


def test_a_frozen_backbone_stays_as_it_is(actions: Path) -> None:
    model = small_model("TSM", dropout=0.5)
    before = weights(model)
    learn(model, quick_recipe(freeze_backbone=True, dropout=0.5), actions)
    changed = {name for name, tensor in weights(model).items() if not tensor.equal(before[name])}
    assert changed == {"new_fc.weight", "new_fc.bias"}
    assert model.base_model.last_linear.training  # dropout


def test_partial_batch_norm_is_the_recipes() -> None:
    model = small_model("TSN", base_model="resnet18")
    prepare_model(model, quick_recipe(partial_bn=True, dropout=0.3))
    assert (model.partial_bn, model.dropout) == (True, 0.3)
    assert model.base_model.bn1.training
    assert not model.base_model.layer1[0].bn1.training


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_what_a_step_draws_depends_on_its_number_alone(actions: Path, dropout: float) -> None:
    recipe = quick_recipe(dropout=dropout)
    results = []
    for seed in (1, 2):
        model = small_model("MTRN")
        torch.manual_seed(seed)
        results.append(learn(model, recipe, actions))
    assert results[0] == results[1]
    other = learn(small_model("MTRN"), quick_recipe(dropout=dropout, seed=1), actions)
    assert other != results[0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_gives_nearly_the_same(actions: Path, precision: str) -> None:
    expected = learn(small_model("TSN"), quick_recipe(), actions, steps=1)
    model = small_model("TSN")
    losses = learn(model, quick_recipe(precision=precision), actions, steps=1)
    assert losses != expected
    assert losses == pytest.approx(expected, rel=0.02)
    assert model.new_fc.weight.dtype == torch.float32


def test_channels_last_gives_the_same(actions: Path) -> None:
    expected = learn(small_model("TSM", base_model="resnet18"), quick_recipe(), actions)
    model = small_model("TSM", base_model="resnet18")
    assert learn(model, quick_recipe(channels_last=True), actions) == pytest.approx(expected, 1e-4)
    assert model.base_model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def damaged(batch: Batch, clip: int) -> Batch:
    inputs = batch.inputs.clone()
    inputs[clip] = torch.nan
    return Batch(batch.part, inputs, batch.labels, batch.ids, {})


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(actions: Path) -> None:
    model, dataset = small_model("TSN"), clips(actions)
    recipe = quick_recipe(freeze_backbone=True)
    batch = ClipBatches(dataset, model.training_transform())[plan_epoch(12, recipe, 0)[0]]
    learner = Learner(model, recipe, ALONE, 3)
    before = weights(model)
    with pytest.raises(
        ValueError, match=rf"loss is nan, of the segments {batch.ids[2]}: try a lower lr$"
    ):
        learner.learn(damaged(batch, 2), 0, stop=False)
    assert all(tensor.equal(before[name]) for name, tensor in weights(model).items())


def test_gradients_that_are_not_finite_stop_before_the_weights_change(actions: Path) -> None:
    model, dataset = small_model("TSN"), clips(actions)
    recipe = quick_recipe(clip_norm=None)
    batch = ClipBatches(dataset, model.training_transform())[plan_epoch(12, recipe, 0)[0]]
    learner = Learner(model, recipe, ALONE, 3)
    model.new_fc.weight.register_hook(lambda gradient: gradient * torch.inf)
    before = model.new_fc.weight.detach().clone()
    with pytest.raises(ValueError, match=r"norm of the gradients is (nan|inf), of the batch of"):
        learner.learn(batch, 0, stop=False)
    assert model.new_fc.weight.equal(before)


def test_synchronised_batch_norm_needs_gpus() -> None:
    with pytest.raises(ValueError, match="sync_bn must be False on the CPU"):
        Learner(small_model(), quick_recipe(sync_bn=True), ALONE, 3)
