"""Reading checkpoint files of all layouts."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from checkpoints.c1 import C1Converter
from checkpoints.config import Checkpoint
from checkpoints.converter import Converter
from checkpoints.documented import DocumentedConverter
from checkpoints.errors import CheckpointError, list_names, type_name
from checkpoints.files import read_file
from checkpoints.mmaction import MMActionConverter
from checkpoints.online_tsm import OnlineTSMConverter
from checkpoints.releases import ReleaseConverter
from checkpoints.values import to_plain

__all__ = ["parse_checkpoint", "read_checkpoint"]

# One for each layout; the first that matches is taken.
_CONVERTERS: tuple[type[Converter], ...] = (
    DocumentedConverter,
    C1Converter,
    MMActionConverter,
    OnlineTSMConverter,
    ReleaseConverter,
)
_TENSORS = ("state_dict", "optimizer", "optimizer_states")
_WEIGHTS = ("model_state_dict", "model", "module", "net", "weights", "ema", "ema_state_dict",
            "state_dict_ema")  # fmt: skip
"""Names that the entry `state_dict` has in files of other programs, the likeliest first."""


def read_checkpoint(
    path: str | os.PathLike[str], *, num_segments: int | None = None, trust: bool = False
) -> Checkpoint:
    """Read a checkpoint file of any layout.

    Arguments and errors are those of `checkpoints.files.read_file` and `parse_checkpoint`.
    """
    contents = read_file(path, trust=trust)
    try:
        return parse_checkpoint(contents, num_segments=num_segments)
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error


def parse_checkpoint(contents: Any, *, num_segments: int | None = None) -> Checkpoint:
    """Convert what `checkpoints.files.read_file` returned.

    Args:
        contents: the object in the file.
        num_segments: T, for a file that does not record it, or to build a TSN or TSM for another
            number than the file records.

    Raises:
        UnknownSegmentsError: (a CheckpointError) if neither the file nor the caller tells T.
        CheckpointError: if this is of no known layout, or if it holds a TRN or MTRN of another
            number of segments.
    """
    report: list[str] = []
    contents = {
        name: value if name in _TENSORS else to_plain(value)
        for name, value in _with_state_dict(contents, report).items()
    }
    converter = next(kind for kind in _CONVERTERS if kind.matches(contents))
    return converter(contents, num_segments, report).convert()


def _with_state_dict(contents: Any, report: list[str]) -> Mapping[Any, Any]:
    """Return what a file holds with its weights under `state_dict`, where they lie elsewhere."""
    if isinstance(contents, nn.Module):
        raise CheckpointError(
            f"a whole model ({type_name(contents)}), not a checkpoint: read it with "
            f"torch.load(path, weights_only=False), and write it with save_checkpoint(model, path)"
        )
    if isinstance(contents, Mapping):
        if "state_dict" in contents:
            return contents
        if _holds_weights(contents):
            return {"state_dict": contents}
        found = [name for name in _WEIGHTS if _holds_weights(contents.get(name))]
        if found:
            others = f", not from {', '.join(found[1:])}" if found[1:] else ""
            report.append(f"took the weights from the entry {found[0]!r}{others}")
            rest = {name: value for name, value in contents.items() if name != found[0]}
            return {"state_dict": contents[found[0]], **rest}
    held = f" with {list_names(contents)}" if isinstance(contents, Mapping) and contents else ""
    raise CheckpointError(
        f"not a checkpoint, nor weights alone: expected a dictionary with state_dict, got "
        f"{type_name(contents)}{held}"
    )


def _holds_weights(entry: Any) -> bool:
    """Return whether this is a dictionary of tensors and nothing else."""
    return isinstance(entry, Mapping) and {isinstance(v, Tensor) for v in entry.values()} == {True}
