"""Weights of EPIC-KITCHENS-100's C1 come by `pretrained="epic-kitchens-100"`."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub_cache import hub_cache_fixture  # noqa: F401 -- a fixture
from helpers.other_projects import OMEGACONF, configuration, lightning, packages
from helpers.small_models import assert_close, randomised

from checkpoints.errors import CheckpointError
from model_loader import load_checkpoint
from trn import MTRN
from tsm import TSM
from tsn import TSN
from weights.published import find_published

CLASSES = (97, 300)
KINDS: dict[str, tuple[type[TSN], dict[str, Any]]] = {
    "TSN": (TSN, {}),
    "MTRN": (MTRN, {"classifier_pairing": "per-scale"}),
    "TSM": (TSM, {}),
}
OF_MODEL: dict[str, dict[str, Any]] = {
    "TSN": {},
    "MTRN": {"backbone_dim": 256},
    "TSM": {"shift_div": 8, "non_local": False, "temporal_pool": False},
}
"""Hyper-parameters that one kind of model has and the others lack."""


def put(hub_cache: Path, variant: str, modality: str = "RGB", **changes: Any) -> TSN:
    """Put a file as C1's where the download would go; returns the model that wrote it."""
    kind, options = KINDS[variant]
    new_length = 5 if modality == "Flow" else 1
    published = find_published(
        variant,
        "resnet50",
        modality,
        num_segments=8,
        new_length=new_length,
        dataset="epic-kitchens-100",
    )
    model = randomised(kind(CLASSES, 8, modality, pretrained=None, **options))
    model.preprocessing = published.config.preprocessing
    contents = {**lightning(model, variant, **OF_MODEL[variant]), **changes}
    with packages(OMEGACONF) as classes:
        contents["hyper_parameters"] = configuration(contents["hyper_parameters"], classes)
        torch.save(contents, hub_cache / published.file_name)
    return model


@pytest.mark.parametrize(
    ("variant", "modality", "file_name"),
    [
        ("TSN", "RGB", "tsn_rgb.ckpt"),
        ("TSN", "Flow", "tsn_flow.ckpt"),
        ("MTRN", "RGB", "trn_rgb.ckpt"),
        ("MTRN", "Flow", "trn_flow.ckpt"),
        ("TSM", "RGB", "tsm_rgb.ckpt"),
        ("TSM", "Flow", "tsm_flow.ckpt"),
    ],
)
def test_weights_preprocessing_and_pairing(
    hub_cache: Path, variant: str, modality: str, file_name: str
) -> None:
    expected = put(hub_cache, variant, modality)
    assert [path.name for path in hub_cache.iterdir()] == [file_name]
    model = KINDS[variant][0](CLASSES, 8, modality, pretrained="epic-kitchens-100").eval()
    assert model.preprocessing == expected.preprocessing
    if modality == "RGB":
        assert model.input_std == model.input_mean == [0.485, 0.456, 0.406]
    assert model.classifier_pairing == expected.classifier_pairing
    assert any("split" in sentence for sentence in model.load_report)
    clip = torch.randn(1, 8 * (10 if modality == "Flow" else 3), 64, 64)
    with torch.inference_mode():
        assert_close(model(clip), expected(clip))
        assert_close(model(clip), load_checkpoint(hub_cache / file_name)(clip))


def test_other_classes_keep_all_but_the_heads(
    hub_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = put(hub_cache, "TSN")
    with caplog.at_level(logging.WARNING):
        model = TSN((5, 7), 8, "RGB", pretrained="epic-kitchens-100")
    assert "trained on (97, 300) classes" in caplog.text
    weights = expected.base_model.state_dict()
    assert all(
        tensor.equal(weights[name]) for name, tensor in model.base_model.state_dict().items()
    )


def test_what_they_were_not_trained_with(hub_cache: Path) -> None:
    with pytest.raises(ValueError, match="classifier_pairing must be 'per-scale' for the publ"):
        TSN(CLASSES, 8, "RGB", consensus_type="TRNMultiscale", pretrained="epic-kitchens-100")
    with pytest.raises(ValueError, match="dataset='epic-kitchens-100', variant='TSN', base_model="):
        TSN(CLASSES, 8, "RGB", "BNInception", pretrained="epic-kitchens-100")
    assert MTRN(CLASSES, 3, "RGB", "resnet18", pretrained=None).classifier_pairing == "published"


def test_a_file_of_that_name_with_something_else(hub_cache: Path) -> None:
    model = put(hub_cache, "TSN")
    tsm = find_published(
        "TSM", "resnet50", "RGB", num_segments=8, new_length=1, dataset="epic-kitchens-100"
    )
    torch.save(lightning(model, "TSN"), hub_cache / tsm.file_name)
    with pytest.raises(CheckpointError, match=r"tsm_rgb\.ckpt does .* model_type is 'tsn' there"):
        TSM(CLASSES, 8, "RGB", pretrained="epic-kitchens-100")


def test_without_a_network_the_error_says_which_file_goes_where(hub_cache: Path) -> None:
    with pytest.raises(OSError, match=r"4i99mzddk95edyq/tsn_rgb\.ckpt\?dl=1") as error:
        TSN(CLASSES, 8, "RGB", pretrained="epic-kitchens-100")
    assert str(hub_cache / "tsn_rgb.ckpt") in str(error.value)
