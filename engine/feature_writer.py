"""The file of features of one video, written as its frames come."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.options import positive_integer
from data.windows import Windows
from engine.feature_files import RowFile
from engine.output_folder import OutputFolder
from engine.video_rows import DenseOptions, VideoRows
from snippets import dense_snippets, get_crops, run_snippets
from tsn import TSN

__all__ = ["ExtractOptions", "FeatureWriter"]


@dataclass(frozen=True)
class ExtractOptions:
    """What is written of each video.

    Raises:
        ValueError: for a `batch_size` below 1.

    Attributes:
        dense: where rows lie along whole videos.
        mean: whether the features of a segment's snippets are averaged.
        logits: whether logits are written beside features, which they are computed from: of each
            segment, or of each row along a video.
        crop_count: 1, 3 or 10; features are averaged over the crops.
        batch_size: snippets that go through the backbone together.
        file_format: "safetensors", "npz", or "actionformer", which is npz with the array `feats`.
    """

    dense: DenseOptions = field(default_factory=DenseOptions)
    mean: bool = False
    logits: bool = False
    crop_count: int = 1
    batch_size: int = 16
    file_format: str = "safetensors"

    def __post_init__(self) -> None:
        positive_integer("batch_size", self.batch_size)

    def check(self, model: TSN, *, densely: bool) -> None:
        """Raise ValueError if a model cannot give what is wanted, along videos or for segments."""
        get_crops(model, self.crop_count)
        if densely:
            dense_snippets(model, np.zeros(1, dtype=np.int64), 1, hop=self.dense.hop)
        if self.dense.window != 1 and densely and model._feature_segments != model.num_segments:
            raise ValueError("window must be 1 for a model with temporal pooling")
        if self.file_format == "actionformer" and not densely:
            raise ValueError("ActionFormer's format is for whole videos, got annotated segments")
        if self.logits and not model.before_softmax:
            raise ValueError("logits need a model that gives them: before_softmax is False")
        if self.logits and densely and model.variant in ("TRN", "MTRN"):
            raise ValueError(
                f"logits along a video need a model that classifies single snippets, and "
                f"{model.variant} relates {model.num_segments}: give annotated segments"
            )

    def file_name(self, video: str) -> str:
        """Return the name of a video's file in the output folder."""
        return f"{video}.{'safetensors' if self.file_format == 'safetensors' else 'npz'}"


class FeatureWriter:
    """A model, and the folder where features of videos go.

    Beside `about`, the metadata of each file say: `video`; `first_frame`, the lowest number in
    `frames`; `fps`, frames per second; `snippet_length`, L'; `tsm_windows`, the `segments` of the
    windows that a TSM saw, and their `hop` in rows. Along a video: `rate`, rows per second;
    `stride`, frames from row to row (None where their rate was asked for); `window`, steps that are
    averaged in a row. Of segments: their `ids`, and whether they are `averaged`.

    Args:
        model: in evaluation mode.
        options: what is written.
        folder: where files go.
        about: further metadata, the same for each video.
    """

    def __init__(
        self, model: TSN, options: ExtractOptions, folder: OutputFolder, about: Mapping[str, Any]
    ) -> None:
        self._model, self._options, self._folder, self._about = model, options, folder, about
        self._crops = get_crops(model, options.crop_count)

    def write(self, video: str, rows: VideoRows, blocks: Iterable[Tensor]) -> Iterator[float]:
        """Write the file of a video, and yield after each batch which share of the rows it was.

        Args:
            video: its id.
            rows: what is wanted of it.
            blocks: crops of the frames of `rows.snippets`, see `snippets.read_crops`.
        """
        options = self._options
        self._folder.begin()  # rows are kept there until the video is done
        arrays: dict[str, RowFile] = {}

        def append(name: str, values: NDArray[Any]) -> None:
            arrays.setdefault(name, RowFile(self._folder.path)).append(values)

        for_actionformer = options.file_format == "actionformer"
        features = run_snippets(self._model, blocks, rows.snippets, self._crops, options.batch_size)
        windows = Windows(rows.items, rows.row_starts, np.arange(rows.row_length))
        for part in windows.gather(features, options.batch_size):
            averaged = part.mean(1) if rows.ids is None or options.mean else part
            append("feats" if for_actionformer else "features", averaged.cpu().numpy())
            if options.logits:
                for task, logits in self._logits(part, rows.ids is None).items():
                    append(task, logits.float().cpu().numpy())
            yield len(part) / len(rows.row_starts)
        if not for_actionformer:
            append("frames", rows.frames)
            if rows.seconds is not None:
                append("seconds", rows.seconds)
        metadata = {**self._about, **self._describe(video, rows)}
        self._folder.write_rows(options.file_name(video), arrays, **metadata)

    @torch.inference_mode()
    def _logits(self, rows: Tensor, densely: bool) -> dict[str, Tensor]:
        """Return logits of rows (n, K, D) by task: of segments, or of their snippets' mean."""
        rows = rows.to(next(self._model.parameters()).dtype)
        if densely:
            outputs = [head(rows.mean(1)) for head in self._model._heads()]
        else:
            logits = self._model.logits(rows.flatten(0, 1))
            outputs = list(logits) if isinstance(logits, tuple) else [logits]
        tasks = ("verb", "noun") if len(outputs) == 2 else ("label",)
        return dict(zip(tasks, outputs, strict=True))

    def _describe(self, video: str, rows: VideoRows) -> dict[str, Any]:
        model, dense = self._model, self._options.dense
        windows: dict[str, Any] | None = None
        if model.variant == "TSM":
            hop = dense.hop or model.num_segments
            windows = {"segments": model.num_segments, "hop": hop if rows.ids is None else None}
        about = {
            "video": video,
            "first_frame": rows.first_frame,
            "fps": rows.fps,
            "snippet_length": model.frames_per_snippet,
            "tsm_windows": windows,
        }
        if rows.ids is not None:
            return {**about, "ids": rows.ids, "averaged": self._options.mean}
        stride = dense.stride * (model.num_segments // model._feature_segments)
        steps = dense.rate or rows.fps
        return {
            **about,
            "rate": steps / stride if steps else None,
            "stride": None if dense.rate else stride,
            "window": dense.window,
        }
