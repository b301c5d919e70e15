"""Numbered images as frames: RGB, or the u and v of flow, in a folder or a tar."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.archives import ImageFolder, ImageTar
from data.arrays import concat_flow, image_tensor
from data.frames import FLOW_LAYOUTS, RGB_LAYOUTS, FrameSource
from data.image_names import (
    find_flow_pairs,
    get_only_group,
    group_by_prefix,
    is_flow_prefix,
    parse_image_name,
)
from data.options import first_few

__all__ = ["FlowFolder", "FrameFolder", "get_image_folders"]

_RGB_PREFIXES = ("frame_", "img_")

_PathOrFile = str | os.PathLike[str] | BinaryIO
_Store = ImageFolder | ImageTar


class _NumberedImages(FrameSource):
    """Images that are found by the number in their file's name."""

    _store: _Store

    def _set_numbers(self, numbers: Iterable[int]) -> None:
        self._numbers = np.array(sorted(numbers), dtype=np.int64)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Sorted numbers of the files, int64 (frames,)."""
        return self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _read_image(self, file: str, mode: str) -> Tensor:
        return image_tensor(self._store.open(file), mode, self._store.full_name(file))


class FrameFolder(_NumberedImages):
    """RGB images of one folder or tar, in the order of the numbers that end their names.

    Flow images (x_, y_, ...) beside them are left out. Where several prefixes occur, frame_ and
    img_ go before others. Index 0 is the lowest number; `index_of` finds the index of a number.

    Args:
        path: the folder, a tar with the images at its root, or a file object of such a tar.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has no numbered RGB images, or those of several prefixes.
    """

    channels = 3

    def __init__(self, path: _PathOrFile) -> None:
        self._store = _open_store(path)
        self.name = self._store.name
        groups = group_by_prefix(self._store.names(), self.name)
        flow = sorted(prefix for prefix in groups if is_flow_prefix(prefix, groups))
        for prefix in flow:
            del groups[prefix]
        preferred = {prefix: groups[prefix] for prefix in _RGB_PREFIXES if prefix in groups}
        images = get_only_group(preferred or groups, self.name)
        if not images:
            hint = f" (but flow images {flow[0]}*, which modality 'Flow' reads)" if flow else ""
            hint = hint or _hint_at_sub_folders(self._store)
            raise ValueError(
                f"{self.name}: no numbered RGB images{hint}; accepted are {RGB_LAYOUTS}"
            )
        self._set_numbers(images)
        self._files = [images[number] for number in self._numbers.tolist()]

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            yield index, self._read_image(self._files[index], "RGB")


class FlowFolder(_NumberedImages):
    """Flow images u and v, in two folders or in one folder under two prefixes.

    Two folders: u/ and v/ in the given one; or ROOT/u/CLIP and ROOT/v/CLIP, given as either of
    them, as ROOT/CLIP, or as ROOT if there is no other clip. Two prefixes: x_ and y_, or u_ and v_,
    behind nothing or a common beginning such as flow_ or ID-. Values are 8-bit grey levels, 128 for
    no motion; images of another mode than L are converted.

    Args:
        path: the folder, a tar with u/ and v/ or the images at its root, or a file object of such a
            tar.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has no flow images, those of several clips, or other numbers for u than
            for v.
    """

    channels = 2

    def __init__(self, path: _PathOrFile) -> None:
        siblings = _find_siblings(path)
        self._store = _open_store(siblings[0] if siblings else path)
        self.name = str(path) if siblings else self._store.name
        folders = siblings[1:] if siblings else _find_uv_folders(self._store)
        groups = {} if siblings else group_by_prefix(self._store.names(), self.name)
        layouts = find_flow_pairs(groups)
        if folders:
            u, v = (_images_in(self._store, folder) for folder in folders)
            layouts[f"{folders[0]}/", f"{folders[1]}/"] = u, v
        if len(layouts) != 1:
            found = " and ".join(f"{u}*, {v}*" for u, v in layouts)
            what = f"has {found}" if found else f"no flow images{_hint_at_sub_folders(self._store)}"
            raise ValueError(f"{self.name}: {what}; accepted is one of: {FLOW_LAYOUTS}")

        (((u_name, v_name), (u, v)),) = layouts.items()
        if not u and not v:
            raise ValueError(f"{self.name}: {u_name} and {v_name} hold no numbered images")
        for name, missing in ((u_name, v.keys() - u.keys()), (v_name, u.keys() - v.keys())):
            if missing:
                raise ValueError(
                    f"{self.name}: flow needs u and v of the same numbers, but {u_name}* has "
                    f"{len(u)} images and {v_name}* has {len(v)}; {name}* lacks {len(missing)} "
                    f"numbers: {first_few(sorted(missing))}"
                )
        self._set_numbers(u)
        self._files = [(u[number], v[number]) for number in self._numbers.tolist()]

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            u, v = self._files[index]
            images = self._read_image(u, "L"), self._read_image(v, "L")
            yield index, concat_flow(*images, self._store.full_name(u))


def get_image_folders(path: str, channels: int) -> list[str]:
    """Return the folders, or the one file, that `path` stands for, as far as they exist.

    Raises:
        ValueError: for the flow of several clips.
    """
    siblings = _find_siblings(path) if channels == 2 else None
    if siblings:
        return [os.path.join(siblings[0], folder) for folder in siblings[1:]]
    folders = ("u", "v", *(_find_uv_folders(ImageFolder(path)) or ())) if channels == 2 else ()
    paths = {path, *(os.path.join(path, folder) for folder in folders)}
    return sorted(filter(os.path.exists, paths))


def _open_store(path: _PathOrFile) -> _Store:
    if isinstance(path, str | os.PathLike) and not os.path.isfile(path):
        return ImageFolder(path)
    return ImageTar(path)


def _find_siblings(path: _PathOrFile) -> tuple[str, str, str] | None:
    """Return (ROOT, u/CLIP, v/CLIP) for either of the two, or for a ROOT/CLIP that is missing."""
    if not isinstance(path, str | os.PathLike):
        return None
    clip = Path(path).absolute()
    is_half = clip.parent.name in ("u", "v")
    if not is_half and clip.exists():
        return None
    root = clip.parent.parent if is_half else clip.parent
    u, v = f"u/{clip.name}", f"v/{clip.name}"
    return (str(root), u, v) if (root / u).is_dir() and (root / v).is_dir() else None


def _find_uv_folders(store: _Store) -> tuple[str, str] | None:
    """Return u and v, or u/CLIP and v/CLIP if they hold folders; None if neither u nor v exists."""
    halves = [folder for folder in ("u", "v") if store.has(folder)]
    if not halves:
        return None
    if any(parse_image_name(name) for folder in halves for name in store.names(folder)):
        return "u", "v"
    clips = sorted({clip for folder in halves for clip in store.folders(folder)})
    if not clips:
        return "u", "v"
    if len(clips) > 1:
        raise ValueError(
            f"{store.name}: u/ and v/ hold the flow of several clips, {first_few(clips)}: give "
            f"one of them, such as {store.full_name(clips[0])}"
        )
    return f"u/{clips[0]}", f"v/{clips[0]}"


def _hint_at_sub_folders(store: _Store) -> str:
    """Name a folder inside that holds images, for errors: "" if there is none."""
    clips = []
    for folder in store.folders():
        with suppress(OSError):  # of a folder that cannot be listed
            names, folders = store.names(folder), store.folders(folder)
            if any(map(parse_image_name, names)) or {"u", "v"} & {*folders}:
                clips.append(folder)
    if not clips:
        return ""
    more = f" and {len(clips) - 1} more" * (len(clips) > 1)
    return (
        f" (but there are images in {store.full_name(clips[0])}{more}: give the folder of one clip)"
    )


def _images_in(store: _Store, folder: str) -> dict[int, str]:
    """Return the images of a sub-folder by number, {} if there is no such folder."""
    name = store.full_name(folder)
    groups = group_by_prefix(store.names(folder), name) if store.has(folder) else {}
    return {number: f"{folder}/{file}" for number, file in get_only_group(groups, name).items()}
