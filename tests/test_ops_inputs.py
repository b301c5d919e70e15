"""Inputs in all layouts, and what is said of those that do not fit."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_models import assert_close
from helpers.small_tsn import refused, small_tsn

from tsn import TSN

T = 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def tsn() -> TSN:
    """Two tasks; not to be changed."""
    return small_tsn()


@torch.no_grad()
def test_flow_channels_are_frame_major() -> None:
    model = small_tsn(modality="Flow", new_length=2)
    frames = torch.randn(1, T, 2, 2, 32, 32)
    u_and_v = [frames[:, t, frame, axis] for t in range(T) for frame in (0, 1) for axis in (0, 1)]
    assert_close(model(torch.stack(u_and_v, dim=1)), model(frames))


@pytest.mark.essential
@torch.no_grad()
def test_crops_count_as_clips(tsn: TSN) -> None:
    crops = torch.randn(2, 10, T * 3, 32, 32)
    verbs, nouns = tsn(crops.flatten(1, 2))
    assert (verbs.shape, nouns.shape) == ((20, 5), (20, 7))
    for crop in range(10):
        assert_close((verbs[crop::10], nouns[crop::10]), tsn(crops[:, crop]))


@torch.no_grad()
@pytest.mark.parametrize("snippets", [1, 2, T, 7])
def test_features_of_any_number_of_snippets(tsn: TSN, snippets: int) -> None:
    six = torch.randn(2, snippets, 1, 3, 32, 32)
    expected = tsn.base_model(six.flatten(0, 2))
    assert expected.shape == (2 * snippets, 512)
    for inputs in (six, six.flatten(2, 3), six.flatten(1, 3), six.reshape(-1, 3, 32, 32)):
        assert_close(tsn.features(inputs), expected)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 8, 32, 32), "(N, 9, H, W) = 3 segments x 1 frame x 3 channels"),
        ((1, 3, 32, 32), "(N, 9, H, W)"),
        ((1, 12, 32, 32), "(N, 9, H, W)"),
        ((9, 32, 32), "(N, 9, H, W)"),
        ((1, 2, 3, 32, 32), "(N, 3, 3, H, W)"),
        ((1, 6, 3, 32, 32), "(N, 3, 3, H, W)"),
        ((1, 3, 9, 32, 32), "(N, 3, 3, H, W)"),
        ((1, 3, 1, 2, 32, 32), "(N, 3, 1, 3, H, W)"),
        ((1, 3, 2, 3, 32, 32), "(N, 3, 1, 3, H, W)"),
        ((1, 2, 1, 3, 32, 32), "(N, 3, 1, 3, H, W)"),
        ((1, 1, 3, 1, 3, 32, 32), "(N, 3, 1, 3, H, W)"),
        ((), "(N, 9, H, W)"),
        ((0, 9, 32, 32), "must not be empty"),
        ((1, 0, 32, 32), "must not be empty"),
        ((1, 9, 0, 32), "must not be empty"),
        ((0, 3, 1, 3, 32, 32), "must not be empty"),
    ],
)
def test_shapes_that_do_not_fit(tsn: TSN, shape: tuple[int, ...], expected: str) -> None:
    with refused(expected, f"got {shape}"):
        tsn(torch.zeros(shape))


@pytest.mark.parametrize(
    "shape", [(1, 8, 32, 32), (1, 4, 2, 32, 32), (1, 4, 2, 3, 32, 32), (3, 32, 32)]
)
def test_features_of_shapes_that_do_not_fit(tsn: TSN, shape: tuple[int, ...]) -> None:
    with refused("(N, T*3, H, W) = T segments x 1 frame x 3 channels", f"got {shape}"):
        tsn.features(torch.zeros(shape))


def test_flow_shapes_show_their_frames() -> None:
    with torch.device("meta"):
        model = TSN(5, 8, "Flow", base_model="resnet18", pretrained=None)
    with refused("(N, 80, H, W) = 8 segments x 5 frames x 2 channels", "got (1, 24, 32, 32)"):
        model(torch.zeros(1, 24, 32, 32))
    with refused("(N, 8, 10, H, W)", "(N, 8, 5, 2, H, W)", "got (1, 7, 10, 32, 32)"):
        model(torch.zeros(1, 7, 10, 32, 32))


def test_one_segment_means_exactly_one() -> None:
    model = small_tsn(5, 1)
    assert model(torch.zeros(2, 1, 3, 32, 32)).shape == (2, 5)
    for shape in ((2, 4, 3, 32, 32), (2, 4, 1, 3, 32, 32)):
        with refused("1 segment x 1 frame x 3 channels", f"got {shape}"):
            model(torch.zeros(shape))


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        (torch.zeros(1, 9, 32, 32, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 9, 32, 32, dtype=torch.int64), "torch.int64"),
        (torch.zeros(1, 9, 32, 32, dtype=torch.bool), "torch.bool"),
        (np.zeros((1, 9, 32, 32), dtype=np.float32), "ndarray"),
        ([torch.zeros(9, 32, 32)], "list"),
        (None, "NoneType"),
    ],
)
def test_inputs_that_are_no_floating_point_tensors(tsn: TSN, inputs: Any, kind: str) -> None:
    for function in (tsn, tsn.features):
        with refused("floating-point", f"got {kind}", "evaluation_transform"):
            function(inputs)


def test_sparse_inputs_are_named(tsn: TSN) -> None:
    with refused("inputs must be a dense tensor", "torch.sparse_coo", "inputs.to_dense()"):
        tsn(torch.randn(1, T * 3, 32, 32).to_sparse())


@pytest.mark.parametrize(
    ("features", "got"),
    [
        (torch.zeros(T + 1, 512), "(4, 512)"),
        (torch.zeros(0, 512), "(0, 512)"),
        (torch.zeros(T, 511), "(3, 511)"),
        (torch.zeros(1, T, 512), "(1, 3, 512)"),
        (torch.zeros(512), "(512,)"),
        (torch.zeros(T, 512, dtype=torch.int32), "torch.int32"),
        ([0.0], "list"),
    ],
)
def test_features_that_do_not_fit(tsn: TSN, features: Any, got: str) -> None:
    with refused("features", f"got {got}"):
        tsn.logits(features)
