"""Sampling: the indices of the frames of a clip that a model sees, computed from lengths alone.

A clip is cut into T segments and one snippet of L consecutive frames is taken from each (TSN,
arXiv:1608.00859, section 3.1). The formulas are those of the projects whose weights are published,
so that a network is tested on the frames it was trained for. Notation: n frames in the clip,
T `num_segments`, L `snippet_length`, i = 0 ... T - 1 the segment; a snippet starts at offset_i.

- "test": `int(tick / 2 + tick * i)` with `tick = (n - L + 1) / T`, the middle of each segment.
- "validation": as "test" for `n > T + L - 1`, else 0 (tsn-pytorch).
- "train": `i * a + randint(a)` with `a = (n - L + 1) // T`, a random place in each segment. Where
  `a = 0` and `n > T`: T sorted draws of `randint(n - L + 1)`; else 0 (tsn-pytorch).
- "twice": T snippets as "test", then T at `int(tick * i)` (TSM's twice_sample, arXiv:1811.08383).
- "dense": `(start + i * (64 // T)) % n`, one window of 64 frames, with `start = randint(n - 64)`
  for `n > 64`, else 0 (TSM's dense_sample, for training and validation).
- "dense-test": 10 T snippets, as "dense" with ten starts: `k * (n - 64) // 9` for k = 0 ... 9, or
  all 0 (TSM).

`randint(m)` is uniform on 0 ... m - 1. "dense" therefore never draws the last window, as in TSM.

Differences from the original:
    - Indices count from 0, whatever number the first file of a folder carries.
    - Every clip of at least one frame works. The originals give negative indices (test,
      n < L - 1), raise (training, n < L and n > T) or read past the end (n < L); here such
      snippets start at frame 0, and a snippet that runs past the end repeats the last frame.
    - Random draws come from torch's generator, which data loaders seed per worker, not from
      NumPy's.
"""

import torch
from torch import Tensor

from data.options import positive_integer

__all__ = ["SAMPLING_MODES", "segment_indices"]

SAMPLING_MODES = ("test", "validation", "train", "twice", "dense", "dense-test")
"""The accepted values of `mode`."""

_DENSE_WINDOW = 64  # frames, in TSM's dense sampling
_DENSE_TEST_WINDOWS = 10


def segment_indices(
    frame_count: int,
    num_segments: int,
    snippet_length: int,
    *,
    mode: str = "test",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the indices of the frames that a model sees of one clip.

    Args:
        frame_count: number of frames in the clip (flow: of pairs of u and v), at least 1.
        num_segments: T, number of segments, at least 1.
        snippet_length: L, consecutive frames taken per segment, at least 1. A model for RGB
            differences needs one more than its `new_length`.
        mode: one of `SAMPLING_MODES`; the module docstring has the formulas.
        generator: CPU generator that "train" and "dense" draw from; torch's global one if None.

    Returns:
        int64 tensor (T, L) of indices in 0 ... frame_count - 1; (2T, L) for "twice" and (10T, L)
        for "dense-test", one clip of T snippets after the other.

    Raises:
        ValueError: for an unknown mode, or a number that is not a positive integer.
    """
    n = positive_integer("frame_count", frame_count)
    t = positive_integer("num_segments", num_segments)
    length = positive_integer("snippet_length", snippet_length)
    if mode == "test":
        offsets = _segment_middles(n, t, length)
    elif mode == "validation":
        offsets = _segment_middles(n, t, length) if n > t + length - 1 else [0] * t
    elif mode == "train":
        offsets = _random_offsets(n, t, length, generator)
    elif mode == "twice":
        tick = (n - length + 1) / t
        offsets = _segment_middles(n, t, length) + [int(tick * i) for i in range(t)]
    elif mode == "dense":
        spare = n - _DENSE_WINDOW
        start = int(torch.randint(spare, (), generator=generator, device="cpu")) if spare > 0 else 0
        offsets = _dense_offsets(n, t, start)
    elif mode == "dense-test":
        spare, last = max(n - _DENSE_WINDOW, 0), _DENSE_TEST_WINDOWS - 1
        starts = [k * spare // last for k in range(_DENSE_TEST_WINDOWS)]
        offsets = [offset for start in starts for offset in _dense_offsets(n, t, start)]
    else:
        raise ValueError(f"mode must be one of {', '.join(SAMPLING_MODES)}, got {mode!r}")

    first_frames = torch.tensor(offsets, dtype=torch.int64, device="cpu").clamp_(min=0)
    # (segments, 1) + (L,) -> (segments, L)
    return (first_frames[:, None] + torch.arange(length, device="cpu")).clamp_(max=n - 1)


def _segment_middles(n: int, t: int, length: int) -> list[int]:
    """Return the test offsets, which are negative where the clip is shorter than a snippet."""
    tick = (n - length + 1) / t
    return [int(tick / 2 + tick * i) for i in range(t)]


def _random_offsets(n: int, t: int, length: int, generator: torch.Generator | None) -> list[int]:
    """Draw the training offsets, one in each segment, so that every part of the clip is seen."""
    choices = n - length + 1
    segment = choices // t
    if segment > 0:
        draws = torch.randint(segment, (t,), generator=generator, device="cpu")
        return (draws + torch.arange(t, device="cpu") * segment).tolist()
    if n > t and choices > 0:
        draws = torch.randint(choices, (t,), generator=generator, device="cpu")
        return draws.sort().values.tolist()
    return [0] * t


def _dense_offsets(n: int, t: int, start: int) -> list[int]:
    """Return the offsets of one dense window, which wraps around in clips shorter than it."""
    stride = _DENSE_WINDOW // t
    return [(start + i * stride) % n for i in range(t)]
