"""Snippets of a video on their way to features: read once, cropped, run in windows.

Frames shift through the segments of a TSM, so that its features depend on the frames around them:
it sees windows of T snippets, and a frame as often as windows hold it. Memory does not grow with
the video.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.frames import FrameSource
from data.options import positive_integer
from data.views import FrameSelection, ResizedFrames
from data.windows import Windows
from ops.inference import evaluation_mode
from presets import CropsToInput
from tsn import TSN

__all__ = [
    "Snippets",
    "dense_snippets",
    "get_crops",
    "read_crops",
    "run_snippets",
    "run_windows",
]


@dataclass(frozen=True)
class Snippets:
    """The snippets of a video that a model sees, in windows that go through it together.

    Attributes:
        frames: indices of the frames to read, ascending, each once, int64 (F,).
        windows: places in `frames` of the frames of N windows of T snippets, int64 (N, T, L'), L'
            `frames_per_snippet`; in the order of their first frames. T is 1 where snippets do not
            depend on one another.
        kept: which features of the windows are wanted, bool (N, T'); T' is T, or T/2 after temporal
            pooling.
    """

    frames: NDArray[np.int64]
    windows: NDArray[np.int64]
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, windows: NDArray[np.int64], kept: NDArray[np.bool_]) -> "Snippets":
        """Return the snippets whose frames have the indices `windows`, int64 (N, T, L')."""
        frames, places = np.unique(windows, return_inverse=True)
        return cls(frames, places.reshape(windows.shape), kept)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Index of the first frame of each wanted feature's snippet, int64 (features,)."""
        step = self.windows.shape[1] // self.kept.shape[1]
        starts: NDArray[np.int64] = self.frames[self.windows[:, ::step, 0][self.kept]]
        return starts


def dense_snippets(
    model: TSN, starts: NDArray[np.int64], frame_count: int, *, hop: int | None = None
) -> Snippets:
    """Return the snippets that start at some frames, and for TSM the windows around them.

    Windows are T neighbours in `starts`, one every `hop` of them and one at the end. A feature
    comes from the window in whose middle it lies most, the first of two; a window that is longer
    than the video repeats the last snippet.

    Args:
        model: decides about L', T and T'.
        starts: indices of the snippets' first frames, ascending, int64 (R,). Snippets that run past
            the end repeat the last frame.
        frame_count: frames of the video.
        hop: snippets between two windows, at most T; T if None. Only for TSM.

    Returns:
        R snippets, of which features of all are wanted; after temporal pooling, of every second.

    Raises:
        ValueError: for another `hop`.
    """
    snippets = starts[:, None] + np.arange(model.frames_per_snippet)
    snippets = snippets.clip(max=frame_count - 1)
    if model.variant != "TSM":
        if hop is not None:
            raise ValueError(f"hop is an option for TSM alone, got {hop} for a {model.variant}")
        return Snippets.of(snippets[:, None], np.ones((len(starts), 1), dtype=bool))
    length = model.num_segments
    step = length // model._feature_segments
    hop = length if hop is None else positive_integer("hop", hop)
    if hop > length or hop % step:
        multiple = f" and a multiple of {step}" * (step > 1)
        raise ValueError(f"hop must be at most {length}{multiple}, got {hop}")
    # The last window ends with the last snippet; after temporal pooling perhaps behind it.
    last = max(-(-(len(starts) - length) // step) * step, 0)
    first = np.unique(np.append(np.arange(0, last, hop), last))
    middles = (first[:-1] + first[1:] + length - step) / 2  # between neighbours
    places = first[:, None] + np.arange(length)
    features = places[:, ::step]
    owners = np.searchsorted(middles, features.ravel(), side="left").reshape(features.shape)
    kept = (owners == np.arange(len(first))[:, None]) & (features < len(starts))
    needed = kept.any(1)
    return Snippets.of(snippets[places[needed].clip(max=len(starts) - 1)], kept[needed])


def read_crops(
    source: FrameSource, frames: NDArray[np.int64], crops: CropsToInput, scale_size: int, size: int
) -> Iterator[Tensor]:
    """Read frames, resize and crop them, a block at a time.

    Args:
        source: where the frames come from.
        frames: their indices, ascending, int64 (F,).
        crops: the last step of a model's evaluation transform.
        scale_size: length of the shorter side that frames are resized to.
        size: frames in a block.

    Yields:
        uint8 (at most `size`, crops, C, H, W).
    """
    for block in ResizedFrames(FrameSelection(source, frames), scale_size).blocks(size):
        yield torch.stack(crops.crop.crops(block), dim=1)


def get_crops(model: TSN, crop_count: int) -> CropsToInput:
    """Return the step of a model's evaluation transform that crops and converts resized frames."""
    return cast(CropsToInput, cast(Any, model.evaluation_transform(crop_count)).transforms[-1])


def run_snippets(
    model: TSN, blocks: Iterable[Tensor], snippets: Snippets, crops: CropsToInput, batch_size: int
) -> Iterator[Tensor]:
    """Run a model's backbone on snippets, whose frames may still be coming.

    Args:
        model: as for `run_windows`, and so are `crops` and `batch_size`.
        blocks: the frames of `snippets`, as `read_crops` yields them.
        snippets: what to run.
        crops: features are averaged over the crops.
        batch_size: snippets that are run together.

    Yields:
        float32 (n, D) on the model's device, the wanted features in order.
    """
    n, t, length = snippets.windows.shape
    size = t * length
    windows = Windows(snippets.windows.ravel(), np.arange(n) * size, np.arange(size))
    kept, done = torch.from_numpy(snippets.kept), 0
    for features in run_windows(model, blocks, windows, crops, batch_size):
        wanted = kept[done : done + len(features)].to(features.device)
        done += len(features)
        yield features[wanted].mean(1)


@torch.inference_mode()
def run_windows(
    model: TSN, blocks: Iterable[Tensor], windows: Windows, crops: CropsToInput, batch_size: int
) -> Iterator[Tensor]:
    """Run a model's backbone on windows of snippets, whose frames may still be coming.

    Args:
        model: evaluates whatever its mode, which it has again when features are yielded. Computes
            on its device.
        blocks: frames, as `read_crops` yields them.
        windows: over these frames, of T*L' frames each, one snippet after the other; of L' where
            snippets do not depend on one another.
        crops: as for `read_crops`.
        batch_size: snippets that are run together (of TSM, at least one window).

    Yields:
        Features, float32 (n, T', crops, D) on the model's device. T' is T, or T/2 after temporal
        pooling; 1 for windows of L' frames.
    """
    weights = next(model.parameters())
    t = len(windows.offsets) // model.frames_per_snippet
    on_device = (block.to(weights.device, non_blocking=True) for block in blocks)
    for frames in windows.gather(on_device, max(batch_size // t, 1)):
        n = len(frames)
        outputs = []
        with evaluation_mode(model):
            for crop in frames.unbind(2):  # one after the other, in the memory of one
                inputs = crops.to_input.convert([crop.flatten(0, 1)]).to(weights.dtype)
                # (n*T*L'*C, H, W) -> (n, T, L'*C, H, W)
                outputs.append(model.features(inputs.unflatten(0, (n, t, -1))).float())
        # (n*T', crops, D) -> (n, T', crops, D)
        yield torch.stack(outputs, dim=1).unflatten(0, (n, -1))
