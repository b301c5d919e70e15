"""Releases of TSN, TRN and TSM, and weights alone, load and agree with their projects."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.original_format import assert_same, make, write
from helpers.other_projects import (
    OWN,
    RECORDED,
    RELEASES,
    recorded_contents,
    recorded_outputs,
    release,
    small,
    their_names,
)
from helpers.small_models import randomised
from reference.fill import tensor_input

from checkpoints.checkpoint import parse_checkpoint
from checkpoints.errors import CheckpointError, UnknownSegmentsError
from model_loader import get_config, load_checkpoint
from tools.print_checkpoint_details import describe
from tools.print_checkpoint_details import main as print_details
from trn import MTRN
from tsn import TSN

TOLERANCE = 1e-4


@pytest.mark.essential
@pytest.mark.parametrize(
    "name", [name for name in RECORDED if not name.startswith(("mmaction2", "mit_online"))]
)
def test_outputs_of_the_other_projects(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = RECORDED[name]
    path = write(recorded_contents(name), tmp_path / "file", legacy=False)
    model = load_checkpoint(path, num_segments=recorded["num_segments"])
    path.unlink()
    config = get_config(model)
    assert config.model_type == recorded["family"].lower()
    assert config.arch == recorded["base_model"]
    assert config.shift_every == recorded.get("shift_every", 1)
    clip = tensor_input((1, model.num_segments * 3, 224, 224), seed=5)

    def difference(expected: np.ndarray) -> float:
        with torch.no_grad():
            result = model(clip)
        ours = torch.cat(result, dim=1) if isinstance(result, tuple) else result
        assert ours.shape == expected.shape
        return float(np.abs(ours.numpy() - expected).max() / np.abs(expected).max())

    if isinstance(model, MTRN):
        assert difference(recorded_outputs(f"{name}.expected")) < TOLERANCE
        # Recorded with the first relations of every scale in the place of drawn ones.
        monkeypatch.setattr(torch, "randperm", torch.arange)
        model.relation_sampling = "random"
    assert difference(recorded_outputs(name)) < TOLERANCE


@pytest.mark.essential
@pytest.mark.parametrize("kind", RELEASES)
def test_releases(tmp_path: Path, kind: str) -> None:
    model = small(kind)
    path = write(release(model), tmp_path / "any name", legacy=kind != "TSM")
    told = kind not in ("TRN", "multi-scale TRN")
    assert_same(load_checkpoint(path, num_segments=4), model)
    if told:
        with pytest.raises(UnknownSegmentsError, match=r"pass num_segments, .*num_segments=8"):
            load_checkpoint(path)
    else:
        assert_same(load_checkpoint(path), model)


@pytest.mark.parametrize(
    ("kind", "modality", "new_length"),
    [
        *((kind, "Flow", 5) for kind in RELEASES),
        ("TRN", "Flow", 2),
        ("TSN", "RGBDiff", 5),
    ],
)
def test_modality_of_releases(tmp_path: Path, kind: str, modality: str, new_length: int) -> None:
    model = small(kind, modality, new_length=new_length)
    loaded = load_checkpoint(write(release(model), tmp_path / "file"), num_segments=4)
    assert get_config(loaded) == get_config(model)
    assert any(f"read modality {modality}" in line for line in loaded.load_report)


def test_very_old_bn_inception_files(tmp_path: Path) -> None:
    """Batch norms of [1, C] that count no batches, and the names of BN-Inception."""
    model = randomised(TSN(3, 4, "Flow", base_model="BNInception", pretrained=None))
    state = {
        name: tensor[None] if "_bn." in name else tensor
        for name, tensor in their_names(model.state_dict()).items()
        if not name.endswith("num_batches_tracked")
    }
    path = write(release(model, state_dict=state), tmp_path / "file")
    loaded = load_checkpoint(path, num_segments=4)
    assert_same(loaded, model)
    flat = sum("_bn." in name for name in state)
    assert f"squeezed {flat} tensors of batch norms from [1, C] to [C]" in loaded.load_report


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [("TSN", ""), ("TRN", "module."), ("multi-scale TRN", ""), ("TSM in front of blocks", "")],
)
def test_weights_alone(tmp_path: Path, kind: str, prefix: str) -> None:
    model = small(kind)
    path = write(their_names(model.state_dict(), prefix), tmp_path / "file")
    loaded = load_checkpoint(path, num_segments=4)
    assert_same(loaded, model)
    assert "took the backbone as resnet18 by its weights" in loaded.load_report


@pytest.mark.parametrize("kind", ["TSN", "TRN", "TSM", "TSM in every second block"])
def test_weights_alone_on_mobilenet_v2(tmp_path: Path, kind: str) -> None:
    model = small(kind, base_model="mobilenetv2")
    path = write(their_names(model.state_dict()), tmp_path / "file")
    loaded = load_checkpoint(path, num_segments=4)
    assert_same(loaded, model)
    assert "took the backbone as mobilenetv2 by its weights" in loaded.load_report


@pytest.mark.parametrize("last", ["fc", "last_linear", "classifier"])
def test_the_image_networks_own_classifier_is_left_out(tmp_path: Path, last: str) -> None:
    model = small("TSM")
    contents = release(model)
    contents["state_dict"][f"module.base_model.{last}.weight"] = torch.ones(1000, 512)
    loaded = load_checkpoint(write(contents, tmp_path / "file"), num_segments=4)
    assert_same(loaded, model)
    assert f"classifier: base_model.{last}.weight" in " ".join(loaded.load_report)


@pytest.mark.parametrize("last", ["fc", "last_linear", "classifier"])
def test_a_model_without_dropout_has_its_head_in_the_image_network(
    tmp_path: Path, last: str
) -> None:
    model = small("TSN", dropout=0.0)
    contents = release(model)
    contents["state_dict"] = {
        name.replace("new_fc.", f"base_model.{last}."): tensor
        for name, tensor in contents["state_dict"].items()
    }
    loaded = load_checkpoint(write(contents, tmp_path / "file"), num_segments=4)
    assert_same(loaded, model)
    assert loaded.dropout == 0


@pytest.mark.parametrize("kind", ["TRN", "multi-scale TRN"])
def test_segments_that_contradict_the_weights(tmp_path: Path, kind: str) -> None:
    path = write(release(small(kind)), tmp_path / "file")
    with pytest.raises(CheckpointError, match="num_segments must be 4 or left out, got 8"):
        load_checkpoint(path, num_segments=8)


@pytest.mark.parametrize("num_class", [3, (5, 7)])
@pytest.mark.parametrize("modality", ["RGB", "Flow"])
@pytest.mark.parametrize("model_type", OWN)
def test_this_projects_weights_alone(
    tmp_path: Path, model_type: str, modality: str, num_class: Any
) -> None:
    dropout = 0.8 if model_type.startswith("tsm") else 0.7
    model = make(model_type, modality, num_class, dropout=dropout, **OWN[model_type])
    path = write(dict(model.state_dict()), tmp_path / "model.pth", legacy=False)
    loaded = load_checkpoint(path, num_segments=4)
    assert_same(loaded, model)
    assumed = loaded.load_report[-1].removeprefix("assumed what the file does not record: ")
    assert (
        assumed.split(", ")[1:]
        == {
            "tsn": ["consensus_type 'avg'"],
            "tsm": ["consensus_type 'avg'", "shift_div 8", "shift_direction 'both'"],
            "tsm-nl": ["consensus_type 'avg'", "shift_div 8", "shift_direction 'both'"],
            "trn": [],
            "mtrn": ["classifier_pairing 'published'"],
        }[model_type]
    )
    if "trn" in model_type:
        assert_same(load_checkpoint(path), model)
    else:
        with pytest.raises(UnknownSegmentsError):
            load_checkpoint(path)


def resnet_names(prefix: str) -> list[str]:
    blocks = [
        f"{prefix}layer{stage}.{i}.conv{j}" for stage in (1, 2) for i in (0, 1) for j in (1, 2)
    ]
    return [f"{prefix}conv1.weight", *(f"{block}.weight" for block in blocks)]


LAYOUTS: dict[str, tuple[list[str], str]] = {
    "TRN on Moments": (
        [
            "module.base_model.Conv2d_1a_3x3.conv.weight",
            "module.base_model.Mixed_5b.branch1x1.conv.weight",
            "module.base_model.fc.weight",
            "module.new_fc.weight",
        ],
        "an Inception-V3 that is not torchvision's",
    ),
    "torchvision ResNet": ([*resnet_names(""), "fc.weight"], "fc.weight.* an image classifier"),
    "torchvision VGG": (["features.0.weight", "classifier.6.weight"], "an image classifier"),
    "torchvision MobileNetV2": (
        ["features.1.conv.0.0.weight", "features.1.conv.1.weight", "classifier.1.weight"],
        "an image classifier",
    ),
    "pretrainedmodels": (["conv1_7x7_s2.weight", "last_linear.weight"], "an image classifier"),
    "a model within another": (
        ["net.base_model.conv1.weight", "net.new_fc.weight"],
        r"such as net\.base_model\.\) are those of a model that is part of another module",
    ),
}
"""Names of files that are not read here, and what the error calls them."""


@pytest.mark.parametrize("bare", [False, True], ids=["in a file", "alone"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_are_not_read_are_named(layout: str, bare: bool) -> None:
    names, message = LAYOUTS[layout]
    state = {name: torch.zeros(3, 3, 1, 1) for name in names}
    contents = state if bare else {"meta": {"epoch": 1}, "state_dict": state}
    with pytest.raises(CheckpointError, match=message) as error:
        parse_checkpoint(contents, num_segments=8)
    assert "\n" not in str(error.value)


def test_torchvisions_inception_v3(tmp_path: Path) -> None:
    model = randomised(TSN(3, 2, "RGB", base_model="inceptionv3", pretrained=None))
    assert parse_checkpoint(release(model), num_segments=2).config.arch == "inceptionv3"
    path = write(dict(model.state_dict()), tmp_path / "file")
    loaded = load_checkpoint(path, num_segments=2)
    assert get_config(loaded) == get_config(model)
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


def test_details_of_a_release(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(release(small("TSM in every second block")), tmp_path / "file")
    details = describe(path)
    assert details["variant"] == "TSM"
    assert "pass num_segments" in details["problem"]
    assert details["config"]["segment_count"] is None
    assert details["config"]["shift_every"] == 2
    assert details["config"]["num_class"] == 3
    assert print_details([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "cannot load it: the file does not record its number of segments" in printed
    assert "consensus_type 'avg', shift_div 8, shift_direction 'both'" in printed
    alone = write(their_names(small("TRN").state_dict()), tmp_path / "alone")
    details = describe(alone)
    assert details["problem"] is None
    assert details["config"]["segment_count"] == 4
    assert all(weight["name"].startswith("module.") for weight in details["weights"])


@pytest.mark.parametrize("kind", ["safetensors", "shuffled"])
@pytest.mark.parametrize(
    ("base_model", "modality"),
    [("resnet18", "RGB"), ("resnet18", "Flow"), ("BNInception", "Flow"), ("BNInception", "RGB")],
)
def test_the_order_of_weights_does_not_matter(
    tmp_path: Path, kind: str, base_model: str, modality: str
) -> None:
    """Files of safetensors have one of their own."""
    model = randomised(TSN(5, 2, modality, base_model, pretrained=None))
    state = model.state_dict()
    path = tmp_path / "weights"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(dict(sorted(state.items(), key=lambda item: item[0][::-1])), path)
    loaded = load_checkpoint(path, num_segments=2)
    assert (loaded.modality, loaded.new_length) == (modality, model.new_length)
    # A shift would have left no trace there.
    assert ("no temporal shift" in loaded.load_report[-1]) == (base_model == "BNInception")
    assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)
