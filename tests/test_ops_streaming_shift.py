"""The shift over a stream is the uni-directional shift of its frames, and a copy shares weights."""

import copy
import random

import pytest
import torch
from helpers.counting import tiny
from helpers.small_models import assert_close, randomised
from torch import Tensor, nn

from ops.history import History, blank_state
from ops.inference import optimize_for_inference
from ops.streaming_shift import StreamingShift, streaming_copy
from ops.temporal_shift import TemporalShift, temporal_shift
from trn import MTRN
from tsm import TSM
from tsn import TSN


def past(**options: object) -> TSN:
    return tiny("TSM", shift_direction="past", **options)


def frames_of(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("streams", [1, 3])
def test_chunks_are_shifted_as_the_whole(streams: int, stride: int) -> None:
    draw = random.Random(stride)
    x = torch.randn(streams, 12, 16, 2, 3, generator=torch.Generator().manual_seed(1))
    expected = torch.empty_like(x)
    for phase in range(stride):  # every stride-th frame is a clip of its own
        clip = x[:, phase::stride]
        shifted = temporal_shift(clip.flatten(0, 1), clip.shape[1], 8, "past")
        expected[:, phase::stride] = shifted.view(clip.shape)
    history, state, done = History(streams), blank_state(streams), 0
    shift = StreamingShift(nn.Identity(), 8, history, "place", stride)
    while done < 12:
        chunk = x[:, done : done + draw.randint(1, 4)]
        before = chunk.clone()
        history.begin(state)
        shifted = shift(chunk.flatten(0, 1)).view(chunk.shape)
        state = history.finish(chunk.shape[1])
        assert shifted.equal(expected[:, done : done + chunk.shape[1]])
        assert chunk.equal(before)
        done += chunk.shape[1]


def test_channels_last_stays() -> None:
    shift = StreamingShift(nn.Identity(), 8, History(1), "place")
    x = torch.randn(4, 16, 6, 6).contiguous(memory_format=torch.channels_last)
    assert shift(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("optimized", [False, True])
def test_a_copy_has_the_weights_of_its_model(optimized: bool) -> None:
    model = optimize_for_inference(past()) if optimized else past()
    kinds = [type(module) for module in model.modules()]
    ours = streaming_copy(model, History(1))
    assert [type(module) for module in model.modules()] == kinds
    assert not any(isinstance(module, TemporalShift) for module in ours.modules())
    assert sum(isinstance(module, StreamingShift) for module in ours.modules()) == 8
    theirs = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in (*ours.named_parameters(), *ours.named_buffers()):
        assert tensor is theirs.pop(name)
    assert not theirs


def test_a_copy_follows_its_model() -> None:
    model = randomised(TSM((5, 7), 4, "RGB", "resnet18", pretrained=None, shift_direction="past"))
    ours = streaming_copy(model, History(1))
    other = randomised(copy.deepcopy(model), seed=1)
    for assign in (False, True):
        model.load_state_dict(other.state_dict(), assign=assign)
        for name, tensor in other.state_dict().items():
            assert ours.state_dict()[name].equal(tensor)
    model.double()
    assert {tensor.dtype for tensor in ours.state_dict().values()} == {torch.float64, torch.int64}
    seen: list[str] = []
    for module in (model.base_model, model.base_model.layer1[0].conv1):
        module.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    ours._backbone(torch.zeros(1, 1, 3, 32, 32).double(), 1)
    assert seen == ["StreamingShift", "ResNet"]


@pytest.mark.parametrize("training", [False, True])
def test_neither_mode_is_the_others(training: bool) -> None:
    model = MTRN((5, 7), 4, "RGB", "resnet18", pretrained=None).train(training)
    grads = [parameter.requires_grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    ours = streaming_copy(model, History(1))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert not any(module.training for module in ours.modules())
    model.train(not training)
    assert not any(module.training for module in ours.modules())


def test_what_compiles_in_a_model_compiles_in_its_copy() -> None:
    model = optimize_for_inference(past(), compile=True)
    ours = streaming_copy(model, History(1))
    compiled = [name for name, m in ours.named_modules() if m._compiled_call_impl is not None]
    assert compiled == ["base_model"]
    assert ours.base_model._compiled_call_impl is not model.base_model._compiled_call_impl


def test_models_without_a_shift_compute_the_same() -> None:
    model, frames = tiny("TSN"), frames_of(4)
    ours = streaming_copy(model, History(1))
    with torch.no_grad():
        assert_close(ours(frames[None]), model(frames[None]))


def test_networks_that_hold_their_own_methods() -> None:
    """Those of pretrainedmodels do; a copy's methods must be the copy's."""
    pytest.importorskip("pretrainedmodels")
    model = TSN(5, 2, "RGB", "alexnet", pretrained=None)
    ours = streaming_copy(model, History(1))
    assert ours.base_model.features.__self__ is ours.base_model
