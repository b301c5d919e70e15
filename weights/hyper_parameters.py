"""Hyper-parameters of EPIC-KITCHENS-100's C1 models, as their Lightning files hold them.

    modality
    data    frame_count, segment_length, preprocessing (bgr, rescale, input_size, scale_size, mean,
            std)
    model   type, backbone, dropout and, for TSM, shift_div, non_local, temporal_pool

What there is of training beside them is not read.
"""

from collections.abc import Mapping
from typing import Any

from weights.entries import numbers, whole_number
from weights.files import CheckpointError
from weights.preprocessing import Preprocessing
from weights.wording import kind_of, names_of, shown

__all__ = ["entry", "preprocessing_of"]

_MISSING = object()


def entry(tree: Any, path: str, default: Any = _MISSING) -> Any:
    """An entry of the hyper-parameters.

    Args:
        tree: the hyper-parameters.
        path: names from the root, joined by dots.
        default: what to return where the entry is missing or None.

    Raises:
        CheckpointError: if it is missing and there is no default.
    """
    value = tree
    for name in path.split("."):
        if not isinstance(value, Mapping) or value.get(name) is None:
            if default is not _MISSING:
                return default
            held = names_of(value) if isinstance(value, Mapping) else kind_of(value)
            raise CheckpointError(
                f"hyper_parameters: the entry {path!r} of EPIC-KITCHENS-100's C1 is missing "
                f"({name!r} is not among {held})"
            )
        value = value[name]
    return value


def preprocessing_of(tree: Any, report: list[str]) -> Preprocessing:
    """The input that the weights were trained with.

    For RGB, C1's std equals its mean. That looks like a slip, but is what its networks know.

    Args:
        tree: the hyper-parameters.
        report: what was read is added here.

    Raises:
        CheckpointError: if an entry is missing, or makes no sense.
    """
    place = "data.preprocessing"
    entries = {
        name: entry(tree, f"{place}.{name}")
        for name in ("bgr", "rescale", "input_size", "scale_size", "mean", "std")
    }
    for name in ("bgr", "rescale"):
        if not isinstance(entries[name], bool):
            raise CheckpointError(f"{place}.{name} must be a bool, got {shown(entries[name])}")
    statistics = {name: numbers(f"{place}.{name}", entries[name]) for name in ("mean", "std")}
    try:
        preprocessing = Preprocessing(
            **statistics,
            input_space="BGR" if entries["bgr"] else "RGB",
            input_range=(0.0, 1.0 if entries["rescale"] else 255.0),
            input_size=whole_number(f"{place}.input_size", entries["input_size"]),
            scale_size=whole_number(f"{place}.scale_size", entries["scale_size"]),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"hyper_parameters: {place} makes no sense: {error}") from error
    report.append(
        f"took the preprocessing from the file: mean {preprocessing.mean}, std {preprocessing.std}"
    )
    return preprocessing
