"""Which frames are sampled from clips of any length, against the formulas in plain Python."""

from itertools import chain
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from data.sampling import SAMPLING_MODES, segment_indices


@st.composite
def clips(draw: st.DrawFn) -> tuple[int, int, int]:
    """Frames, segments and length of a snippet, often where one formula takes over from another."""
    t = draw(st.integers(1, 12) | st.integers(1, 80))
    length = draw(st.integers(1, 8) | st.integers(1, 90))
    edge = draw(st.sampled_from([t, length, t + length - 1, 64])) + draw(st.integers(-2, 2))
    n = draw(st.just(max(edge, 1)) | st.integers(1, 100) | st.integers(1, 5000))
    return n, t, length


modes = st.sampled_from(SAMPLING_MODES)
seeds = st.integers(0, 2**31)


def sample(n: int, t: int, length: int, mode: str, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return segment_indices(n, t, length, mode=mode, generator=generator)


def middles(n: int, t: int, length: int) -> list[int]:
    tick = (n - length + 1) / t
    return [int(tick / 2 + tick * i) for i in range(t)]


def formula(n: int, t: int, length: int, mode: str, seed: int) -> list[list[int]]:
    """Offsets of each row of T snippets, as the projects with published weights compute them."""
    generator = torch.Generator().manual_seed(seed)
    if mode == "test":
        return [middles(n, t, length)]
    if mode == "validation":
        return [middles(n, t, length) if n > t + length - 1 else [0] * t]
    if mode == "twice":
        tick = (n - length + 1) / t
        return [middles(n, t, length), [int(tick * i) for i in range(t)]]
    if mode == "train":
        average = (n - length + 1) // t
        if average > 0:
            draws = torch.randint(average, (t,), generator=generator).tolist()
            return [[average * i + draw for i, draw in enumerate(draws)]]
        if n > t and n >= length:
            return [sorted(torch.randint(n - length + 1, (t,), generator=generator).tolist())]
        return [[0] * t]
    stride = 64 // t
    if mode == "dense":
        start = int(torch.randint(n - 64, (), generator=generator)) if n > 64 else 0
        return [[(start + i * stride) % n for i in range(t)]]
    starts = [k * max(n - 64, 0) // 9 for k in range(10)]
    return [[(start + i * stride) % n for i in range(t)] for start in starts]


@given(clips(), modes, seeds)
def test_indices_are_the_formulas_wherever_these_are_valid(
    clip: tuple[int, int, int], mode: str, seed: int
) -> None:
    n, t, length = clip
    indices = sample(n, t, length, mode, seed)
    expected = formula(n, t, length, mode, seed)
    assert indices.dtype == torch.int64
    assert indices.shape == (len(expected) * t, length)
    for snippet, offset in zip(indices.tolist(), chain(*expected), strict=True):
        first = max(offset, 0)
        assert snippet == [min(first + k, n - 1) for k in range(length)]
        assert all(0 <= index < n for index in snippet)


@given(clips(), modes, seeds)
def test_snippets_are_in_order(clip: tuple[int, int, int], mode: str, seed: int) -> None:
    n, t, length = clip
    indices = sample(n, t, length, mode, seed)
    # Consecutive inside a snippet, until the last frame is repeated.
    steps = indices.diff(dim=1)
    assert (steps == (indices[:, :-1] < n - 1)).all()
    # In order from segment to segment, but for dense windows that wrap around in short clips.
    if not mode.startswith("dense") or n >= 64:
        rows = indices[:, 0].unflatten(0, (-1, t))
        assert (rows.diff(dim=1) >= 0).all()


@given(clips(), seeds)
def test_every_segment_gives_one_snippet(clip: tuple[int, int, int], seed: int) -> None:
    """Where the clip is long enough: in test and training, snippet i lies in segment i."""
    n, t, length = clip
    choices = n - length + 1
    if choices < t:
        return
    for mode, width in (("test", choices / t), ("train", choices // t)):
        offsets = sample(n, t, length, mode, seed)[:, 0].tolist()
        for i, offset in enumerate(offsets):
            assert int(i * width) <= offset < (i + 1) * width
            assert offset + length <= n  # nothing has to be repeated


@given(clips(), modes, seeds)
def test_a_generator_decides_and_nothing_else(
    clip: tuple[int, int, int], mode: str, seed: int
) -> None:
    n, t, length = clip
    torch.manual_seed(seed + 1)
    before = torch.get_rng_state()
    first = sample(n, t, length, mode, seed)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(seed)
    assert torch.equal(segment_indices(n, t, length, mode=mode), first)
    if mode not in ("train", "dense"):
        assert torch.equal(segment_indices(n, t, length, mode=mode), first)  # whatever was drawn
