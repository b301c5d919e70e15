"""Models start from any checkpoint file: what fits is loaded, and what starts anew is said."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.original_format import VARIANTS, assert_same, make, outputs, prefixed, write
from helpers.small_tsn import refused
from torch import Tensor, nn

from checkpoints.errors import CheckpointError
from data.preprocessing import CAFFE, TORCHVISION, Preprocessing
from model_loader import load_checkpoint, save_checkpoint
from ops.non_local import NonLocalBlock
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

HEADS = ("fc_verb.", "fc_noun.", "consensus.classifiers.")


def start(
    model_type: str, path: Any, num_class: Any = (5, 7), modality: str = "RGB", **options: Any
) -> TSN:
    """Make a model like `make`, but from a file."""
    kind, own_options = VARIANTS[model_type]
    options = {"base_model": "resnet18", "dropout": 0.4, **own_options, **options}
    if modality != "RGB":
        options.setdefault("new_length", 2)
    return kind(num_class, 4, modality, pretrained=path, **options)


def backbone(model: TSN) -> dict[str, Tensor]:
    """A backbone's weights under its own names, whatever is put into it."""
    return {
        name.replace(".net.", ".").replace(".block.", "."): tensor
        for name, tensor in model.base_model.state_dict().items()
        if ".nl." not in name
    }


def assert_same_backbone(model: TSN, other: TSN) -> None:
    ours, expected = backbone(model), backbone(other)
    assert list(ours) == list(expected)
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


@pytest.mark.essential
@pytest.mark.parametrize("model_type", VARIANTS)
def test_a_file_of_the_same_kind_gives_everything(tmp_path: Path, model_type: str, caplog) -> None:
    expected = make(model_type)
    expected.class_names = (list("vwxyz"), list("abcdefg"))
    path = save_checkpoint(expected, tmp_path / "file.pth")
    with caplog.at_level(logging.INFO):
        model = start(model_type, path)
    assert model.training
    assert_same(model.eval(), expected)
    assert model.class_names == (tuple("vwxyz"), tuple("abcdefg"))
    assert model.load_report == (f"all weights of {path} were loaded",)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert_same(start(model_type, str(path)).eval(), expected)


@pytest.mark.essential
@pytest.mark.parametrize("model_type", VARIANTS)
@pytest.mark.parametrize("num_class", [11, (3, 4)])
def test_other_classes_start_the_heads_anew(
    tmp_path: Path, model_type: str, num_class: Any, caplog
) -> None:
    recorded = make(model_type)
    recorded.class_names = (list("vwxyz"), list("abcdefg"))
    path = save_checkpoint(recorded, tmp_path / "file.pth")
    model = start(model_type, path, num_class)
    heads = (*HEADS, "new_fc.") if model_type in ("tsn", "tsm", "tsm-nl") else HEADS
    expected, ours = recorded.state_dict(), model.state_dict()
    kept = [name for name in ours if not name.startswith(heads)]
    assert len(kept) < len(ours)
    assert all(torch.equal(ours[name], expected[name]) for name in kept)
    assert all(task.isfinite().all() for task in outputs(model.eval()))
    assert model.class_names is None
    (message,) = model.load_report
    assert "trained on (5, 7) classes" in message
    assert "the heads start anew" in message
    assert [record.getMessage() for record in caplog.records] == [message]


@pytest.mark.parametrize(
    ("held", "wanted"),
    [("tsn", "tsm"), ("tsn", "tsm-nl"), ("tsn", "mtrn"), ("trn", "tsm"), ("mtrn", "trn"),
     ("tsm", "tsn"), ("tsm", "trn"), ("tsm-nl", "mtrn")],
)  # fmt: skip
def test_another_kind_gives_its_backbone(tmp_path: Path, held: str, wanted: str, caplog) -> None:
    recorded = make(held)
    path = save_checkpoint(recorded, tmp_path / "file.pth")
    model = start(wanted, path)
    assert_same_backbone(model, recorded)
    fresh, ours = start(wanted, None).state_dict(), model.state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in fresh.items()}
    for name in [name for name in ours if not name.startswith("base_model.")]:
        if ours[name].ndim == 2:
            assert ours[name].std().item() == pytest.approx(fresh[name].std().item(), rel=0.1)
        else:
            assert ours[name].any() == fresh[name].any()  # a bias, which may start at zero
    outputs(model.eval())
    assert f"holds a {recorded.variant}: the weights of its backbone" in model.load_report[0]
    report = " ".join(model.load_report)
    assert (".net" in report) == ("tsm" in held + wanted)
    assert ("left out 26 weights of non-local blocks" in report) == (held == "tsm-nl")
    assert len(caplog.records) == 1


def test_non_local_blocks_start_as_identities(tmp_path: Path) -> None:
    model = start("tsm-nl", save_checkpoint(make("tsn"), tmp_path / "file.pth"))
    blocks = [module for module in model.modules() if isinstance(module, NonLocalBlock)]
    assert blocks
    for block in blocks:
        x = torch.randn(1, block.theta.in_channels, 2, 4, 4)
        assert torch.equal(block(x), x)
        assert block.theta.weight.any()


@pytest.mark.parametrize("held", ["tsn", "tsm"])
def test_a_release_for_other_classes_starts_a_tsm(tmp_path: Path, held: str) -> None:
    """As the Kinetics weights of the TSN and TSM projects: one task, no number of segments."""
    recorded = make(held, num_class=400, **({"consensus_type": "avg"} if held == "tsn" else {}))
    contents = {"epoch": 50, "arch": "resnet18", "state_dict": prefixed(recorded.state_dict())}
    path = write(contents, tmp_path / "kinetics.pth", legacy=False)
    options = {"shift_div": 8} if held == "tsm" else {}  # what a release is taken to have
    model = start("tsm", path, (20, 60), **options)
    assert model.num_class == (20, 60)
    assert model.num_segments == 4
    assert_same_backbone(model, recorded)


@pytest.mark.parametrize("arch", ["BNInception", "mobilenetv2"])
def test_other_backbones(tmp_path: Path, arch: str) -> None:
    recorded = make("tsn", base_model=arch)
    path = save_checkpoint(recorded, tmp_path / "file.pth")
    place = "block" if arch == "BNInception" else "blockres"
    model = start("tsm", path, base_model=arch, shift_place=place)
    assert_same_backbone(model, recorded)


@pytest.mark.parametrize(("modality", "channels"), [("Flow", 4), ("RGBDiff", 6)])
@pytest.mark.parametrize(("held", "wanted"), [("tsm", "tsm"), ("tsn", "tsm"), ("mtrn", "mtrn")])
def test_rgb_weights_start_other_modalities(
    tmp_path: Path, held: str, wanted: str, modality: str, channels: int
) -> None:
    recorded = make(held)
    recorded.preprocessing = Preprocessing((0.4, 0.5, 0.6), (0.2,) * 3, input_size=112)
    path = save_checkpoint(recorded, tmp_path / "file.pth")
    model = start(wanted, path, modality=modality)
    weight = model.base_model.conv1.weight.detach()
    expected = recorded.base_model.conv1.weight.mean(dim=1, keepdim=True)
    torch.testing.assert_close(weight, expected.expand(-1, channels, -1, -1))
    assert torch.equal(model.base_model.bn1.running_mean, recorded.base_model.bn1.running_mean)
    assert model.preprocessing == recorded.preprocessing.for_modality(modality, 2)
    assert "trained on RGB" in model.load_report[-1]
    assert model.load_report[-1].endswith(f"preprocessing is that of {modality}")
    if held == wanted:
        same = [name for name in model.state_dict() if name != "base_model.conv1.weight"]
        ours, theirs = model.state_dict(), recorded.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in same)
    outputs(model.eval())
    again = load_checkpoint(save_checkpoint(model, tmp_path / "again.pth"))
    assert_same(again, model)


def test_preprocessing_is_that_of_the_weights(tmp_path: Path) -> None:
    recorded = make("tsn")
    recorded.preprocessing = CAFFE
    path = save_checkpoint(recorded, tmp_path / "file.pth")
    assert start("tsm", path).preprocessing == CAFFE
    unrecorded = write(dict(load(path), preprocessing=None), tmp_path / "old.pth")
    assert start("tsm", unrecorded).preprocessing == TORCHVISION


def load(path: Path) -> dict[str, Any]:
    contents = torch.load(path, weights_only=False)
    assert isinstance(contents, dict)
    return contents


@pytest.mark.parametrize(
    ("held", "wanted", "options", "faults"),
    [
        ("tsn", "tsm", {"base_model": "resnet34"}, ["base_model must be 'resnet18' for "]),
        ("tsm", "tsm", {"shift_div": 8, "shift_place": "blockres"},
         ["shift_div must be 4", "shift_place must be 'block'"]),
        ("tsm", "tsm", {"shift_direction": "past"}, ["shift_direction must be 'both'"]),
        ("tsm", "tsm", {"temporal_pool": True}, ["temporal_pool must be False"]),
        ("trn", "trn", {"num_segments": 3, "img_feature_dim": 64},
         ["num_segments must be 4", "img_feature_dim must be 32"]),
        ("mtrn", "mtrn", {"classifier_pairing": "per-scale"}, ["classifier_pairing must be"]),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(
    tmp_path: Path, held: str, wanted: str, options: dict, faults: list
) -> None:
    path = save_checkpoint(make(held), tmp_path / "file.pth")
    kind, own_options = VARIANTS[wanted]
    options = {"base_model": "resnet18", "num_segments": 4, **own_options, **options}
    with refused(*faults, f"for the weights of {path}"):
        kind((5, 7), options.pop("num_segments"), "RGB", pretrained=path, **options)


@pytest.mark.parametrize(
    ("modality", "options", "fault"),
    [
        ("RGB", {}, "modality must be 'Flow', new_length must be 2"),
        ("Flow", {"new_length": 5}, "new_length must be 2"),
        ("RGBDiff", {}, "modality must be 'Flow'"),
    ],
)
def test_flow_weights_fit_their_own_input_alone(
    tmp_path: Path, modality: str, options: dict, fault: str
) -> None:
    path = save_checkpoint(make("tsn", "Flow"), tmp_path / "file.pth")
    with refused(fault):
        start("trn", path, modality=modality, **options)


def test_segments_of_a_tsn_and_the_consensus_are_free(tmp_path: Path) -> None:
    path = save_checkpoint(make("trn"), tmp_path / "file.pth")
    model = TSM((5, 7), 16, "RGB", "resnet18", pretrained=path)
    assert model.num_segments == 16
    path = save_checkpoint(make("tsn", consensus_type="max"), tmp_path / "tsn.pth")
    assert TSN((5, 7), 16, "RGB", "resnet18", pretrained=path).consensus_type == "avg"


@pytest.mark.parametrize("kind", [TSN, TRN, MTRN, TSM])
@pytest.mark.parametrize("value", ["nowhere.pth", Path("nowhere.pth"), "imagenet21k", "."])
def test_neither_a_name_nor_a_file(kind: type[TSN], value: Any) -> None:
    with refused(
        "pretrained must be one of ('epic-kitchens', 'epic-kitchens-100', 'imagenet', None) or the "
        f"path of a checkpoint file, got {value!r}, where no file is"
    ):
        kind(5, 4, "RGB", "resnet18", pretrained=value)
    with refused("path of a checkpoint file, got True"):
        kind(5, 4, "RGB", "resnet18", pretrained=True)  # type: ignore[arg-type]


def test_files_that_are_no_such_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "image.pth"
    torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3), "fc.weight": torch.zeros(5, 4)}, path)
    with pytest.raises(CheckpointError, match="image classifier"):
        start("tsn", path)
    path.write_text("nothing")
    with pytest.raises(CheckpointError, match=r"image\.pth"):
        start("tsn", path)
    contents = load(save_checkpoint(make("tsn"), tmp_path / "file.pth"))
    contents["state_dict"] = {
        name: tensor for name, tensor in contents["state_dict"].items() if "layer1" not in name
    }
    torch.save(contents, path)
    with pytest.raises(CheckpointError, match=r"do not fit a TSM of its config; .* missing"):
        start("tsm", path, shift_place="blockres")


def test_a_start_from_a_file_can_be_trained(tmp_path: Path) -> None:
    model = start("tsm", save_checkpoint(make("tsn"), tmp_path / "file.pth"), 3)
    assert all(parameter.is_leaf for parameter in model.parameters())
    before = model.new_fc.weight.detach().clone()
    optimizer = torch.optim.SGD(model.get_optim_policies(), lr=0.1)
    nn.functional.cross_entropy(model(torch.randn(2, 12, 32, 32)), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert not torch.equal(model.new_fc.weight, before)
