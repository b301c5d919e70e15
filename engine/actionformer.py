"""What ActionFormer wants to know of features: the grid that the rows of each video lie on.

Source: https://github.com/happyharrycn/actionformer_release (Zhang et al. 2022, arXiv:2202.07925).
"""

import json
from collections.abc import Iterable

from checkpoints.files import atomic_write
from engine.feature_files import read_metadata
from engine.feature_writer import ExtractOptions
from engine.output_folder import OutputFolder

__all__ = ["write_grids"]


def write_grids(folder: OutputFolder, videos: Iterable[str], options: ExtractOptions) -> None:
    """Write `actionformer.json`: `fps`, `feat_stride` and `num_frames` of each video.

    These are ActionFormer's names: row i stands for (i * feat_stride + num_frames / 2) / fps
    seconds.

    Args:
        folder: where the features of whole videos are.
        videos: their ids.
        options: how they were made.
    """
    grids = {}
    for video in videos:
        about = read_metadata(folder.path / options.file_name(video))
        fps = options.dense.rate or about["fps"]
        grids[video] = {
            "fps": fps,
            "feat_stride": round(fps / about["rate"]),
            "num_frames": about["window"] + (about["snippet_length"] - 1) * fps / about["fps"],
        }
    with atomic_write(folder.path / "actionformer.json") as file:
        file.write(json.dumps(grids, indent=2).encode())
