"""What several programs share: command-line options, and how a checkpoint was serialised."""

import argparse
import os
from pathlib import Path

from checkpoints.safetensors_file import is_safetensors

__all__ = ["add_segments_option", "add_trust_option", "find_format"]


def add_segments_option(parser: argparse.ArgumentParser) -> None:
    """Add `--num-segments T`."""
    parser.add_argument(
        "--num-segments",
        metavar="T",
        type=int,
        help="segments of a clip: for a file that does not record them, or to build a TSN or TSM "
        "for another number than the file records",
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the file run code while it is read: only for files whose writer you trust",
    )


def find_format(path: str | os.PathLike[str]) -> str:
    """Return how a checkpoint was serialised: "zip" (torch.save), "legacy" or "safetensors"."""
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return "zip"
    return "safetensors" if is_safetensors(Path(path)) else "legacy"
