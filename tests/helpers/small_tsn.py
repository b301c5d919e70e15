"""What the tests of TSN share: a small model, its batch norms, and errors by their parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import nn

from helpers.small_models import randomised
from tsn import TSN


def small_tsn(
    num_class: Any = (5, 7), num_segments: int = 3, modality: str = "RGB", **options: Any
) -> TSN:
    """Make a small model, evaluating, with weights and statistics that are not the initial ones."""
    model = TSN(
        num_class,
        num_segments,
        modality,
        **{"base_model": "resnet18", "pretrained": None, **options},
    )
    return randomised(model)


@contextmanager
def refused(*parts: object) -> Iterator[None]:
    """Expect a ValueError whose message has all of these parts."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- the message is looked at below
        yield
    for part in parts:
        assert str(part) in str(error.value)
    assert not isinstance(error.value.__cause__, TypeError | RuntimeError)


def batch_norms(model: TSN) -> list[nn.BatchNorm2d]:
    modules = model.base_model.modules()
    return [module for module in modules if isinstance(module, nn.BatchNorm2d)]


def is_frozen(batch_norm: nn.BatchNorm2d) -> bool:
    states = {
        batch_norm.training,
        batch_norm.weight.requires_grad,
        batch_norm.bias.requires_grad,
    }
    assert len(states) == 1
    return not states.pop()
