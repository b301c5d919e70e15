"""Models over long videos: each frame is decoded once, and seen by the backbone once."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from data.frames import FrameSource
from data.options import positive_integer
from snippets import dense_snippets, get_crops, read_crops, run_snippets
from tsn import TSN

__all__ = ["frame_features"]


def frame_features(
    model: TSN,
    source: FrameSource,
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
        model: any model in evaluation mode, best an optimised copy.
        source: the video, as `data.video.open_frames` returns it.
        stride: frames from one snippet to the next.
        hop: for TSM, snippets from one window to the next, see `snippets.dense_snippets`.
        crop_count: 1, 3 or 10; features are averaged over the crops.
        batch_size: snippets that go through the backbone together.

    Returns:
        An iterator over pairs: indices of the snippets' first frames, int64 (n,), and features,
        float32 (n, D) on the model's device. TSM with temporal pooling has one for every second
        snippet.

    Raises:
        ValueError: for an option out of its range; while iterating, for frames that cannot be read.

    Example:
        >>> from data.video import open_frames
        >>> source = open_frames(torch.zeros(40, 3, 256, 456, dtype=torch.uint8))  # or "clip.mp4"
        >>> model = TSN((125, 352), 8, "RGB", base_model="resnet18", pretrained=None).eval()
        >>> [tuple(features.shape) for _, features in frame_features(model, source, stride=2)]
        [(16, 512), (4, 512)]
    """
    stride, size = positive_integer("stride", stride), positive_integer("batch_size", batch_size)
    count = max(len(source) - model.frames_per_snippet + 1, 1)
    snippets = dense_snippets(model, np.arange(0, count, stride), len(source), hop=hop)
    crops = get_crops(model, crop_count)
    scale_size = model.preprocessing.scale_size
    blocks = read_crops(source, snippets.frames, crops, scale_size, size)
    features = run_snippets(model, blocks, snippets, crops, size)
    return _with_starts(features, torch.from_numpy(snippets.starts))


def _with_starts(features: Iterable[Tensor], starts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    for part in features:
        yield starts[done : done + len(part)], part
        done += len(part)
