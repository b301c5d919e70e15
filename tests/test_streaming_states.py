"""States of streams: saved, restored and reset, each alone; what fails changes nothing."""

import copy
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.counting import tiny
from helpers.model_variants import assert_near
from helpers.small_models import assert_close
from helpers.small_tsn import refused
from helpers.streams import as_tuple, at, expected_scores, frames_for, in_chunks, make, past
from torch import Tensor

from streaming import Stream
from tsm import TSM

VARIANTS = ["TSM", "TSN", "MTRN"]


def assert_same_state(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        assert values.equal(other[name])


def run_at_random(variant: str, count: int, seed: int, check: float) -> None:
    """Score two streams with resets and restored states at random places.

    Args:
        variant: which model.
        count: frames of each stream.
        seed: for what is drawn.
        check: how many of the calls are compared with what the model says without a stream.
    """
    model, draw, stride = make(variant), random.Random(seed), 1 + seed % 2
    frames = frames_for(model, 2, count, seed=seed)
    stream = Stream(model, streams=2, stride=stride)
    seen: list[list[Tensor]] = [[], []]  # by each stream since it began
    saved: list[tuple[dict[str, Tensor], list[Tensor]]] = []
    time = compared = 0
    while time < count:
        action, index = draw.random(), draw.randrange(2)
        if action < 0.05:
            stream.reset(index)
            seen[index] = []
        elif action < 0.06:
            stream.reset()
            seen = [[], []]
        elif action < 0.15:
            saved = [*saved[-2:], (stream.state_dict(index), seen[index][:])]
        elif action < 0.2 and saved:
            state, earlier = draw.choice(saved)
            stream.load_state_dict(state, index)
            seen[index] = earlier[:]
        length = min(draw.choice([1, 1, 1, 2, 5]), count - time)
        chunk = frames[:, time : time + length]
        scores = as_tuple(stream(chunk))
        time += length
        for place in range(2):
            seen[place] += chunk[place]
        if draw.random() < check:
            compared += 1
            assert_close(
                at(scores, index, -1), expected_scores(model, torch.stack(seen[index]), stride)
            )
    assert compared


@pytest.mark.parametrize("variant", VARIANTS)
def test_resets_and_restored_states_at_random_places(variant: str) -> None:
    for seed in range(2):
        run_at_random(variant, 60, seed, check=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_over_thousands_of_frames(variant: str) -> None:
    run_at_random(variant, 3000, 2, check=0.1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_state_is_saved_and_restored(variant: str, tmp_path: Path) -> None:
    model = make(variant)
    frames = frames_for(model, 9)
    stream = Stream(model, stride=2, window=3)
    stream(frames[:4])
    torch.save(stream.state_dict(), tmp_path / "state.pt")
    expected = as_tuple(stream(frames[4:]))
    fresh = Stream(model, stride=2, window=3)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_close(as_tuple(fresh(frames[4:])), expected)
    assert_same_state(fresh.state_dict(), stream.state_dict())


def test_a_state_has_what_a_shift_remembers() -> None:
    stream = Stream(past(), streams=2, stride=3)
    assert list(stream.state_dict()) == ["frames_seen"]
    stream(frames_for(past(), 2, 50))
    state = stream.state_dict()
    assert state["frames_seen"].tolist() == [50, 50]
    assert state["input"].shape == (2, 0, 3, 32, 32)
    assert state["base_model.layer1.1.conv1"].shape == (2, 3, 8, 8, 8)
    assert len(state) == 2 + 8
    for values in stream._state.values():  # no long chunk is held
        assert values.untyped_storage().nbytes() == values.nbytes


@pytest.mark.parametrize(("kind", "numbers"), [("resnet50", 702_464), ("mobilenetv2", 27_048)])
def test_a_state_is_as_small_as_published(kind: str, numbers: int) -> None:
    """By the authors, of one stream at 224 x 224 (`frames_seen` is not part of it)."""
    stream = Stream(past(kind))
    stream(torch.zeros(3, 224, 224))
    assert sum(values.numel() for values in stream.state_dict().values()) - 1 == numbers


def test_states_are_copies() -> None:
    stream = Stream(past())
    stream(frames_for(past(), 3))
    state = stream.state_dict()
    for values in stream.state_dict().values():
        values.fill_(7)
    assert_same_state(stream.state_dict(), state)
    kept = {name: values.clone() for name, values in state.items()}
    stream.load_state_dict(state)
    for values in state.values():
        values.fill_(7)
    assert_same_state(stream.state_dict(), kept)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stream_moves_to_another_place(variant: str) -> None:
    model = make(variant)
    frames = frames_for(model, 2, 8)
    pair, single = Stream(model, streams=2), Stream(model)
    pair(frames[:, :4])
    expected = as_tuple(pair(frames[:, 4:]))
    pair.reset()
    pair(frames[:, :4])
    single.load_state_dict(pair.state_dict(1))
    assert_close(as_tuple(single(frames[1, 4:])), tuple(task[1] for task in expected))
    three = Stream(model, streams=3)  # which has seen nothing
    three.load_state_dict(pair.state_dict(1), 2)
    scores = as_tuple(three(torch.stack([frames[0, 4:], frames[0, 4:], frames[1, 4:]])))
    assert_close(tuple(task[2] for task in scores), tuple(task[1] for task in expected))
    assert_close(tuple(task[0] for task in scores), as_tuple(Stream(model)(frames[0, 4:])))


def test_states_of_streams_that_have_seen_nothing() -> None:
    model = past()
    frames = frames_for(model, 2, 3)
    stream = Stream(model, streams=2)
    expected = as_tuple(stream(frames))
    stream.load_state_dict(Stream(model).state_dict(), 1)
    assert stream.state_dict()["frames_seen"].tolist() == [3, 0]
    stream.load_state_dict(Stream(model, streams=2).state_dict())
    assert_close(as_tuple(stream(frames)), expected)


def test_a_reset_stream_is_a_new_one() -> None:
    stream = Stream(past(), streams=2)
    frames = frames_for(past(), 2, 4)
    stream(frames)
    stream.reset(1)
    assert all((values[0] == 0).all() for values in stream.state_dict(1).values())
    stream.reset(0)
    assert_same_state(stream.state_dict(), Stream(past(), streams=2).state_dict())


def test_what_ran_in_inference_mode_goes_on_outside() -> None:
    stream, frames = Stream(past(), streams=2), frames_for(past(), 2, 3)
    with torch.inference_mode():
        stream(frames)
    stream.reset(0)
    stream.load_state_dict(stream.state_dict(1), 0)
    stream(frames)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_call_that_fails_changes_nothing(error: type[BaseException]) -> None:
    model = past()
    frames = frames_for(model, 6)
    expected = in_chunks(Stream(model), frames)
    stream = Stream(model)
    stream(frames[:3])
    before = stream.state_dict()

    def fail(*_: object) -> None:
        raise error

    hook = model.base_model.layer3.register_forward_pre_hook(fail)
    try:
        with pytest.raises(error):
            stream(frames[3:])
    finally:
        hook.remove()
    with refused("got (4, 32, 32)"):
        stream(torch.zeros(4, 32, 32))
    assert_same_state(stream.state_dict(), before)
    assert_close(as_tuple(stream(frames[3:])), tuple(task[3:] for task in expected))


def test_states_that_do_not_fit_are_refused_and_change_nothing() -> None:
    model, frames = past(), frames_for(past(), 4)
    stream = Stream(model)
    stream(frames)
    before = stream.state_dict()
    deeper = TSM((5, 7), 4, "RGB", "resnet34", pretrained=None, shift_direction="past")
    other, strided, smooth = Stream(deeper), Stream(model, stride=2), Stream(model, window=5)
    larger, pair = Stream(model), Stream(model, streams=2)
    for another in (other, strided, smooth):
        another(frames)
    larger(torch.zeros(3, 64, 64))
    for target in (stream, Stream(model)):
        with refused("base_model.layer1.2.conv1 is unknown"):
            target.load_state_dict(other.state_dict())
        with refused("base_model.layer1.0.conv1 must be (1, 1, 8, 8, 8), got (1, 2, 8, 8, 8)"):
            target.load_state_dict(strided.state_dict())
        with refused("window is unknown", "window.1 is unknown", "same stride and window"):
            target.load_state_dict(smooth.state_dict())
        with refused("1 stream ", "got torch.int64 (2,)"):
            target.load_state_dict(pair.state_dict())
        with refused("'input'"):
            target.load_state_dict({"frames_seen": torch.tensor([3])})
        with refused("base_model.layer4.1.conv1 is missing"):
            target.load_state_dict({k: v for k, v in before.items() if "layer4.1" not in k})
        with refused("state must be that of a Stream of this model", "(1, 1, 9, 32, 32)"):
            target.load_state_dict({**before, "input": torch.zeros(1, 0, 9, 32, 32)})
        with refused("got list"):
            target.load_state_dict([])  # type: ignore[arg-type]
    assert_same_state(stream.state_dict(), before)
    stream.load_state_dict(larger.state_dict())  # all streams may go on with another size
    pair(torch.zeros(2, 1, 3, 32, 32))
    with refused("input must be (1, 0, 3, 32, 32), got (1, 0, 3, 64, 64)"):
        pair.load_state_dict(larger.state_dict(), 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_state_goes_on_in_another_precision(variant: str) -> None:
    model = make(variant)
    frames = frames_for(model, 6)
    expected = tuple(task[3:] for task in as_tuple(Stream(model)(frames)))
    stream = Stream(copy.deepcopy(model).bfloat16())
    stream(frames[:3].bfloat16())
    state = stream.state_dict()
    for name in state.keys() - {"frames_seen"}:
        assert state[name].dtype == torch.bfloat16
    single = Stream(model)
    single.load_state_dict(state)
    assert_near(as_tuple(single(frames[3:])), expected, torch.bfloat16)
    assert {values.dtype for values in single.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_state_of_autocast_is_restored_outside_it(variant: str) -> None:
    """As a process does that starts anew: it loads, then computes."""
    model = make(variant)
    frames = frames_for(model, 6)
    stream, fresh = Stream(model), Stream(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stream(frames[:3])
    fresh.load_state_dict(stream.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(as_tuple(fresh(frames[3:])), as_tuple(stream(frames[3:])))


def test_a_stream_goes_on_when_its_model_gets_another_precision() -> None:
    model = copy.deepcopy(past())
    frames = frames_for(model, 6)
    expected = tuple(task[3:] for task in as_tuple(Stream(model)(frames)))
    stream = Stream(model)
    stream(frames[:3])
    model.bfloat16()
    assert_near(as_tuple(stream(frames[3:].bfloat16())), expected, torch.bfloat16)


def test_a_state_fits_a_model_in_torch_compiles_wrapper() -> None:
    model = copy.deepcopy(past())
    frames = frames_for(model, 6)
    stream = Stream(model)
    stream(frames[:3])
    state, expected = stream.state_dict(), as_tuple(stream(frames[3:]))
    outside = torch.compile(model, backend="eager")
    model.base_model = torch.compile(model.base_model, backend="eager")
    for wrapped in (model, outside):
        fresh = Stream(wrapped)
        fresh.load_state_dict(state)
        assert_close(as_tuple(fresh(frames[3:])), expected)


def test_a_state_in_which_nothing_was_seen_takes_frames_of_any_size() -> None:
    pair, single = Stream(past(), streams=2), Stream(past())
    pair(frames_for(past(), 2, 3))
    pair.reset(0)
    single.load_state_dict(pair.state_dict(0))
    single(torch.zeros(3, 48, 48))


def test_streams_are_counted_by_integers_of_any_kind() -> None:
    stream = Stream(tiny("TSN"), streams=2)
    stream(torch.zeros(2, 3, 3, 32, 32))
    stream.reset(np.int64(1))  # type: ignore[arg-type]  # of np.flatnonzero, say
    assert stream.state_dict()["frames_seen"].tolist() == [3, 0]


@pytest.mark.parametrize("index", [2, -1, True, 0.0, "0"])
def test_streams_that_do_not_exist_are_refused(index: object) -> None:
    stream = Stream(tiny("TSN"), streams=2)
    state = stream.state_dict(0)
    for call in (stream.reset, stream.state_dict, lambda i: stream.load_state_dict(state, i)):
        with refused("index must be a stream, 0 to 1", repr(index)):
            call(index)  # type: ignore[operator]
