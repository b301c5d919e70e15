"""A file to download, and how tests of downloads fetch it."""

import hashlib
import random
from pathlib import Path

from weights.download import _CHUNK_BYTES, fetch

# Several chunks and a piece, so that every loop runs more than once.
CONTENT = random.Random(0).randbytes(3 * _CHUNK_BYTES + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRONG_PREFIX = "0" * 8
NAME = "weights-0a1b2c3d.pth.tar"
PATH = f"/files/{NAME}"


def fetch_quietly(url: str, directory: Path, **options: object) -> Path:
    return fetch(url, directory=directory, progress=False, **options)
