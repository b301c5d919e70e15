"""Hyper-parameters of EPIC-KITCHENS-100's C1 models, as their Lightning files hold them.

    modality
    data    frame_count, segment_length, preprocessing (bgr, rescale, input_size, scale_size, mean,
            std)
    model   type, backbone, dropout and, for TSM, shift_div, non_local, temporal_pool

Flow files have no `bgr`. What there is of training beside them is not read.
"""

from collections.abc import Mapping
from typing import Any

from checkpoints.entries import flag, numbers, whole_number
from checkpoints.files import CheckpointError
from checkpoints.wording import kind_of, names_of
from data.preprocessing import Preprocessing

__all__ = ["entry", "is_c1", "preprocessing_of"]

_MISSING = object()


def entry(tree: Any, path: str, default: Any = _MISSING, assumed: list[str] | None = None) -> Any:
    """An entry of the hyper-parameters.

    Args:
        tree: the hyper-parameters.
        path: names from the root, joined by dots.
        default: what to return where the entry is missing or None.
        assumed: a default that is returned is added here.

    Raises:
        CheckpointError: if it is missing and there is no default.
    """
    value = tree
    for name in path.split("."):
        if not isinstance(value, Mapping) or value.get(name) is None:
            if default is not _MISSING:
                if assumed is not None:
                    assumed.append(f"{path} {default}")
                return default
            held = names_of(value) if isinstance(value, Mapping) else kind_of(value)
            raise CheckpointError(
                f"hyper_parameters: the entry {path!r} of EPIC-KITCHENS-100's C1 is missing "
                f"({name!r} is not among {held})"
            )
        value = value[name]
    return value


def is_c1(tree: Any) -> bool:
    """Whether hyper-parameters are those of C1, rather than some other program's."""
    fields = ("data.preprocessing", "data.frame_count", "data.segment_length", "model.backbone")
    return any(entry(tree, field, None) is not None for field in fields)


def preprocessing_of(tree: Any, report: list[str], assumed: list[str]) -> Preprocessing:
    """The input that the weights were trained with.

    For RGB, C1's std equals its mean. That looks like a slip, but is what its networks know.

    Args:
        tree: the hyper-parameters.
        report: what was read is added here.
        assumed: as for `entry`.

    Raises:
        CheckpointError: if mean or std is missing, or an entry makes no sense.
    """
    place = "data.preprocessing"
    statistics = {
        name: numbers(f"{place}.{name}", entry(tree, f"{place}.{name}")) for name in ("mean", "std")
    }
    rescaled = max(statistics["mean"]) <= 1
    flags = {
        name: flag(f"{place}.{name}", entry(tree, f"{place}.{name}", default, assumed))
        for name, default in (("bgr", False), ("rescale", rescaled))
    }
    sizes = {
        name: whole_number(f"{place}.{name}", entry(tree, f"{place}.{name}", default, assumed))
        for name, default in (("input_size", 224), ("scale_size", 256))
    }
    try:
        preprocessing = Preprocessing(
            mean=statistics["mean"],
            std=statistics["std"],
            input_space="BGR" if flags["bgr"] else "RGB",
            input_range=(0.0, 1.0 if flags["rescale"] else 255.0),
            input_size=sizes["input_size"],
            scale_size=sizes["scale_size"],
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"hyper_parameters: {place} makes no sense: {error}") from error
    report.append(
        f"took the preprocessing from the file: mean {preprocessing.mean}, std {preprocessing.std}"
    )
    return preprocessing
