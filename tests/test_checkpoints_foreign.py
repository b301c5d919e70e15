"""Checkpoints of the TSN, TRN, TSM and EPIC-KITCHENS-100 C1 projects load and agree with them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.original_format import assert_same, make, outputs, write
from helpers.other_projects import (
    C1_CLASSES,
    hyper_parameters,
    lightning,
    packages,
    release,
    their_names,
)
from helpers.small_models import randomised
from reference.fill import tensor_for, tensor_input

from checkpoints.checkpoint import UnknownSegmentsError, parse_checkpoint
from checkpoints.files import CheckpointError
from data.preprocessing import TORCHVISION
from model_loader import get_config, load_checkpoint, save_checkpoint
from tools.convert_checkpoint import convert
from tools.print_checkpoint_details import describe
from tools.print_checkpoint_details import main as print_details
from trn import MTRN
from tsn import TSN

REFERENCE = Path(__file__).parent / "reference"
RECORDED: dict[str, dict[str, Any]] = json.loads((REFERENCE / "foreign.json").read_text())
TOLERANCE = 1e-4


def recorded_contents(name: str) -> dict[str, Any]:
    """A file of another project as it was recorded: names and shapes, and made-up weights."""
    recorded = RECORDED[name]
    state = {
        key: tensor_for(key, tuple(shape), getattr(torch, dtype))
        for key, (shape, dtype) in recorded["state_dict"].items()
    }
    if "hyper_parameters" in recorded:
        return {"state_dict": state, "hyper_parameters": recorded["hyper_parameters"]}
    return {"epoch": 1, "arch": recorded["base_model"], "best_prec1": 1.0, "state_dict": state}


def test_six_files_are_recorded() -> None:
    assert len(RECORDED) == 6


@pytest.mark.essential
@pytest.mark.parametrize("name", RECORDED)
def test_outputs_of_the_other_projects(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = RECORDED[name]
    path = write(recorded_contents(name), tmp_path / "file", legacy=False)
    model = load_checkpoint(path, num_segments=recorded["num_segments"])
    path.unlink()
    settings = get_config(model)
    assert settings.model_type == recorded["family"].lower()
    assert settings.arch == recorded["base_model"]
    assert settings.shift_every == recorded.get("shift_every", 1)
    clip = tensor_input((1, model.num_segments * 3, 224, 224), seed=5)

    def difference(expected: np.ndarray) -> float:
        with torch.no_grad():
            result = model(clip)
        ours = torch.cat(result, dim=1) if isinstance(result, tuple) else result
        assert ours.shape == expected.shape
        return float(np.abs(ours.numpy() - expected).max() / np.abs(expected).max())

    with np.load(REFERENCE / "foreign.npz") as outputs_recorded:
        expected = dict(outputs_recorded)
    if isinstance(model, MTRN):
        assert difference(expected[f"{name}.expected"]) < TOLERANCE
        # Recorded with the first relations of every scale in the place of drawn ones.
        monkeypatch.setattr(torch, "randperm", torch.arange)
        model.relation_sampling = "random"
    assert difference(expected[name]) < TOLERANCE


RELEASES: dict[str, tuple[str, dict[str, Any]]] = {
    "TSN": ("tsn", {"consensus_type": "avg"}),
    "TRN": ("trn", {}),
    "multi-scale TRN": ("mtrn", {"classifier_pairing": "per-scale"}),
    "TSM": ("tsm", {"shift_place": "blockres"}),
    "TSM in front of blocks": ("tsm", {"shift_place": "block"}),
    "TSM in every second block": ("tsm", {"shift_place": "blockres", "shift_every": 2}),
    "TSM before every second block": ("tsm", {"shift_place": "block", "shift_every": 2}),
    "TSM, non-local, pooled": ("tsm-nl", {}),
    "TSM, non-local, before blocks": ("tsm-nl", {"shift_place": "block", "temporal_pool": False}),
}
"""Kinds of releases: model_type, and options that a release leaves its reader to find out."""


OWN: dict[str, dict[str, Any]] = {
    "tsn": {"consensus_type": "avg"},
    "trn": {},
    "mtrn": {},
    "tsm": {"shift_div": 8},
    "tsm-nl": {"shift_div": 8},
}
"""model_type, and the options that its weights do not tell, as they are assumed."""


def small(kind: str, modality: str = "RGB", num_class: Any = 3, **options: Any) -> TSN:
    """A small model of a kind of release, with the dropout that a reader assumes."""
    model_type, own_options = RELEASES[kind]
    defaults: dict[str, Any] = {"dropout": 0.7}
    if model_type.startswith("tsm"):
        defaults = {"dropout": 0.8, "shift_div": 8}
    return make(model_type, modality, num_class, **{**defaults, **own_options, **options})


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


def c1_small(
    kind: str, modality: str = "RGB", dropout: float = 0.3, **options: Any
) -> tuple[TSN, dict[str, Any]]:
    if modality == "Flow":
        options.setdefault("new_length", 5)
    model = small(kind, modality, C1_CLASSES, dropout=dropout, **options)
    of_model = {}
    if kind.startswith("TSM"):
        settings = get_config(model)
        names = ("shift_div", "non_local", "temporal_pool")
        of_model = {name: getattr(settings, name) for name in names}
    names_of_types = {"multi-scale TRN": "MTRN"}
    return model, lightning(model, names_of_types.get(kind, kind[:3]), **of_model)


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
    assert parse_checkpoint(contents, num_segments=4).settings.num_segments == 4
    if "TRN" in kind:
        with pytest.raises(CheckpointError, match=r"must be 4 or left out, got 8: .* relations"):
            parse_checkpoint(contents, num_segments=8)
    else:
        assert parse_checkpoint(contents, num_segments=8).settings.num_segments == 8


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
    assert checkpoint.settings == get_config(model)
    if kind.startswith("TSM") or not path.endswith(("shift_div", "non_local", "temporal_pool")):
        assert OPTIONAL[path] in " ".join(checkpoint.report)


def test_the_range_of_the_input_shows_in_its_mean() -> None:
    _, contents = c1_small("TSN")
    theirs = contents["hyper_parameters"]["data"]["preprocessing"]
    theirs.update(rescale=None, mean=[104, 117, 128])
    checkpoint = parse_checkpoint(contents)
    assert checkpoint.settings.preprocessing.input_range == (0, 255)
    assert "data.preprocessing.rescale False" in checkpoint.report[-1]


@pytest.mark.parametrize("kind", ["TSN", "TRN"])
def test_segments_that_hyper_parameters_do_not_tell(kind: str) -> None:
    model, contents = c1_small(kind)
    contents["hyper_parameters"] = changed(contents["hyper_parameters"], "data.frame_count", None)
    if kind == "TSN":
        with pytest.raises(UnknownSegmentsError):
            parse_checkpoint(contents)
        assert parse_checkpoint(contents, num_segments=4).settings == get_config(model)
    else:
        assert parse_checkpoint(contents).settings == get_config(model)


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
    assert (loaded.input_space, loaded.input_range) == ("RGB", [0, 1])
    theirs.update(bgr=True, rescale=False, mean=[104, 117, 128], std=[1])
    loaded = load_checkpoint(write(contents, tmp_path / "file"))
    assert (loaded.input_space, loaded.input_range) == ("BGR", [0, 255])
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
    settings = get_config(loaded)
    assert (settings.model_type, settings.shift_place) == ("tsm", "block")


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
    assert list(report) == [
        f"removed the prefix 'model.' from all {len(contents['state_dict']) - 1} names; left out "
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
    assert list(report) == [
        f"removed the prefix 'module.' from all {len(small('TSM').state_dict())} names",
        "took the model as a TSM, by the names of its weights",
        "read shift_place 'blockres' and shift_every 1 (all blocks) off the names",
        "assumed what the file does not record: the usual preprocessing of resnet18, "
        "consensus_type 'avg', shift_div 8",
    ]


def changed(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A tree with another value, or none, at a place."""
    first, _, rest = path.partition(".")
    if rest:
        return {**tree, first: changed(tree[first], rest, value)}
    tree = {name: item for name, item in tree.items() if name != first}
    return tree if value is None else {**tree, first: value}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.type", "I3D", "model.type must be TSN, TRN, MTRN or TSM, got 'I3D'"),
        ("model.type", "TRN", "model.type TRN, but the weights have the names of a TSN"),
        ("data.frame_count", "${count}", r"data.frame_count must be a number, got '\${count}'"),
        (
            "data.preprocessing.mean",
            None,
            r"mean' .* is missing \('mean' is not among bgr, input_s",
        ),
        ("data.preprocessing.std", None, "'data.preprocessing.std'"),
        ("data.preprocessing", None, r"'data\.preprocessing\.mean' .* is missing"),
        (
            "data.preprocessing.mean",
            0.5,
            "data.preprocessing.mean must be a list of 1 to 1,000 numbers",
        ),
        ("data.preprocessing.std", ["x"], "data.preprocessing.std must be a number"),
        ("data.preprocessing.std", [0.0], "data.preprocessing makes no sense: .*std be positive"),
        ("data.preprocessing.bgr", "no", "data.preprocessing.bgr must be a bool, got 'no'"),
        ("data.preprocessing.input_size", 0.5, "input_size must be a whole number"),
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
        ("model.dropout", 7, "dropout must be a probability"),
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
            "tsm": ["consensus_type 'avg'", "shift_div 8"],
            "tsm-nl": ["consensus_type 'avg'", "shift_div 8"],
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


MMACTION = [name.replace(".weight", ".conv.weight") for name in resnet_names("backbone.")]
MOBILENET = ["features.0.0.weight", "features.1.conv.0.weight", "features.18.0.weight"]
LAYOUTS: dict[str, tuple[list[str], str]] = {
    "mmaction2 TSN": ([*MMACTION, "cls_head.fc_cls.weight"], "an mmaction2 checkpoint: .* itself"),
    "mmaction2 backbone": (MMACTION, "an mmaction2 checkpoint"),
    "mmaction2 TSM": (
        [
            *(name.replace("conv1.conv", "conv1.conv.net") for name in MMACTION),
            "cls_head.fc_cls.bias",
        ],
        "an mmaction2 checkpoint",
    ),
    "MIT TSM on MobileNetV2": (
        [
            *(f"module.base_model.{name}" for name in MOBILENET),
            "module.base_model.features.3.conv.0.net.weight",
            "module.new_fc.weight",
        ],
        r"such as base_model\.features\.1\.conv\.0\.weight.* a MobileNetV2, .* not built here",
    ),
    "MIT's online TSM": ([*MOBILENET, "classifier.weight"], "a MobileNetV2, .* not built here"),
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


def test_a_training_file_of_mmaction2_is_named(tmp_path: Path) -> None:
    with packages({"mmengine.logging.history_buffer.HistoryBuffer": object}) as classes:
        contents = {"meta": {}, "message_hub": classes["HistoryBuffer"](), "state_dict": {}}
        path = write(contents, tmp_path / "epoch_50.pth")
    with pytest.raises(CheckpointError, match=r"'mmengine\..*a training file of mmaction2, whose"):
        load_checkpoint(path)


def test_torchvisions_inception_v3(tmp_path: Path) -> None:
    model = randomised(TSN(3, 2, "RGB", base_model="inceptionv3", pretrained=None))
    assert parse_checkpoint(release(model), num_segments=2).settings.arch == "inceptionv3"
    path = write(dict(model.state_dict()), tmp_path / "file")
    loaded = load_checkpoint(path, num_segments=2)
    assert get_config(loaded) == get_config(model)
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


def test_details_of_a_release(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(release(small("TSM in every second block")), tmp_path / "file")
    details = describe(path)
    assert details["variant"] == "TSM"
    assert "pass num_segments" in details["problem"]
    assert details["settings"]["segment_count"] is None
    assert details["settings"]["shift_every"] == 2
    assert details["settings"]["num_class"] == 3
    assert print_details([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "cannot load it: the file does not record its number of segments" in printed
    assert "consensus_type 'avg', shift_div 8" in printed
    alone = write(their_names(small("TRN").state_dict()), tmp_path / "alone")
    details = describe(alone)
    assert details["problem"] is None
    assert details["settings"]["segment_count"] == 4
    assert all(weight["name"].startswith("module.") for weight in details["weights"])


def test_details_of_a_lightning_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _, contents = c1_small("multi-scale TRN")
    path = write(contents, tmp_path / "file")
    details = describe(path)
    assert (details["variant"], details["problem"]) == ("MTRN", None)
    assert details["settings"]["num_class"] == [97, 300]
    assert details["settings"]["classifier_pairing"] == "per-scale"
    assert details["preprocessing_source"] == "recorded in the file"
    assert details["args"]["learning"]["lr"] == 0.01
    assert details["optimizer"]["state"] == {"parameters": 1, "tensors": 1, "bytes": 8}
    assert print_details([str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == details


def test_updating_a_lightning_file(tmp_path: Path) -> None:
    model, contents = c1_small("multi-scale TRN")
    written, changes = convert(write(contents, tmp_path / "file"), tmp_path / "new")
    assert any("split 3 heads" in line for line in changes)
    loaded = load_checkpoint(written)
    assert_same(loaded, model)
    assert loaded.load_report == ()


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
