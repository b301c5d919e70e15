"""The 14 published configurations agree with what was recorded from the original project."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.fill import tensor_for, tensor_input

from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

pytestmark = pytest.mark.essential

REFERENCE = Path(__file__).parent / "reference"
SPECIFICATIONS: dict[str, dict[str, Any]] = json.loads((REFERENCE / "models.json").read_text())
CLASSES = {"TSN": TSN, "TRN": TRN, "MTRN": MTRN, "TSM": TSM}
ATTRIBUTES = (
    "num_segments",
    "modality",
    "new_length",
    "feature_dim",
    "input_size",
    "crop_size",
    "scale_size",
    "input_mean",
    "input_std",
)
TOLERANCE = 1e-4


class Case:
    """One configuration: its name, what was recorded of it, and our model, without weights yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.specification = SPECIFICATIONS[name]
        with torch.device("meta"):  # what is not compared needs no memory
            self.model = CLASSES[self.specification["variant"]](
                self.specification["num_class"],
                self.specification["num_segments"],
                self.specification["modality"],
                base_model=self.specification["base_model"],
                pretrained=None,
            )

    def fill(self) -> TSN:
        weights = {
            name: tensor_for(name, tuple(tensor.shape), tensor.dtype)
            for name, tensor in self.model.state_dict().items()
        }
        self.model.load_state_dict(weights, assign=True)
        return self.model.eval()

    def inputs(self) -> torch.Tensor:
        model, specification = self.model, self.specification
        channels = model.num_segments * model.new_length * (2 if model.modality == "Flow" else 3)
        size = specification["size"]
        return tensor_input(
            (specification["batch"], channels, size, size),
            seed=specification["seed"],
            scale=specification["input_scale"],
        )


@pytest.fixture(scope="module", params=SPECIFICATIONS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, np.ndarray]]:
    with np.load(REFERENCE / "golden.npz") as recorded:
        yield dict(recorded)


def assert_agrees(ours: torch.Tensor, recorded: np.ndarray) -> None:
    assert ours.shape == recorded.shape
    difference = np.abs(ours.numpy() - recorded).max() / np.abs(recorded).max()
    assert difference < TOLERANCE


def test_all_published_configurations_are_recorded() -> None:
    assert len(SPECIFICATIONS) == 14


def test_state_dict_has_the_recorded_names_shapes_and_types_in_order(case: Case) -> None:
    ours = {
        name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in case.model.state_dict().items()
    }
    assert list(ours.items()) == list(case.specification["state_dict"].items())


def test_attributes(case: Case) -> None:
    ours = {name: getattr(case.model, name) for name in ATTRIBUTES}
    assert ours == {name: case.specification[name] for name in ATTRIBUTES}
    assert case.model.arch == case.specification["base_model"]
    assert case.model.num_class == tuple(case.specification["num_class"])


def test_number_of_parameters(case: Case) -> None:
    total = sum(parameter.numel() for parameter in case.model.parameters())
    assert total == case.specification["parameters"]


def test_optimiser_groups(case: Case) -> None:
    ours = [
        {
            "name": group["name"],
            "lr_mult": group["lr_mult"],
            "decay_mult": group["decay_mult"],
            "tensors": len(group["params"]),
            "elements": sum(parameter.numel() for parameter in group["params"]),
        }
        for group in case.model.get_optim_policies()
    ]
    assert ours == case.specification["policies"]


@torch.no_grad()
def test_features_and_logits(
    case: Case, golden: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = case.fill()
    features = model.features(case.inputs())
    assert_agrees(features[:, ::16], golden[f"{case.name}.features"])
    multi_scale = isinstance(model, MTRN)
    kind = "expected_logits" if multi_scale else "logits"
    for task, scores in enumerate(model.logits(features)):
        assert_agrees(scores, golden[f"{case.name}.{kind}{task}"])
    if multi_scale:
        # Recorded with the first relations of every scale in the place of drawn ones.
        monkeypatch.setattr(torch, "randperm", torch.arange)
        model.relation_sampling = "random"
        for task, scores in enumerate(model.logits(features)):
            assert_agrees(scores, golden[f"{case.name}.logits{task}"])
