"""File names of numbered images: which belong together, and which are the u and v of flow."""

import re
from collections.abc import Iterable

__all__ = [
    "ImagesByPrefix",
    "find_flow_pairs",
    "get_only_group",
    "group_by_prefix",
    "is_flow_prefix",
    "parse_image_name",
]

_IMAGE_NAME = re.compile(r"(?!\.)(.*?)([0-9]+)\.(?:jpg|jpeg|png)", re.IGNORECASE | re.DOTALL)
_UV_SUFFIXES = (("x_", "y_"), ("u_", "v_"))
_MAX_NUMBER = 2**63 - 1
"""The largest number in an int64 array."""

ImagesByPrefix = dict[str, dict[int, str]]
"""Prefix in lower case -> number -> file name."""


def parse_image_name(name: str) -> tuple[str, int] | None:
    """Return the prefix and the number of an image's name, None for other files."""
    match = _IMAGE_NAME.fullmatch(name)
    return (match[1].lower(), int(match[2])) if match else None


def group_by_prefix(names: Iterable[str], folder: str) -> ImagesByPrefix:
    """Group the numbered images among file names; `folder` is what errors call their folder."""
    groups: ImagesByPrefix = {}
    for name in names:
        parsed = parse_image_name(name)
        if parsed is None:
            continue
        prefix, number = parsed
        if number > _MAX_NUMBER:
            raise ValueError(f"{folder}: the number of {name} must be at most {_MAX_NUMBER}")
        other = groups.setdefault(prefix, {}).setdefault(number, name)
        if other != name:
            raise ValueError(f"{folder}: {name} has the same number as {other}: remove one of them")
    return groups


def get_only_group(groups: ImagesByPrefix, folder: str) -> dict[int, str]:
    """Return the images of the only prefix, {} if there is none."""
    if len(groups) > 1:
        prefixes = ", ".join(f"{prefix}*" for prefix in sorted(groups))
        raise ValueError(f"{folder}: must hold the images of one clip, but has several: {prefixes}")
    return next(iter(groups.values()), {})


def find_flow_pairs(
    groups: ImagesByPrefix,
) -> dict[tuple[str, str], tuple[dict[int, str], dict[int, str]]]:
    """Return the images of u and v in one folder, by their two prefixes."""
    pairs = sorted({pair for prefix in groups if (pair := _uv_prefixes(prefix))})
    return {(u, v): (groups.get(u, {}), groups.get(v, {})) for u, v in pairs}


def is_flow_prefix(prefix: str, groups: ImagesByPrefix) -> bool:
    """Return whether images are u or v: cam_x_1.jpg is u only beside images cam_y_."""
    pair = _uv_prefixes(prefix)
    unambiguous = prefix[:-2] in ("", "flow_")
    return pair is not None and (unambiguous or set(pair) <= groups.keys())


def _uv_prefixes(prefix: str) -> tuple[str, str] | None:
    """Return the prefixes of u and v, given either; None where it has the form of neither."""
    common, suffix = prefix[:-2], prefix[-2:]
    if common[-1:].isalnum():  # box_ is no x_
        return None
    for u, v in _UV_SUFFIXES:
        if suffix in (u, v):
            return common + u, common + v
    return None
