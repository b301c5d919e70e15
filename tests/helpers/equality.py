"""Comparison of whole checkpoint dictionaries."""

from argparse import Namespace
from typing import Any

import torch


def assert_equal(ours: Any, expected: Any) -> None:
    """Check that two values are alike, down to the tensors in them."""
    assert type(ours) is type(expected) or (isinstance(ours, dict) and isinstance(expected, dict))
    if isinstance(expected, dict):
        assert list(ours) == list(expected)
        for key in expected:
            assert_equal(ours[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(ours) == len(expected)
        for one, other in zip(ours, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, Namespace):
        assert_equal(vars(ours), vars(expected))
    elif isinstance(expected, torch.Tensor):
        assert ours.dtype == expected.dtype
        assert torch.equal(ours, expected)
    else:
        assert ours == expected or (ours != ours and expected != expected)
