"""What is remembered of frames: the same whatever the chunks, and nothing of a step that fails."""

import random
from collections.abc import Callable

import pytest
import torch
from helpers.small_tsn import refused
from torch import Tensor

from ops.history import History, State, blank_state, check_shapes, check_state, put_stream

VALUES = torch.arange(1.0, 41).reshape(2, 20, 1) * torch.tensor([1.0, -10, 100])  # (n, t, D)


def run(step: Callable[[History, Tensor], Tensor], seed: int = 0) -> tuple[Tensor, State]:
    """Feed `VALUES` in chunks of any length."""
    draw, history, state = random.Random(seed), History(2), blank_state(2)
    parts, done = [], 0
    while done < VALUES.shape[1]:
        chunk = VALUES[:, done : done + draw.randint(1, 6)]
        history.begin(state)
        parts.append(step(history, chunk))
        state = history.finish(chunk.shape[1])
        done += chunk.shape[1]
    return torch.cat(parts, dim=1), state


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [0, 1, 4, 30])
def test_the_last_values_come_back_before_the_new_ones(length: int, seed: int) -> None:
    def step(history: History, chunk: Tensor) -> Tensor:
        joined = history.extend("place", chunk, length)
        assert joined[:, length:].equal(chunk)
        return joined[:, : chunk.shape[1]]

    delayed, state = run(step, seed)
    padded = torch.cat((torch.zeros(2, length, 3), VALUES), dim=1)
    assert delayed.equal(padded[:, :20])
    assert state["place"].equal(padded[:, 20:])
    assert state["frames_seen"].tolist() == [20, 20]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (4, 1), (3, 4), (8, 1), (2, 7)])
def test_windows_and_means_are_those_of_all_values(size: int, stride: int, seed: int) -> None:
    windows, _ = run(lambda history, new: history.windows("w", new, size, stride), seed)
    means, _ = run(lambda history, new: history.mean("m", new, size, stride), seed)
    for time in range(20):
        times = range(time - (size - 1) * stride, time + 1, stride)
        expected = [VALUES[:, t] if t >= 0 else torch.zeros(2, 3) for t in times]
        assert windows[:, time].equal(torch.stack(expected, dim=-1))
        come = [VALUES[:, t] for t in times if t >= 0]
        torch.testing.assert_close(means[:, time], torch.stack(come).mean(0))


def test_means_of_half_precision_are_summed_in_float32() -> None:
    """Each sum of 200 such scores is beyond float16, and bfloat16 would lose most of its terms."""
    scores = torch.full((1, 200, 1), 1001.0, dtype=torch.float16)
    assert History(1).mean("m", scores, 200, 1).eq(1001).all()
    ones = torch.ones(1, 1000, 1, dtype=torch.bfloat16)
    assert History(1).mean("m", ones, 1000, 1).eq(1).all()


def test_what_has_left_the_window_leaves_no_trace() -> None:
    history = History(1)
    history.begin(blank_state(1))
    history.mean("m", torch.tensor([[[float("nan")], [1e30], [1.0]]]), 2, 1)
    history.begin(history.finish(3))
    assert history.mean("m", torch.tensor([[[2.0], [4.0]]]), 2, 1).tolist() == [[[1.5], [3.0]]]


def test_streams_that_have_seen_nothing_remember_the_filling() -> None:
    history = History(2)
    state = {"frames_seen": torch.tensor([5, 0]), "place": torch.zeros(2, 2, 1)}
    new = torch.tensor([[[1.0]], [[2.0]]])
    history.begin(state)
    assert history.extend("place", new, 2, fill=new).tolist() == [[[0], [0], [1]], [[2], [2], [2]]]
    history.begin(state)
    joined = history.extend("place", new.half(), 2, fill=-float("inf"))
    assert joined[1].flatten().tolist() == [-float("inf"), -float("inf"), 2]
    history.begin(history.finish(1))
    assert history.extend("place", new, 2, fill=7.0)[1].flatten().tolist() == [-float("inf"), 2, 2]


def test_places_of_one_name_are_told_apart_by_their_order() -> None:
    history = History(1)
    first, second = torch.ones(1, 1, 2), torch.full((1, 1, 5), 2.0)
    history.extend("shared", first, 1)
    history.extend("shared", second, 1)
    state = history.finish(1)
    assert list(state) == ["frames_seen", "shared", "shared.1"]
    history.begin(state)
    assert history.extend("shared", first, 1)[:, 0].equal(first[:, 0])
    assert history.extend("shared", second, 1)[:, 0].equal(second[:, 0])


def test_a_step_changes_no_state() -> None:
    history = History(1)
    state = {"frames_seen": torch.tensor([1]), "place": torch.ones(1, 2, 1)}
    history.begin(state)
    history.extend("place", torch.full((1, 1, 1), 9.0), 2, fill=3.0)
    after = history.finish(1)
    assert state["place"].flatten().tolist() == [1, 1]
    assert after["place"].flatten().tolist() == [1, 9]
    assert state["frames_seen"].tolist() == [1]


def test_a_long_chunk_is_not_held() -> None:
    history = History(1)
    history.extend("place", torch.zeros(1, 10_000, 3), 2)
    (remembered,) = (value for name, value in history.finish(10_000).items() if name == "place")
    assert remembered.untyped_storage().nbytes() == 2 * 3 * 4


def test_a_stream_is_put_among_others() -> None:
    state = {"frames_seen": torch.tensor([3, 4]), "place": torch.tensor([[1.0], [2.0]])}
    part = {"frames_seen": torch.tensor([9]), "place": torch.tensor([[7.0]])}
    there = put_stream(state, 1, part)
    assert there["frames_seen"].tolist() == [3, 9]
    assert there["place"].tolist() == [[1], [7]]
    assert put_stream(state, 0)["place"].tolist() == [[0], [2]]
    assert state["place"].tolist() == [[1], [2]]


def test_states_of_another_kind_are_refused() -> None:
    for value in (None, [], {"frames_seen": 3}):
        with refused("state must be what state_dict() of a Stream returned", type(value).__name__):
            check_state(value, 1)
    for seen in (torch.zeros(2, dtype=torch.int64), torch.zeros(1), torch.tensor([-1])):
        with refused("of 1 stream with a 'frames_seen' of int64 (1,)", seen.dtype):
            check_state({"frames_seen": seen}, 1)
    with refused("of 3 streams", "got none"):
        check_state({}, 3)
    check_state(blank_state(3), 3)


def test_all_that_does_not_fit_is_told() -> None:
    template = {**blank_state(2), "a": torch.zeros(2, 1, 3), "b": torch.zeros(2, 4), "c": VALUES}
    state = {
        **blank_state(1),
        "a": torch.zeros(1, 2, 3),
        "b": torch.zeros(1, 4).half(),  # of any precision
        "d": torch.zeros(1, 4),
    }
    with refused(
        "c is missing; d is unknown",
        "a must be (1, 1, 3), got (1, 2, 3)",
    ):
        check_shapes(state, template)
    check_shapes({name: values[:1] for name, values in template.items()}, template)
