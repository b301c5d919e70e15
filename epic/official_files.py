"""Official files of EPIC-KITCHENS: beside the annotations, in the cache, or downloaded into it."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch.hub

from weights.download import fetch

__all__ = ["find_official_file"]


def find_official_file(url: str, folders: Iterable[Path] = ()) -> Path:
    """Return the path of an official file.

    Args:
        url: where it is published.
        folders: where it is looked for first, such as that of the annotations.

    Raises:
        weights.download.DownloadError: if it cannot be fetched; says which file to put where.
    """
    name = PurePosixPath(urlsplit(url).path).name
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    # A folder of their own: files of other projects may have the same names.
    return fetch(
        url, directory=Path(torch.hub.get_dir()) / "epic_kitchens_annotations", progress=False
    )
