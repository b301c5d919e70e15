"""Models over long videos: each frame is decoded once, and seen by the backbone once if it can be.

Memory does not grow with the video.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from data.options import positive_integer
from data.sampling import segment_indices
from data.video import Clip, open_frames
from data.windows import Windows
from ops.inference import check_model, evaluation_mode
from snippets import dense_snippets, get_crops, read_crops, run_snippets, run_windows
from tsn import TSN, Logits, to_tasks

__all__ = ["frame_features", "window_logits"]

Output = TypeVar("Output", bound=Logits)


def frame_features(
    model: TSN,
    source: Clip,
    *,
    stride: int = 1,
    hop: int | None = None,
    crop_count: int = 1,
    batch_size: int = 16,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return features along a whole video, of which each frame is read once.

    Snippets start at frames 0, stride, 2 stride, ... as far as they fit; of a video shorter than a
    snippet there is one, which repeats the last frame.

    Args:
        model: any model, best an optimised copy; evaluates whatever its mode, which stays.
        source: the video, as for `data.video.open_frames`.
        stride: frames from one snippet to the next.
        hop: for TSM, snippets from one window to the next, see `snippets.dense_snippets`.
        crop_count: 1, 3 or 10; features are averaged over the crops.
        batch_size: snippets that go through the backbone together.

    Returns:
        An iterator over pairs: indices of the snippets' first frames, int64 (n,), and features,
        float32 (n, D) on the model's device. TSM with temporal pooling has one for every second
        snippet.

    Raises:
        ValueError: for another kind of model, a source of another modality, or an option out of its
            range; while iterating, for frames that cannot be read.

    Example:
        >>> video = torch.zeros(40, 3, 256, 456, dtype=torch.uint8)  # or "video.mp4"
        >>> model = TSN((125, 352), 8, "RGB", base_model="resnet18", pretrained=None)
        >>> [tuple(features.shape) for _, features in frame_features(model, video, stride=2)]
        [(16, 512), (4, 512)]
    """
    check_model(model)
    stride, size = positive_integer("stride", stride), positive_integer("batch_size", batch_size)
    source = open_frames(source, model.modality)
    count = max(len(source) - model.frames_per_snippet + 1, 1)
    snippets = dense_snippets(model, np.arange(0, count, stride), len(source), hop=hop)
    crops = get_crops(model, crop_count)
    blocks = read_crops(source, snippets.frames, crops, model.scale_size, size)
    features = run_snippets(model, blocks, snippets, crops, size)
    return _with_starts(features, torch.from_numpy(snippets.starts))


def window_logits(
    model: TSN,
    source: Clip,
    *,
    window: int | None = None,
    stride: int = 1,
    hop: int | None = None,
    crop_count: int = 1,
    batch_size: int = 16,
) -> Iterator[tuple[Tensor, Logits]]:
    """Return logits of windows along a whole video, of which each frame is decoded once.

    Logits of a window are the model's of its frames as a clip, which are sampled as `load_clip`
    samples them. TSN, TRN and MTRN see a snippet once, however many windows share it; the frames of
    a TSM depend on one another, so it sees all T snippets of each window.

    Args:
        model: any model; evaluates whatever its mode, which stays.
        source: the video, as for `data.video.open_frames`.
        window: frames that a window spans; T * stride if None. A shorter video is one window.
        stride: 1 for every frame; k for frames 0, k, 2k, ... as if the video had no others.
        hop: frames from one window to the next; `window` if None. The last window ends with the
            video, whatever the hop.
        crop_count: 1, 3 or 10; logits are averaged over the crops.
        batch_size: snippets that go through the backbone together (of TSM, at least one window),
            and windows that are yielded together at most.

    Returns:
        An iterator over pairs: indices of the windows' first frames, int64 (n,), and logits,
        float32 (n, classes) on the model's device, with two tasks a tuple of verbs' and nouns';
        probabilities with `before_softmax=False`. Those of segments (consensus "identity") are
        averaged, as `Predictor` does.

    Raises:
        ValueError: for another kind of model, a source of another modality, a window or hop that is
            no multiple of `stride`, or another option out of its range; while iterating, for frames
            that cannot be read.

    Example:
        >>> video = torch.zeros(40, 3, 256, 456, dtype=torch.uint8)  # or "video.mp4"
        >>> model = TSN((125, 352), 8, "RGB", base_model="resnet18", pretrained=None)
        >>> for starts, (verbs, nouns) in window_logits(model, video, stride=2, hop=8):
        ...     print(starts.tolist(), tuple(verbs.shape), tuple(nouns.shape))
        [0, 8, 16, 24] (4, 125) (4, 352)
    """
    check_model(model)
    t, size = model.num_segments, positive_integer("batch_size", batch_size)
    stride = positive_integer("stride", stride)
    window = t * stride if window is None else positive_integer("window", window)
    hop = window if hop is None else positive_integer("hop", hop)
    for name, value in (("window", window), ("hop", hop)):
        if value % stride:
            raise ValueError(f"{name} must be a multiple of stride, {stride}, got {value}")
    source = open_frames(source, model.modality)
    crops = get_crops(model, crop_count)
    # From here on in frames that count: every `stride`-th.
    count = -(-len(source) // stride)
    length = min(window // stride, count)
    starts = np.append(np.arange(0, count - length, hop // stride), count - length)
    snippets = segment_indices(length, t, model.frames_per_snippet).numpy()  # (T, L')
    if model.variant == "TSM":
        frames, runs = Windows.over(count, starts, snippets.ravel())
    else:
        distinct, shared = Windows.over(count, starts, snippets[:, 0])
        frames, runs = Windows.over(count, distinct, snippets[0] - snippets[0, 0])
    blocks = read_crops(source, stride * frames, crops, model.scale_size, size)
    features = run_windows(model, blocks, runs, crops, size)
    if model.variant != "TSM":
        # (n, 1, crops, D) of snippets -> (n, T, crops, D) of windows
        features = shared.gather((part[:, 0] for part in features), size)
    return _with_starts(_run_heads(model, features), torch.from_numpy(stride * starts))


@torch.inference_mode()
def _run_heads(model: TSN, features: Iterable[Tensor]) -> Iterator[Logits]:
    """Yield logits of windows from their features (n, T', crops, D)."""
    dtype = next(model.parameters()).dtype
    for part in features:
        with evaluation_mode(model):
            # (n, T', crops, D) -> (n*crops*T', D)
            outputs = model.logits(part.transpose(1, 2).flatten(0, 2).to(dtype))
        # Over crops, with identity consensus over segments too: (n*crops, ..., C) -> (n, C)
        means = tuple(
            s.float().reshape(len(part), -1, s.shape[-1]).mean(1) for s in to_tasks(outputs)
        )
        yield means if isinstance(outputs, tuple) else means[0]


def _with_starts(outputs: Iterable[Output], starts: Tensor) -> Iterator[tuple[Tensor, Output]]:
    done = 0
    for part in outputs:
        count = len(to_tasks(part)[0])
        yield starts[done : done + count], part
        done += count
