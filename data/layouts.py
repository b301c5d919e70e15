"""Where the videos of a dataset lie: layouts of EPIC-KITCHENS met in the wild, and plain folders.

Of several forms of one video, the first of these is taken:

1. a folder of images: ROOT/PXX/PXX_YY (C1's models), ROOT/PXX/rgb_frames/PXX_YY (downloads when
   unpacked, SlowFast), or ROOT/CLIP;
2. a tar of them: ROOT/PXX/rgb_frames/PXX_YY.tar (the downloader's), ROOT/rgb/train/PXX/PXX_YY.tar
   (the download site's; also test/, and below frames_rgb_flow/), ROOT/PXX/PXX_YY.tar, or
   ROOT/CLIP.tar;
3. a video file: ROOT/PXX/videos/PXX_YY.MP4, ROOT/videos/train/PXX/PXX_YY.MP4 (also test/),
   ROOT/PXX/PXX_YY.MP4, or ROOT/CLIP.MP4, with any usual suffix in any case.

CLIP may lie in sub-folders, as in ROOT/kitchen/monday.mp4.

Flow lies in flow_frames/ and flow/ instead, as u/ and v/ in each folder or tar, or in ROOT/u/CLIP
and ROOT/v/CLIP; so does the flow of a file CLIP.MP4. Where none of these exists, segments are
looked for as the library of EPIC-KITCHENS-55 stores them, with images from number 1:
ROOT/PXX/PXX_YY/PXX_YY_{uid}_{narration}; flow in u/ and v/ of each of them, or in
ROOT/PXX/PXX_YY/u/PXX_YY_{uid}_{narration} and v/.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path

from data.image_names import ImagesByPrefix, is_flow_prefix, parse_image_name
from data.images import get_image_folders
from data.options import MODALITIES, one_of
from data.segments import Segment
from data.timestamps import nominal_rate

__all__ = ["VideoFinder", "describe_layouts", "find_videos"]

_PARTICIPANT = re.compile(r"P\d\d")
_VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".wmv"),
    *(".flv", ".3gp", ".ogv"),
}
_OTHER_FOLDERS = {"u", "v", "object_detection_images"}
_MAX_NAMES = 100
"""How many names of a folder tell what is in it: it may hold 60,000 images."""


def find_videos(root: str | os.PathLike[str], modality: str = "RGB") -> dict[str, Path]:
    """Return all videos under a root; the module docstring lists the layouts.

    Args:
        root: the folder.
        modality: "RGB", "Flow" or "RGBDiff" (which reads RGB frames), in any case. Video files hold
            no flow.

    Returns:
        Path, for `data.video.open_frames`, by the video's id, sorted. The id is the name of the
        folder or file without suffix; of other videos than EPIC-KITCHENS', behind the names of the
        sub-folders that it lies in (kitchen/monday). Folders are told apart by the names of their
        images; what is in a tar or video file shows when it is opened.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a video is there several times in the same form.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    is_flow = one_of("modality", modality, MODALITIES) == "Flow"
    found: dict[str, list[tuple[int, Path]]] = {}
    for folder in _folders_of_videos(root, is_flow):
        for video, form, path in _videos_in(folder, is_flow):
            found.setdefault(video, []).append((form, path))
    for folder in _sub_folders(root, is_flow):
        for video, form, path in _videos_in(folder, is_flow):
            name = path.parent.relative_to(root) / video
            found.setdefault(video if nominal_rate(video) else name.as_posix(), []).append(
                (form, path)
            )
    videos = {}
    for video, forms in sorted(found.items()):
        best = min(form for form, _ in forms)
        paths = {os.path.realpath(path): path for form, path in forms if form == best}
        if len(paths) > 1:
            names = " and ".join(map(str, paths.values()))
            raise ValueError(f"{video} is there several times, {names}: give a root with one")
        videos[video] = next(iter(paths.values()))
    return videos


class VideoFinder:
    """Paths of the videos of segments; a root is listed once, when it is first needed.

    Args:
        root: folder of the dataset.
        modality: "RGB", "Flow" or "RGBDiff".

    Raises:
        FileNotFoundError: if there is no folder `root`.
    """

    def __init__(self, root: Path, modality: str) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"root: {root} is no folder")
        self._root, self._modality = root, modality
        self._other = "RGB" if modality == "Flow" else "Flow"
        self._segment_folders: dict[str, dict[str, Path]] = {}

    def find(self, segment: Segment) -> tuple[Path, bool]:
        """Return the path of a segment's frames, and whether it holds this segment alone.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the root has a video several times.
        """
        video = segment.video
        if nominal_rate(video) is None:
            path = self._root / video
            is_file = path.suffix.lower() in _VIDEO_SUFFIXES
            if self._modality == "Flow" and is_file and self._exists(path.with_suffix("")):
                return path.with_suffix(""), False
            if self._exists(path):
                return path, False
        if video in self._videos:
            return self._videos[video], False
        if video not in self._segment_folders:
            self._segment_folders[video] = self._find_segment_folders(video)
        if segment.id in self._segment_folders[video]:
            return self._segment_folders[video][segment.id], True
        other = self._videos_of_other_modality.get(video)
        hint = f", only {self._other} in {other}" if other else ""
        of_segment = " of this segment" if self._segment_folders[video] else ""
        raise FileNotFoundError(
            f"{video}: no {self._modality} frames{of_segment} under {self._root}{hint}"
        )

    def _exists(self, path: Path) -> bool:
        try:
            return bool(get_image_folders(str(path), MODALITIES[self._modality]))
        except ValueError:  # flow of several clips, which opening it will explain
            return True

    @cached_property
    def _videos(self) -> dict[str, Path]:
        return find_videos(self._root, self._modality)

    @cached_property
    def _videos_of_other_modality(self) -> dict[str, Path]:
        return find_videos(self._root, self._other)

    def _find_segment_folders(self, video: str) -> dict[str, Path]:
        """Return the folders of a video's segments by uid."""
        folder = self._root / video.partition("_")[0] / video
        parents = [folder, folder / "u"] if self._modality == "Flow" else [folder]
        pattern = re.compile(rf"{re.escape(video)}_(\d+)_.*", re.DOTALL)
        return {
            match[1]: parent / match[0]
            for parent in parents
            for name in _names(parent)
            if (match := pattern.fullmatch(name))
        }


def describe_layouts(modality: str) -> str:
    """Return the layouts that are looked for, for errors."""
    kind, images = ("flow", "{u,v}/*.jpg") if modality == "Flow" else ("rgb", "*.jpg")
    layouts = [
        f"PXX/PXX_YY/{images}",
        f"PXX/{kind}_frames/PXX_YY/{images}",
        f"PXX/PXX_YY/PXX_YY_UID_NARRATION/{images}",
        f"PXX/{kind}_frames/PXX_YY.tar",
        f"{kind}/{{train,test}}/PXX/PXX_YY.tar",
    ]
    if modality != "Flow":
        layouts += ["PXX/videos/PXX_YY.MP4", "videos/{train,test}/PXX/PXX_YY.MP4", "PXX_YY.MP4"]
    return f"the path of each clip, or for EPIC-KITCHENS {', '.join(layouts)}"


def _folders_of_videos(root: Path, is_flow: bool) -> Iterator[Path]:
    """Yield the folders that may hold videos, whether they exist or not."""
    kind = "flow" if is_flow else "rgb"
    yield root
    if is_flow:
        yield root / "u"
    for participant in filter(_PARTICIPANT.fullmatch, _names(root)):
        yield root / participant
        yield root / participant / f"{kind}_frames"
        if not is_flow:
            yield root / participant / "videos"
    bases = [root / kind, root / "frames_rgb_flow" / kind, *([] if is_flow else [root / "videos"])]
    for split in (base / name for base in bases for name in ("train", "test")):
        for participant in filter(_PARTICIPANT.fullmatch, _names(split)):
            yield split / participant


def _sub_folders(folder: Path, is_flow: bool) -> Iterator[Path]:
    """Yield the folders below one that hold neither a clip nor what `_folders_of_videos` knows."""
    other = "rgb" if is_flow else "flow"
    for path in map(folder.joinpath, _names(folder)):
        if (
            path.is_dir()
            and not path.name.startswith(".")
            and path.name not in {*_OTHER_FOLDERS, other, f"{other}_frames"}
            and not _PARTICIPANT.fullmatch(path.name)
            and nominal_rate(path.name) is None
            and not any(_holds_images(path, kind) for kind in (False, True))
        ):
            yield path
            yield from _sub_folders(path, is_flow)


def _videos_in(folder: Path, is_flow: bool) -> Iterator[tuple[str, int, Path]]:
    """Yield id, form (0 folder, 1 tar, 2 video file) and path of the videos in one folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                # u/ and v/ are the halves of a clip, and no clips.
                if entry.name not in ("u", "v") and _holds_images(path, is_flow):
                    yield entry.name, 0, path
            elif suffix.lower() == ".tar":
                yield name, 1, path
            elif suffix.lower() in _VIDEO_SUFFIXES and not is_flow:
                yield name, 2, path


def _holds_images(folder: Path, is_flow: bool) -> bool:
    """Return whether a folder holds RGB images, or flow, by the first names in it."""
    if is_flow and (_prefixes(folder / "u") or (folder.parent.name == "u" and _prefixes(folder))):
        return True
    prefixes = _prefixes(folder)
    return any(is_flow_prefix(prefix, prefixes) == is_flow for prefix in prefixes)


def _prefixes(folder: Path) -> ImagesByPrefix:
    """Return the prefixes of the first numbered images in a folder, as keys."""
    names = _names(folder, _MAX_NAMES)
    return {parsed[0]: {} for name in names if (parsed := parse_image_name(name))}


def _names(folder: Path, count: int | None = None) -> list[str]:
    """Return the first names in a folder, sorted; [] if it cannot be listed."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in islice(entries, count))
    return []
