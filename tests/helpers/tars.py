"""Tars of images of one colour."""

import io
import tarfile
from pathlib import Path

from PIL import Image


def image(value: int, mode: str = "RGB") -> bytes:
    """Return a PNG of one colour, its value."""
    data = io.BytesIO()
    Image.new(mode, (12, 10), value if mode == "L" else (value,) * 3).save(data, format="PNG")
    return data.getvalue()


def tar_of(path: Path, members: dict[str, bytes | tarfile.TarInfo], **options: object) -> Path:
    """Write a tar with these members, in this order, and return its path."""
    with tarfile.open(path, **({"mode": "w"} | options)) as tar:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                data.name = name
                tar.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def rgb(numbers: list[int], name: str = "frame_{:010d}.jpg") -> dict[str, bytes]:
    """Return images for `tar_of`, each of which is its number's grey."""
    return {name.format(number): image(number) for number in numbers}
