"""Command-line options that several programs share."""

import argparse

__all__ = ["add_segments_option", "add_trust_option"]


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
