"""Files of EPIC-KITCHENS-100's C1, and other files of Lightning."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.original_format import assert_same, make, outputs, write
from helpers.other_projects import (
    C1_CLASSES,
    OWN,
    RELEASES,
    c1_small,
    changed,
    hyper_parameters,
    lightning,
    release,
    small,
    their_names,
)
from helpers.small_models import randomised

from checkpoints.checkpoint import parse_checkpoint
from checkpoints.errors import CheckpointError, UnknownSegmentsError
from data.preprocessing import TORCHVISION
from model_loader import get_config, load_checkpoint, save_checkpoint
from tools.convert_checkpoint import convert
from tools.print_checkpoint_details import describe
from tools.print_checkpoint_details import main as print_details
from tsn import TSN


@pytest.mark.essential
@pytest.mark.parametrize("modality", ["RGB", "Flow"])
@pytest.mark.parametrize("kind", RELEASES)
def test_lightning_files(tmp_path: Path, kind: str, modality: str) -> None:
    model, contents = c1_small(kind, modality)
    path = write(contents, tmp_path / "tsn_rgb.ckpt", legacy=kind == "TSM")
    loaded = load_checkpoint(path)
    assert_same(loaded, model)
    assert loaded.num_class == C1_CLASSES
    assumed = [line for line in loaded.load_report if line.startswith("assumed")]
    bgr = "assumed what the file does not record: data.preprocessing.bgr False"
    assert assumed == [bgr] * (modality == "Flow")
    assert parse_checkpoint(contents, num_segments=4).config.num_segments == 4
    if "TRN" in kind:
        with pytest.raises(CheckpointError, match=r"must be 4 or left out, got 8: .* relations"):
            parse_checkpoint(contents, num_segments=8)
    else:
        assert parse_checkpoint(contents, num_segments=8).config.num_segments == 8


OPTIONAL = {
    "modality": "modality Flow",
    "data.segment_length": "data.segment_length 5",
    "data.preprocessing.rescale": "data.preprocessing.rescale True",
    "data.preprocessing.input_size": "data.preprocessing.input_size 224",
    "data.preprocessing.scale_size": "data.preprocessing.scale_size 256",
    "model.type": "model.type",
    "model.backbone": "by its weights",
    "model.dropout": "model.dropout 0.7",
    "model.shift_div": "model.shift_div 8",
    "model.non_local": "found non_local in the names",
    "model.temporal_pool": "found temporal_pool in the names",
}
"""Hyper-parameters that may be missing, and what is reported then."""


@pytest.mark.parametrize("value", ["absent", "None"])
@pytest.mark.parametrize("path", OPTIONAL)
@pytest.mark.parametrize("kind", ["TSN", "TRN", "multi-scale TRN", "TSM, non-local, pooled"])
def test_hyper_parameters_that_may_be_missing(kind: str, path: str, value: str) -> None:
    model, contents = c1_small(kind, "Flow", dropout=0.7)
    tree = changed(contents["hyper_parameters"], path, None)
    if value == "None":
        place, _, name = path.rpartition(".")
        part = tree
        for step in filter(None, place.split(".")):
            part = part[step]
        part[name] = None
    checkpoint = parse_checkpoint({**contents, "hyper_parameters": tree})
    assert checkpoint.config == get_config(model)
    if kind.startswith("TSM") or not path.endswith(("shift_div", "non_local", "temporal_pool")):
        assert OPTIONAL[path] in " ".join(checkpoint.report)


def test_the_range_of_the_input_shows_in_its_mean() -> None:
    _, contents = c1_small("TSN")
    theirs = contents["hyper_parameters"]["data"]["preprocessing"]
    theirs.update(rescale=None, mean=[104, 117, 128])
    checkpoint = parse_checkpoint(contents)
    assert checkpoint.config.preprocessing.input_range == (0, 255)
    assert "data.preprocessing.rescale False" in checkpoint.report[-1]


@pytest.mark.parametrize("kind", ["TSN", "TRN"])
def test_segments_that_hyper_parameters_do_not_tell(kind: str) -> None:
    model, contents = c1_small(kind)
    contents["hyper_parameters"] = changed(contents["hyper_parameters"], "data.frame_count", None)
    if kind == "TSN":
        with pytest.raises(UnknownSegmentsError):
            parse_checkpoint(contents)
        assert parse_checkpoint(contents, num_segments=4).config == get_config(model)
    else:
        assert parse_checkpoint(contents).config == get_config(model)


@pytest.mark.parametrize("tree", [None, {"lr": 0.1}, {"model": {"type": "mine"}, "data": "epic"}])
@pytest.mark.parametrize("model_type", ["tsn", "mtrn"])
def test_lightning_files_of_other_programs(tmp_path: Path, model_type: str, tree: Any) -> None:
    model = make(model_type, dropout=0.7, **OWN[model_type])
    state = {f"model._orig_mod.{name}": value for name, value in model.state_dict().items()}
    state["criterion.weight"] = torch.ones(2)
    contents = {"epoch": 3, "pytorch-lightning_version": "2.4.0", "state_dict": state}
    if tree is not None:
        contents["hyper_parameters"] = tree
    loaded = load_checkpoint(write(contents, tmp_path / "last.ckpt"), num_segments=4)
    assert_same(loaded, model)
    report = " ".join(loaded.load_report)
    assert "left out what is not the model's: criterion.weight" in report
    hyper_parameters = "hyper_parameters, " * (tree is not None)
    assert f"Lightning's entries {hyper_parameters}pytorch-lightning_version" in report


def test_shift_of_other_widths_in_lightning_files(tmp_path: Path) -> None:
    model, contents = c1_small("TSM", shift_div=4)
    loaded = load_checkpoint(write(contents, tmp_path / "file"))
    assert_same(loaded, model)


def test_preprocessing_is_the_files_own(tmp_path: Path) -> None:
    _, contents = c1_small("TSN")
    theirs = contents["hyper_parameters"]["data"]["preprocessing"]
    theirs.update(std=[0.485, 0.456, 0.406], input_size=112, scale_size=128)
    loaded = load_checkpoint(write(contents, tmp_path / "file"))
    assert loaded.input_std == loaded.input_mean == [0.485, 0.456, 0.406]
    assert (loaded.input_size, loaded.scale_size) == (112, 128)
    ours = loaded.preprocessing
    assert (ours.input_space, ours.input_range) == ("RGB", (0, 1))
    theirs.update(bgr=True, rescale=False, mean=[104, 117, 128], std=[1])
    loaded = load_checkpoint(write(contents, tmp_path / "file"))
    ours = loaded.preprocessing
    assert (ours.input_space, ours.input_range) == ("BGR", (0, 255))
    assert loaded.input_mean == [104, 117, 128]
    # It stays when the model is saved, unlike that of a release, which is the architecture's.
    again = load_checkpoint(save_checkpoint(loaded, tmp_path / "saved"))
    assert again.preprocessing == loaded.preprocessing
    path = write(release(small("TSN")), tmp_path / "release")
    assert load_checkpoint(path, num_segments=4).preprocessing == TORCHVISION


def test_flow_of_lightning_files(tmp_path: Path) -> None:
    _, contents = c1_small("TSN", "Flow")
    loaded = load_checkpoint(write(contents, tmp_path / "file"))
    assert (loaded.input_mean, loaded.input_std) == ([0.5], [0.226])


def test_a_shifted_bn_inception_of_lightning(tmp_path: Path) -> None:
    contents = lightning(
        randomised(TSN(C1_CLASSES, 4, "RGB", base_model="BNInception", pretrained=None)), "TSM"
    )
    loaded = load_checkpoint(write(contents, tmp_path / "file"))
    config = get_config(loaded)
    assert (config.model_type, config.shift_place) == ("tsm", "block")


def test_a_head_of_other_classes_stays_whole(tmp_path: Path) -> None:
    model = small("TRN", num_class=12)
    contents = lightning(small("TRN", num_class=C1_CLASSES), "TRN")
    contents["state_dict"] = their_names(model.state_dict(), "model.")
    loaded = load_checkpoint(write(contents, tmp_path / "file"))
    assert loaded.num_class == 12
    assert any("left the head whole: it has 12 classes" in line for line in loaded.load_report)
    for ours, expected in zip(outputs(loaded), outputs(model), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_the_report_names_what_was_done(tmp_path: Path) -> None:
    _, contents = c1_small("multi-scale TRN")
    contents["state_dict"]["criterion.weight"] = torch.ones(2)
    report = load_checkpoint(write(contents, tmp_path / "file")).load_report
    count = len(contents["state_dict"]) - 1
    assert list(report) == [
        f"removed the prefixes 'model.' from {count} of {count} names; left out "
        "what is not the model's: criterion.weight",
        "left out Lightning's entries callbacks, global_step, lr_schedulers, optimizer_states, "
        "pytorch-lightning_version",
        "renamed 6 weights like consensus.fc_fusion_scales.0.3 to consensus.classifiers.0.0",
        "took the file as an EPIC-KITCHENS-100 C1 MTRN",
        "split 3 heads of 397 classes into 97 verbs and 300 nouns",
        "took the preprocessing from the file: mean (0.485, 0.456, 0.406), "
        "std (0.229, 0.224, 0.225)",
    ]
    report = load_checkpoint(
        write(release(small("TSM")), tmp_path / "file"), num_segments=4
    ).load_report
    count = len(small("TSM").state_dict())
    assert list(report) == [
        f"removed the prefixes 'module.' from {count} of {count} names",
        "took the model as a TSM, by the names of its weights",
        "read shift_place 'blockres' and shift_every 1 off the names",
        "assumed what the file does not record: the usual preprocessing of resnet18, "
        "consensus_type 'avg', shift_div 8, shift_direction 'both'",
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.type", "I3D", "model.type must be TSN, TRN, MTRN or TSM, got 'I3D'"),
        ("model.type", "TRN", "model.type TRN, but the weights have the names of a TSN"),
        ("data.frame_count", "${count}", r"data.frame_count must be a number, got '\${count}'"),
        (
            "data.preprocessing.mean",
            None,
            r"the entry 'data.preprocessing.mean' is missing, got bgr, input_s",
        ),
        ("data.preprocessing.std", None, "'data.preprocessing.std'"),
        ("data.preprocessing", None, "'data.preprocessing.mean' is missing"),
        (
            "data.preprocessing.mean",
            0.5,
            "data.preprocessing.mean must be a list of 1 to 1,000 numbers",
        ),
        ("data.preprocessing.std", ["x"], "data.preprocessing.std must be a number"),
        ("data.preprocessing.std", [0.0], "data.preprocessing makes no sense: .*std be positive"),
        ("data.preprocessing.bgr", "no", "data.preprocessing.bgr must be a bool, got 'no'"),
        ("data.preprocessing.input_size", 0.5, "input_size must be an integer"),
    ],
)
def test_hyper_parameters_that_are_wrong(path: str, value: Any, message: str) -> None:
    _, contents = c1_small("TSN")
    contents["hyper_parameters"] = changed(contents["hyper_parameters"], path, value)
    with pytest.raises(CheckpointError, match=message) as error:
        parse_checkpoint(contents)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("modality", "Sound", "modality must be one of"),
        ("data.segment_length", 5, "new_length must be 1 for modality RGB"),
        ("model.dropout", 7, "dropout must be a number from 0 to 1"),
    ],
)
def test_hyper_parameters_of_no_model(tmp_path: Path, path: str, value: Any, message: str) -> None:
    _, contents = c1_small("TSN")
    contents["hyper_parameters"] = changed(contents["hyper_parameters"], path, value)
    file = write(contents, tmp_path / "file")
    with pytest.raises(CheckpointError, match=f"describes a model that cannot be: {message}"):
        load_checkpoint(file)


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("multi-scale TRN", "data.frame_count", 5, "say 5 segments .* weights are for 4"),
        ("TRN", "data.frame_count", 5, "say 5 segments .* weights are for 4"),
        ("TSM", "model.non_local", True, "non_local=True, but the weights' names say otherwise"),
        ("TSM, non-local, pooled", "model.temporal_pool", False, "temporal_pool=False, but"),
    ],
)
def test_hyper_parameters_that_contradict_the_weights(kind, path, value, message) -> None:
    _, contents = c1_small(kind)
    contents["hyper_parameters"] = changed(contents["hyper_parameters"], path, value)
    with pytest.raises(CheckpointError, match=message):
        parse_checkpoint(contents)


def test_lightning_files_of_other_networks() -> None:
    contents = {
        "state_dict": {"net.weight": torch.ones(2)},
        "hyper_parameters": hyper_parameters(small("TSN"), "TSN"),
    }
    with pytest.raises(CheckpointError, match=r"does not say which model .* got net\.weight"):
        parse_checkpoint(contents)


def test_details_of_a_lightning_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _, contents = c1_small("multi-scale TRN")
    path = write(contents, tmp_path / "file")
    details = describe(path)
    assert (details["variant"], details["problem"]) == ("MTRN", None)
    assert details["config"]["num_class"] == [97, 300]
    assert details["config"]["classifier_pairing"] == "per-scale"
    assert details["preprocessing_source"] == "recorded in the file"
    assert details["args"]["learning"]["lr"] == 0.01
    assert details["optimizer"]["state"] == {"parameters": 1, "tensors": 1, "bytes": 8}
    assert print_details([str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == details


def test_updating_a_lightning_file(tmp_path: Path) -> None:
    model, contents = c1_small("multi-scale TRN")
    written, changes = convert(write(contents, tmp_path / "file"), tmp_path / "new")
    assert written is not None
    assert any("split 3 heads" in line for line in changes)
    loaded = load_checkpoint(written)
    assert_same(loaded, model)
    assert loaded.load_report == ()
