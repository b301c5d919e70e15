"""Streams: the scores of each frame are those that the model gives the clip that ends with it."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.counting import counted_images, tiny
from helpers.model_variants import HALF, assert_near
from helpers.peak_memory import peak_memory
from helpers.small_models import assert_close, randomised
from helpers.small_tsn import refused
from helpers.streams import (
    FRAMES,
    SHIFTS,
    as_tuple,
    at,
    batched,
    expected_scores,
    frames_for,
    in_chunks,
    make,
    past,
    per_frame,
)
from torch import nn

from ops.inference import optimize_for_inference
from streaming import Stream
from trn import MTRN
from tsm import TSM
from tsn import TSN


@pytest.mark.essential
@pytest.mark.parametrize("kind", SHIFTS)
def test_a_shift_over_a_stream_is_that_of_the_batched_network(kind: str) -> None:
    model = batched(kind)
    frames = frames_for(model, FRAMES)
    expected = per_frame(model, frames)
    assert_close(in_chunks(Stream(model), frames), expected)
    fast = Stream(optimize_for_inference(model))
    assert_close(in_chunks(fast, frames, longest=1), expected)
    fast.reset()
    assert_close(fast(frames), expected)


@pytest.mark.parametrize("modality", ["Flow", "RGBDiff"])
def test_frames_of_other_modalities_are_snippets(modality: str) -> None:
    model = batched(modality=modality, new_length=2)
    frames = frames_for(model, FRAMES)
    assert_close(in_chunks(Stream(model), frames), per_frame(model, frames))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision(dtype: torch.dtype, channels_last: bool) -> None:
    frames = frames_for(batched(), FRAMES)
    model = optimize_for_inference(batched(), dtype=dtype, channels_last=channels_last)
    scores = in_chunks(Stream(model), frames.to(dtype))
    assert {task.dtype for task in scores} == {dtype}
    assert_near(scores, per_frame(batched(), frames), dtype)


def test_autocast() -> None:
    frames, stream = frames_for(batched(), FRAMES), Stream(batched())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = in_chunks(stream, frames)
    assert_near(scores, per_frame(batched(), frames), torch.bfloat16)


@pytest.mark.parametrize("consensus", ["avg", "max"])
def test_a_shift_scores_each_frame_whatever_the_consensus(consensus: str) -> None:
    model = past(segments=3, consensus_type=consensus)
    frames = frames_for(model, FRAMES)
    assert_close(in_chunks(Stream(model), frames), per_frame(batched(), frames))


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("TSM", {}),
        ("TSN", {}),
        ("TSN", {"consensus_type": "max"}),
        ("TSN", {"consensus_type": "identity"}),
        ("TSN", {"before_softmax": False}),
        ("TSN", {"modality": "RGBDiff", "new_length": 1}),
        ("TRN", {}),
        ("MTRN", {}),
        ("MTRN", {"modality": "Flow", "new_length": 2}),
    ],
)
def test_each_frame_is_seen_once_and_scored_by_the_last_ones(
    variant: str, options: dict[str, Any], stride: int
) -> None:
    model = past() if variant == "TSM" else tiny(variant, segments=3, **options)
    frames = frames_for(model, FRAMES)
    with counted_images(model) as seen:
        scores = in_chunks(Stream(model, stride=stride), frames)
    assert sum(seen) == FRAMES
    for time in range(FRAMES):
        assert_close(at(scores, time), expected_scores(model, frames[: time + 1], stride))


def test_before_t_frames_the_maximum_is_over_those_that_have_come() -> None:
    """Scores below zero would lose to a memory of zeros."""
    model = randomised(TSN(4, 3, "RGB", "resnet18", consensus_type="max", pretrained=None))
    with torch.no_grad():
        model.new_fc.bias.sub_(1000)
    stream = Stream(model, streams=2)
    assert stream(torch.randn(2, 1, 3, 32, 32)).max() < 0
    stream.reset(0)
    assert stream(torch.randn(2, 1, 3, 32, 32)).max() < 0


@pytest.mark.parametrize("variant", ["TSM", "TSN", "MTRN"])
def test_a_running_mean_is_over_the_frames_that_have_come(variant: str) -> None:
    model = make(variant)
    frames = frames_for(model, FRAMES)
    single = as_tuple(Stream(model)(frames))
    for window in (1, 4, 100):
        smooth = in_chunks(Stream(model, window=window), frames)
        for time in range(FRAMES):
            expected = tuple(task[max(time - window + 1, 0) : time + 1].mean(0) for task in single)
            assert_close(at(smooth, time), expected)


def test_probabilities_stay_probabilities() -> None:
    for model in (past(before_softmax=False), tiny("TSN", before_softmax=False)):
        for scores in Stream(model, window=3)(frames_for(model, 5)):
            torch.testing.assert_close(scores.sum(-1), torch.ones(5))


@pytest.mark.parametrize("variant", ["TSM", "TSN", "TRN", "MTRN"])
def test_streams_side_by_side_are_single_ones(variant: str) -> None:
    model = make(variant)
    frames = frames_for(model, 3, 7)
    scores = in_chunks(Stream(model, streams=3, stride=2, window=3), frames)
    for index in range(3):
        expected = as_tuple(Stream(model, stride=2, window=3)(frames[index]))
        assert_close(tuple(task[index] for task in scores), expected)


def test_shapes_of_scores() -> None:
    one_task, two_tasks = TSN(5, 2, "RGB", "resnet18", pretrained=None), past()
    frames = frames_for(two_tasks, 2, 3)
    assert Stream(one_task)(frames[0]).shape == (3, 5)
    assert Stream(one_task, 2)(frames).shape == (2, 3, 5)
    stream = Stream(two_tasks)
    assert [task.shape for task in stream(frames[0, 0])] == [(1, 5), (1, 7)]
    assert [task.shape for task in stream(frames[:1])] == [(1, 3, 5), (1, 3, 7)]


def test_the_model_is_left_alone_and_nothing_learns() -> None:
    model = randomised(MTRN((5, 7), 4, "RGB", "resnet18", pretrained=None))
    frames = frames_for(model, 6)
    expected = as_tuple(Stream(model)(frames))
    model.train()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = as_tuple(Stream(model)(frames))
    assert not any(task.requires_grad for task in scores)
    assert_close(scores, expected)  # no drawn relations, no dropout
    assert [module.training for module in model.modules()] == modes
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_threads_with_a_stream_each_share_a_model() -> None:
    model = past().train()
    try:
        clips = frames_for(model, 4, 20)
        expected = [as_tuple(Stream(model)(clip)) for clip in clips]
        found: dict[int, tuple[torch.Tensor, ...]] = {}

        def work(index: int) -> None:
            found[index] = in_chunks(Stream(model), clips[index], seed=index)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index in range(4):
            assert_close(found[index], expected[index])
        assert model.training
    finally:
        model.eval()


def test_a_model_of_torch_hub_in_a_stream_of_a_clone() -> None:
    repository = str(Path(sys.modules["streaming"].__file__ or "").parent)
    model = torch.hub.load(
        repository, "TSM", (5, 7), 4, "RGB", "resnet18", pretrained=None, source="local",
        shift_direction="past",
    )  # fmt: skip
    model.load_state_dict(past().state_dict())
    frames = frames_for(past(), 5)
    expected = as_tuple(Stream(past())(frames))
    assert_close(in_chunks(Stream(model), frames), expected)
    assert_close(
        in_chunks(torch.hub.load(repository, "Stream", model, source="local"), frames), expected
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"shift_direction": "both", "temporal_pool": True}, {"non_local": True}],
)
def test_models_that_look_ahead_are_refused(options: dict[str, Any]) -> None:
    model = TSM((5, 7), 4, "RGB", "resnet18", pretrained=None, **options)
    with refused("shift_direction='both'", *options, "long_videos.window_logits"):
        Stream(model)


def test_bad_options_are_refused() -> None:
    for name in ("streams", "stride", "window"):
        for value in (0, -1, 1.5, True, "2"):
            with refused(f"{name} must be a positive integer", repr(value)):
                Stream(past(), **{name: value})
    for model in (nn.Linear(2, 2), nn.DataParallel(past()), "TSM"):
        with refused("model must be a TSN, TRN, MTRN or TSM", type(model).__name__):
            Stream(model)  # type: ignore[arg-type]


def test_frames_of_other_shapes_are_refused() -> None:
    one, two = Stream(past()), Stream(past(), streams=2)
    for shape in [(32, 32), (4, 32, 32), (3, 4, 32, 32), (2, 1, 3, 32, 32), (0, 3, 32, 32)]:
        with refused("(3, H, W), (t, 3, H, W) or (1, t, 3, H, W)", f"got {shape}"):
            one(torch.zeros(shape))
    for shape in [(3, 32, 32), (2, 3, 32, 32), (3, 1, 3, 32, 32), (2, 0, 3, 32, 32)]:
        with refused("expected (2, t, 3, H, W) = 2 streams", f"got {shape}"):
            two(torch.zeros(shape))
    with refused("(t, 9, H, W)", "3 frames x 3 channels"):
        Stream(tiny("TSN", "RGBDiff", new_length=2))(torch.zeros(1, 3, 32, 32))
    with refused("frames must be a floating-point tensor, got torch.uint8"):
        one(torch.zeros(3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"must be torch.float32.*got torch.float16"):
        one(torch.zeros(3, 32, 32).half())


@pytest.mark.parametrize("variant", ["TSM", "TSN", "MTRN"])
def test_the_default_device_does_not_matter(variant: str) -> None:
    """Nor whether it is the same at construction and at each call."""
    model = make(variant)
    frames = frames_for(model, 4)
    expected = as_tuple(Stream(model, window=2)(frames))
    with torch.device("meta"):  # the one that every machine has
        stream = Stream(model, window=2)
        first = as_tuple(stream(frames[:2]))
    assert_close(
        tuple(map(torch.cat, zip(first, as_tuple(stream(frames[2:])), strict=True))), expected
    )


def test_the_size_of_frames_stays_until_a_reset() -> None:
    stream = Stream(tiny("TSN"))
    stream(torch.zeros(3, 32, 32))
    with refused("frames must be (3, 32, 32) as before, got (3, 32, 48)", "reset()"):
        stream(torch.zeros(3, 32, 48))
    stream.reset()
    stream(torch.zeros(3, 32, 48))


@pytest.mark.slow
def test_a_compiled_copy_compiles() -> None:
    frames = frames_for(batched(), FRAMES)
    stream = Stream(optimize_for_inference(batched(), compile=True))
    assert_close(in_chunks(stream, frames), per_frame(batched(), frames))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["TSM", "TSN", "MTRN"])
def test_memory_stays_flat(variant: str) -> None:
    model = make(variant)
    stream, frame = Stream(model, window=30), frames_for(model)

    def run(frames: int) -> None:
        for _ in range(frames):
            stream(frame)

    run(100)
    peak_memory(lambda: run(10))  # what comes back after freed memory went to the system
    taken = peak_memory(lambda: run(2000))
    if taken is None:
        pytest.skip("no peak memory on this system")
    assert taken < 12 * 2**20  # as many frames would take 24 MB, their scores and states far more
