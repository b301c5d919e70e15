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
from data.image_names import flow_pairs, group_by_prefix, is_flow, only_group, parse_name

__all__ = ["FlowFolder", "FrameFolder", "listed_folders"]

_RGB_PREFIXES = ("frame_", "img_")

_Place = str | os.PathLike[str] | BinaryIO
_Store = ImageFolder | ImageTar


class _NumberedImages(FrameSource):
    """What both kinds share: files by number, and where they lie."""

    _store: _Store

    def _set_numbers(self, numbers: Iterable[int]) -> None:
        self._numbers = np.array(sorted(numbers), dtype=np.int64)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Sorted numbers of the files, int64 (frames,)."""
        return self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _image(self, file: str, mode: str) -> Tensor:
        return image_tensor(self._store.open(file), mode, self._store.where(file))


class FrameFolder(_NumberedImages):
    """RGB images in one folder or tar, in the order of the numbers that end their names.

    Flow images (x_, y_, ...) beside them are left alone, and names that begin with frame_ or img_
    are preferred to others. Index 0 is the lowest number; `index_of` knows the others, and where
    numbers are missing.

    Args:
        path: the folder, a tar with the images at its root, or a file object of such a tar.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has no numbered RGB images, or several kinds of them.
    """

    channels = 3

    def __init__(self, path: _Place) -> None:
        self._store = _store(path)
        self.name = self._store.name
        groups = group_by_prefix(self._store.names(), self.name)
        flow = sorted(prefix for prefix in groups if is_flow(prefix, groups))
        for prefix in flow:
            del groups[prefix]
        preferred = {prefix: groups[prefix] for prefix in _RGB_PREFIXES if prefix in groups}
        images = only_group(preferred or groups, self.name)
        if not images:
            hint = f" (but flow images {flow[0]}*, which modality 'Flow' reads)" if flow else ""
            hint = hint or _hint_of_folders(self._store)
            raise ValueError(
                f"{self.name}: no numbered RGB images{hint}; accepted are {RGB_LAYOUTS}"
            )
        self._set_numbers(images)
        self._files = [images[number] for number in self._numbers.tolist()]

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            yield index, self._image(self._files[index], "RGB")


class FlowFolder(_NumberedImages):
    """Flow images u and v: in folders of their own, or side by side under two prefixes.

    The folders are u/ and v/ in the given one, or ROOT/u/CLIP and ROOT/v/CLIP, of which either
    is given, or ROOT/CLIP, or ROOT if there is no other clip. The prefixes are x_ and y_, or u_ and
    v_, alone or behind a common beginning such as flow_ or ID-. Values are 8-bit grey levels, 128
    for no motion; images of another mode than L are converted.

    Args:
        path: the folder, a tar that has u/ and v/ or the images at its root, or a file object of
            such a tar.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has no flow images, those of several clips, or u and v do not have the
            same numbers.
    """

    channels = 2

    def __init__(self, path: _Place) -> None:
        beside = _clip_beside(path)
        self._store = _store(beside[0] if beside else path)
        self.name = self._store.name if beside is None else str(path)
        layouts = {} if beside else flow_pairs(group_by_prefix(self._store.names(), self.name))
        folders = beside[1:] if beside else _halves(self._store)
        if folders:
            u, v = (_images_in(self._store, folder) for folder in folders)
            layouts[f"{folders[0]}/", f"{folders[1]}/"] = u, v
        if len(layouts) != 1:
            found = " and ".join(f"{u}*, {v}*" for u, v in layouts)
            what = f"has {found}" if found else f"no flow images{_hint_of_folders(self._store)}"
            raise ValueError(f"{self.name}: {what}; accepted is one of: {FLOW_LAYOUTS}")

        (((u_name, v_name), (u, v)),) = layouts.items()
        if not u and not v:
            raise ValueError(f"{self.name}: {u_name} and {v_name} hold no numbered images")
        for name, lost in ((u_name, v.keys() - u.keys()), (v_name, u.keys() - v.keys())):
            if lost:
                numbers = f": {', '.join(map(str, sorted(lost)[:5]))}{', ...' * (len(lost) > 5)}"
                raise ValueError(
                    f"{self.name}: flow needs u and v of the same numbers, but {u_name}* has "
                    f"{len(u)} images and {v_name}* has {len(v)}; {name}* lacks {len(lost)} "
                    f"numbers{numbers}"
                )
        self._set_numbers(u)
        self._files = [(u[number], v[number]) for number in self._numbers.tolist()]

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index in indices:
            u, v = self._files[index]
            yield (
                index,
                concat_flow(self._image(u, "L"), self._image(v, "L"), self._store.where(u)),
            )


def listed_folders(path: str, channels: int) -> list[str]:
    """The folders whose files make the source of a path, as far as they exist.

    Raises:
        ValueError: for the flow of several clips.
    """
    beside = _clip_beside(path) if channels == 2 else None
    if beside:
        return [os.path.join(beside[0], folder) for folder in beside[1:]]
    folders = ("u", "v", *(_halves(ImageFolder(path)) or ())) if channels == 2 else ()
    listed = {path, *(os.path.join(path, folder) for folder in folders)}
    return sorted(filter(os.path.exists, listed))


def _store(path: _Place) -> _Store:
    if isinstance(path, str | os.PathLike) and not os.path.isfile(path):
        return ImageFolder(path)
    return ImageTar(path)


def _clip_beside(path: _Place) -> tuple[str, str, str] | None:
    """ROOT, u/CLIP and v/CLIP for ROOT/u/CLIP, ROOT/v/CLIP, or ROOT/CLIP where that is missing."""
    if not isinstance(path, str | os.PathLike):
        return None
    clip = Path(path).absolute()
    beside = clip.parent.name in ("u", "v")
    if not beside and clip.exists():
        return None
    root = clip.parent.parent if beside else clip.parent
    u, v = f"u/{clip.name}", f"v/{clip.name}"
    return (str(root), u, v) if (root / u).is_dir() and (root / v).is_dir() else None


def _halves(store: _Store) -> tuple[str, str] | None:
    """The folders of u and v inside: u/ and v/, or those of the only clip in them."""
    halves = [folder for folder in ("u", "v") if store.has(folder)]
    if not halves:
        return None
    if any(parse_name(name) for folder in halves for name in store.names(folder)):
        return "u", "v"
    clips = sorted({clip for folder in halves for clip in store.folders(folder)})
    if not clips:
        return "u", "v"
    if len(clips) > 1:
        raise ValueError(
            f"{store.name}: u/ and v/ hold the flow of several clips, {', '.join(clips[:5])}"
            f"{', ...' * (len(clips) > 5)}: give one of them, such as {store.where(clips[0])}"
        )
    return f"u/{clips[0]}", f"v/{clips[0]}"


def _hint_of_folders(store: _Store) -> str:
    """Say which folders inside hold images or flow, for somebody who gave what is around them."""
    clips = []
    for folder in store.folders():
        with suppress(OSError):  # of a folder that must not be read
            names, folders = store.names(folder), store.folders(folder)
            if any(map(parse_name, names)) or {"u", "v"} & {*folders}:
                clips.append(folder)
    if not clips:
        return ""
    others = f" and {len(clips) - 1} more" * (len(clips) > 1)
    return (
        f" (but there are images in {store.where(clips[0])}{others}: give the folder of one clip)"
    )


def _images_in(store: _Store, folder: str) -> dict[int, str]:
    """The images of a sub-folder that holds one kind alone; {} if there is no such folder."""
    where = store.where(folder)
    groups = group_by_prefix(store.names(folder), where) if store.has(folder) else {}
    return {number: f"{folder}/{name}" for number, name in only_group(groups, where).items()}
