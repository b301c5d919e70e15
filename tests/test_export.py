"""Models survive being copied, pickled, replicated, exported and compiled."""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers.small_models import assert_close, randomised, replicated
from torch import Tensor, nn

from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

T = 3
# Every kind of model, and a backbone with pooling that rounds up and many branches.
FIVE = [
    *(pytest.param(kind, "resnet18", id=kind.__name__) for kind in (TSN, TRN, MTRN, TSM)),
    pytest.param(TSM, "BNInception", id="TSM-BNInception"),
]


def make(kind: type[TSN], base_model: str, **options: Any) -> TSN:
    if kind is TSM and base_model == "BNInception":
        options["shift_place"] = "block"
    with torch.device("meta"):
        model = kind((5, 7), T, "RGB", base_model=base_model, pretrained=None, **options)
    # Not `to_empty`, which would also empty the list of relations.
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape)))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return randomised(model)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()  # graphs of one test are of no use to the next


def clips(count: int) -> Tensor:
    # Any scale would do: the weights are random.
    return torch.randn(count, T * 3, 64, 64)


# Copies


def through_pickle(model: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(model))


def through_a_file(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [copy.deepcopy, through_pickle, through_a_file, replicated]


@pytest.mark.essential
@torch.no_grad()
@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize(("kind", "base_model"), FIVE)
def test_copies_agree_and_are_independent(
    kind: type[TSN], base_model: str, duplicate: Callable[[nn.Module], Any]
) -> None:
    model = make(kind, base_model)
    inputs = clips(1)
    expected = model(inputs)
    twin = duplicate(model)
    assert type(twin) is kind
    assert twin.num_class == (5, 7)
    for parameter in model.parameters():
        parameter.zero_()
    assert_close(twin(inputs), expected)


def places(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The first and the last weights of the backbone, and all behind it; also in replicas."""
    weights = {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor)
    }
    backbone = [name for name in weights if name.startswith("base_model.")]
    for name in [backbone[0], backbone[-1], *(name for name in weights if name not in backbone)]:
        yield name, weights[name]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "base_model"), FIVE)
def test_replicas_really_use_their_own_weights(kind: type[TSN], base_model: str) -> None:
    model = make(kind, base_model)
    inputs = clips(1)
    expected = model(inputs)
    twin = replicated(model)
    for name, weight in places(twin):
        before = weight.clone()
        weight.zero_()
        # With three segments, the second of two pairs of classifiers serves no scale.
        unused = kind is MTRN and name.startswith("consensus.classifiers.1")
        changed = any(
            not torch.allclose(ours, other)
            for ours, other in zip(twin(inputs), expected, strict=True)
        )
        assert changed != unused, name
        weight.copy_(before)
    assert_close(twin(inputs), expected)
    assert_close(model(inputs), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "base_model"),
    [
        (TSM, "resnet18"),
        pytest.param(TSN, "vgg11_bn", marks=pytest.mark.slow),
        (TSN, "inceptionv3"),
        (TSM, "mobilenetv2"),
    ],
)
def test_replicas_of_other_backbones_use_their_own_weights(
    kind: type[TSN], base_model: str
) -> None:
    options = {"non_local": True, "temporal_pool": True} if base_model == "resnet18" else {}
    if kind is TSM:
        model = randomised(TSM(5, 2, "RGB", base_model, pretrained=None, **options))
    else:
        model = make(kind, base_model)
    size = 96 if base_model == "inceptionv3" else 64
    inputs = torch.randn(1, model.num_segments * 3, size, size)
    expected = model(inputs)
    twin = replicated(model)
    assert_close(twin(inputs), expected)
    for parameter in model.parameters():
        parameter.zero_()
    assert_close(twin(inputs), expected)


def test_replicas_train() -> None:
    """Partial batch norm and dropout are the replica's too."""
    model = make(TSN, "resnet18", dropout=0.5).train()
    twin = replicated(model)
    assert twin.training
    assert not twin.base_model.layer1[0].bn1.training
    assert twin.base_model.bn1.training
    verbs, _ = twin(clips(1))
    assert verbs.shape == (1, 5)


@torch.no_grad()
def test_copies_keep_what_was_set() -> None:
    model = make(MTRN, "resnet18", classifier_pairing="per-scale", dropout=0.3)
    model.relation_sampling = "random"
    model.partialBN(False)
    for duplicate in COPIES:
        twin = duplicate(model)
        assert (twin.relation_sampling, twin.classifier_pairing) == ("random", "per-scale")
        assert twin.preprocessing == model.preprocessing
        assert twin.base_model.last_linear.p == 0.3
        assert twin._partial_bn is False


# Programs


def exported(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(model, (example,), dynamic_shapes=({0: batch},))


@torch.no_grad()
def test_exported_programs_are_saved_and_take_any_batch() -> None:
    """The list of relations, which no state dict holds, travels with the program."""
    model = make(MTRN, "resnet18")
    file = io.BytesIO()
    torch.export.save(exported(model, clips(2)), file)
    file.seek(0)
    program = torch.export.load(file).module()
    for count in (1, 3):
        inputs = clips(count)
        assert_close(program(inputs), model(inputs))


@torch.no_grad()
@pytest.mark.parametrize("direction", ["both", "past"])
def test_export_of_bn_inception(direction: str) -> None:
    model = make(TSM, "BNInception", shift_direction=direction)
    inputs = clips(3)
    assert_close(exported(model, inputs[:2]).module()(inputs), model(inputs))


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "options"), [(MTRN, {}), (TSM, {}), (TSM, {"shift_direction": "past"})]
)
def test_compile(kind: type[TSN], options: dict[str, Any]) -> None:
    model = make(kind, "resnet18", **options)
    inputs = clips(2)
    expected = model(inputs)
    assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(inputs), expected)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "base_model"), [(TRN, "resnet18"), (MTRN, "resnet18"), (TSM, "BNInception")]
)
def test_compile_with_inductor(kind: type[TSN], base_model: str) -> None:
    model = make(kind, base_model)
    inputs = clips(2)
    expected = model(inputs)
    assert_close(torch.compile(model, fullgraph=True)(inputs), expected)


@torch.no_grad()
def test_export_of_pooled_and_non_local_networks() -> None:
    model = randomised(
        TSM(5, 2, "Flow", "resnet18", temporal_pool=True, non_local=True, pretrained=None)
    )
    inputs = torch.randn(3, 2, 10, 64, 64)
    assert_close(exported(model, inputs[:2]).module()(inputs), model(inputs))


def test_compile_trains() -> None:
    """One step of the compiled model leaves the gradients that eager leaves."""
    model = randomised(
        MTRN((5, 7), T, "RGB", "resnet18", img_feature_dim=16, dropout=0.0, pretrained=None)
    ).train()
    inputs = clips(2)
    gradients = []
    for run in (model, torch.compile(model, backend="aot_eager")):
        model.zero_grad()
        torch.manual_seed(1)
        verbs, nouns = run(inputs)
        (verbs.logsumexp(1) + nouns.logsumexp(1)).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for eager, compiled in zip(*gradients, strict=True):
        assert_close(compiled, eager)
