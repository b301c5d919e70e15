"""Models optimised for inference give the same outputs with less to do, and can do nothing else."""

import copy
from typing import Any

import pytest
import torch
from helpers.original_format import VARIANTS, make
from helpers.small_models import assert_close, randomised
from torch import nn
from torchvision.models.resnet import BasicBlock

from model_loader import save_checkpoint
from ops.inference import optimize_for_inference
from ops.temporal_shift import TemporalShift
from trn import TRN
from tsm import TSM
from tsn import TSN

T = 4


def clip_for(model: TSN, size: int = 64, count: int = 2) -> torch.Tensor:
    channels = model.frames_per_snippet * (2 if model.modality == "Flow" else 3)
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, model.num_segments * channels, size, size, generator=generator)


@torch.inference_mode()
def assert_same_outputs(fast: TSN, model: TSN, size: int = 64) -> None:
    clip = clip_for(model, size, count=1 if size > 64 else 2)
    for ours, expected in zip(
        [*fast(clip), fast.features(clip)], [*model(clip), model.features(clip)], strict=True
    ):
        assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()


def norms(model: TSN) -> list[nn.Module]:
    kinds = nn.BatchNorm2d | nn.BatchNorm3d
    return [module for module in model.base_model.modules() if isinstance(module, kinds)]


@pytest.mark.essential
@pytest.mark.parametrize(
    ("model_type", "modality"),
    [*((kind, "RGB") for kind in VARIANTS), ("tsn", "Flow"), ("tsm-nl", "RGBDiff")],
)
def test_all_kinds_of_models(model_type: str, modality: str) -> None:
    model = make(model_type, modality)
    fast = optimize_for_inference(model)
    assert type(fast) is type(model)
    assert norms(model)
    assert not norms(fast)
    assert_same_outputs(fast, model)


@pytest.mark.parametrize(
    ("kind", "base_model", "size"),
    [
        (TSN, "resnet50", 64),
        (TSM, "BNInception", 64),
        (TSN, "vgg11_bn", 64),
        pytest.param(TSN, "vgg11", 64, marks=pytest.mark.slow),  # nothing to fold, much to fill
        (TSN, "inceptionv3", 96),
        (TSM, "mobilenetv2", 64),
    ],
)
def test_all_kinds_of_backbones(kind: type[TSN], base_model: str, size: int) -> None:
    place = {"shift_place": "block"} if (kind, base_model) == (TSM, "BNInception") else {}
    model = randomised(kind((5, 7), 2, "RGB", base_model, pretrained=None, **place))
    fast = optimize_for_inference(model)
    assert not norms(fast)
    assert_same_outputs(fast, model, size)


def test_networks_of_pretrainedmodels_keep_their_batch_norms() -> None:
    """There a batch norm may come before its convolution, or anywhere."""
    model = randomised(TSN((5, 7), 2, "RGB", "densenet121", pretrained=None))
    fast = optimize_for_inference(model)
    assert len(norms(fast)) == len(norms(model))
    assert_same_outputs(fast, model, 224)


def test_the_model_stays_as_it_is() -> None:
    model = make("tsm").train()
    before = copy.deepcopy(model.state_dict())
    fast = optimize_for_inference(model)
    assert model.training
    assert not fast.training
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {t.data_ptr() for t in fast.parameters()}.isdisjoint(
        t.data_ptr() for t in model.parameters()
    )


def test_gradients_of_the_input_are_the_models() -> None:
    model = make("tsm")
    inputs = torch.randn(1, model.num_segments * 3, 64, 64, requires_grad=True)
    ours, expected = (
        torch.autograd.grad(sum(task.sum() for task in kind(inputs)), inputs)[0]
        for kind in (optimize_for_inference(model), model)
    )
    assert_close(ours, expected)


def test_it_cannot_be_trained_or_saved(tmp_path: Any) -> None:
    model = make("tsn")
    fast = optimize_for_inference(model)
    assert (model.inference_only, fast.inference_only) == (False, True)
    assert fast.eval() is fast
    for use in (fast.train, fast.get_optim_policies):
        with pytest.raises(ValueError, match=r"optimised for inference .* cannot be trained"):
            use()
    with pytest.raises(ValueError, match="requires_grad must be False: a model optimised"):
        fast.requires_grad_()
    assert fast.requires_grad_(False) is fast
    assert model.requires_grad_() is model
    with pytest.raises(ValueError, match="optimised for inference"):
        save_checkpoint(fast, tmp_path / "fast.pth")
    again = optimize_for_inference(fast)
    assert_same_outputs(again, model)


@pytest.mark.parametrize("name", ["tsn", "tsm", "tsm-nl"])
def test_no_convolution_has_to_rearrange_its_input(name: str) -> None:
    """Not even behind a shift: a layout that is lost costs a copy at every convolution."""
    fast = optimize_for_inference(make(name))
    layouts = []

    def note(module: nn.Module, arguments: tuple[torch.Tensor]) -> None:
        (x,) = arguments
        if x.shape[1] > 1 and x.shape[2] * x.shape[3] > 1:
            layouts.append(x.is_contiguous(memory_format=torch.channels_last))

    for module in fast.base_model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(note)
    with torch.inference_mode():
        fast(clip_for(fast))
    assert len(layouts) > 15
    assert layouts.count(False) <= (1 if name != "tsm-nl" else 6), layouts


def test_the_layout_may_stay() -> None:
    fast = optimize_for_inference(make("tsn"), channels_last=False)
    assert all(p.is_contiguous() for p in fast.parameters())
    assert_same_outputs(fast, make("tsn"))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize("name", ["tsn", "mtrn", "tsm"])
def test_half_precision(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = make(name)
    fast = optimize_for_inference(model, dtype=dtype)
    assert {parameter.dtype for parameter in fast.parameters()} == {dtype}
    clip = clip_for(model)
    with torch.inference_mode():
        for ours, expected in zip(fast(clip.to(dtype)), model(clip), strict=True):
            assert ours.dtype == dtype
            assert (ours.float() - expected).abs().max() < tolerance * expected.abs().max()
    with pytest.raises(ValueError, match=f"inputs must be {dtype}"):
        fast(clip)


def test_a_half_precision_model_is_folded_in_full_precision() -> None:
    model = make("tsn").to(torch.bfloat16)
    fast = optimize_for_inference(model, dtype=torch.float32)
    reference = copy.deepcopy(model).float()
    assert_same_outputs(fast, reference)


@torch.inference_mode()
def test_compiled() -> None:
    model = make("tsm")
    calls = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(graph)
        return graph.forward

    fast = optimize_for_inference(model)
    fast.base_model.compile(backend=backend)
    clip = clip_for(model)
    assert_close(fast(clip), model(clip))
    assert calls
    torch._dynamo.reset()
    assert optimize_for_inference(model, compile=True).base_model._compiled_call_impl is not None


@torch.no_grad()
def test_it_can_be_exported_and_copied() -> None:
    model = make("tsm")
    fast = optimize_for_inference(model)
    clip = clip_for(model)
    exported = torch.export.export(fast, (clip,)).module()
    assert_close(exported(clip), model(clip))
    assert_close(copy.deepcopy(fast)(clip), model(clip))


def shifts(model: nn.Module) -> dict[str, TemporalShift]:
    return {name: m for name, m in model.named_modules() if isinstance(m, TemporalShift)}


def test_shifts_stay_where_they_are() -> None:
    model = TRN((5, 7), 2, "RGB", "resnet18", pretrained=None)
    assert not shifts(optimize_for_inference(model))
    tsm = make("tsm", shift_place="blockres")
    assert list(shifts(optimize_for_inference(tsm))) == list(shifts(tsm)) != []


@pytest.mark.parametrize("base_model", ["resnet18", "BNInception"])
@torch.inference_mode()
def test_activations_of_blocks_stay(base_model: str) -> None:
    place = "blockres" if base_model == "resnet18" else "block"
    model = TSM((5, 7), T, "RGB", base_model, pretrained=None, shift_place=place).eval()
    activations: list[list[torch.Tensor]] = []
    for network in (model, optimize_for_inference(model)):
        kept: list[torch.Tensor] = []
        for name, module in network.base_model.named_modules():
            if isinstance(module, BasicBlock) or name.endswith("pool_proj_bn"):
                module.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
        network(clip_for(model))
        activations.append(kept)
    assert len(activations[0]) >= 8
    assert_close(tuple(activations[1]), tuple(activations[0]))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear(1, 1), {}, "model must be a TSN, TRN, MTRN or TSM, got Linear"),
        (TSN, {}, "model must be a TSN, TRN, MTRN or TSM, got type"),
        (
            None,
            {"dtype": torch.int8},
            "dtype must be a floating-point torch.dtype or None, got torch.int8",
        ),
        (
            None,
            {"dtype": "bfloat16"},
            "dtype must be a floating-point torch.dtype or None, got 'bfloat16'",
        ),
    ],
)
def test_what_cannot_be_optimised(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimize_for_inference(model or make("tsn"), **options)
