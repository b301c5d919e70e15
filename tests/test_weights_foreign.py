"""Checkpoints of the TSN, TRN, TSM and EPIC-KITCHENS-100 C1 projects load and agree with them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from original_format import assert_same, make, outputs, write
from other_projects import C1_CLASSES, hyper_parameters, lightning, release, their_names
from reference.fill import tensor_for, tensor_input
from small_models import randomised

from model_loader import load_checkpoint, save_checkpoint, settings_of
from tools.print_checkpoint_details import describe
from tools.print_checkpoint_details import main as print_details
from tools.update_checkpoints import update
from trn import MTRN
from tsn import TSN
from weights.checkpoint import UnknownSegmentsError, parse_checkpoint
from weights.files import CheckpointError
from weights.preprocessing import TORCHVISION

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
    settings = settings_of(model)
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
    [("TRN", "Flow", 2), ("TSM", "Flow", 5), ("TSN", "RGBDiff", 5)],
)
def test_modality_of_releases(tmp_path: Path, kind: str, modality: str, new_length: int) -> None:
    model = small(kind, modality, new_length=new_length)
    loaded = load_checkpoint(write(release(model), tmp_path / "file"), num_segments=4)
    assert settings_of(loaded) == settings_of(model)
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
    assert "took the image network as resnet18 by its weights" in loaded.load_report


@pytest.mark.parametrize("last", ["fc", "last_linear"])
def test_the_image_networks_own_classifier_is_left_out(tmp_path: Path, last: str) -> None:
    model = small("TSM")
    contents = release(model)
    contents["state_dict"][f"module.base_model.{last}.weight"] = torch.ones(1000, 512)
    loaded = load_checkpoint(write(contents, tmp_path / "file"), num_segments=4)
    assert_same(loaded, model)
    assert f"classifier: base_model.{last}.weight" in " ".join(loaded.load_report)


def test_a_model_without_dropout_has_its_head_in_the_image_network(tmp_path: Path) -> None:
    model = small("TSN", dropout=0.0)
    contents = release(model)
    contents["state_dict"] = {
        name.replace("new_fc.", "base_model.fc."): tensor
        for name, tensor in contents["state_dict"].items()
    }
    loaded = load_checkpoint(write(contents, tmp_path / "file"), num_segments=4)
    assert_same(loaded, model)
    assert loaded.dropout == 0


def c1_small(kind: str, **options: Any) -> tuple[TSN, dict[str, Any]]:
    model = small(kind, num_class=C1_CLASSES, dropout=0.3, **options)
    of_model = {}
    if kind.startswith("TSM"):
        settings = settings_of(model)
        names = ("shift_div", "non_local", "temporal_pool")
        of_model = {name: getattr(settings, name) for name in names}
    names_of_types = {"multi-scale TRN": "MTRN"}
    return model, lightning(model, names_of_types.get(kind, kind[:3]), **of_model)


@pytest.mark.essential
@pytest.mark.parametrize("kind", RELEASES)
def test_lightning_files(tmp_path: Path, kind: str) -> None:
    model, contents = c1_small(kind)
    path = write(contents, tmp_path / "tsn_rgb.ckpt", legacy=kind == "TSM")
    loaded = load_checkpoint(path)
    assert_same(loaded, model)
    assert loaded.num_class == C1_CLASSES
    assert parse_checkpoint(contents, num_segments=4).settings.num_segments == 4
    with pytest.raises(CheckpointError, match="this one says 4, got 8"):
        parse_checkpoint(contents, num_segments=8)


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
    model = small("TSN", "Flow", C1_CLASSES, new_length=5)
    loaded = load_checkpoint(write(lightning(model, "TSN"), tmp_path / "file"))
    assert_same(loaded, model)
    assert (loaded.input_mean, loaded.input_std) == ([0.5], [0.226])


def test_a_shifted_bn_inception_of_lightning(tmp_path: Path) -> None:
    contents = lightning(
        randomised(TSN(C1_CLASSES, 4, "RGB", base_model="BNInception", pretrained=None)), "TSM"
    )
    loaded = load_checkpoint(write(contents, tmp_path / "file"))
    settings = settings_of(loaded)
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
        "took the file as an EPIC-KITCHENS-100 C1 MTRN of Lightning",
        "left out Lightning's entries callbacks, global_step, lr_schedulers, optimizer_states, "
        "pytorch-lightning_version",
        "left out weights that are not the model's: criterion.weight",
        f"removed the prefix 'model.' from {len(contents['state_dict']) - 1} names",
        "renamed 6 weights like consensus.fc_fusion_scales.0.3 to consensus.classifiers.0.0",
        "split 3 heads of 397 classes into 97 verbs and 300 nouns",
        "took the preprocessing from the file: mean (0.485, 0.456, 0.406), "
        "std (0.229, 0.224, 0.225)",
    ]
    report = load_checkpoint(
        write(release(small("TSM")), tmp_path / "file"), num_segments=4
    ).load_report
    assert list(report[1:]) == [
        f"removed the prefix 'module.' from all {len(small('TSM').state_dict())} names",
        "read shift_place 'blockres' and shift_every 1 (all blocks) off the names",
        "took shift_div as 8, which the file does not record",
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
        ("model.type", None, r"'model.type' .* is missing \('type' is not among backbone, drop"),
        ("model.type", "I3D", "model.type must be TSN, TRN, MTRN or TSM, got 'I3D'"),
        ("model.type", "TRN", "model.type TRN, but the weights have the names of a TSN"),
        ("model", None, "'model' is not among data, learning, modality"),
        ("model", [1], "'type' is not among list"),
        ("data.frame_count", None, "'data.frame_count'"),
        ("data.frame_count", "${count}", r"data.frame_count must be a number, got '\${count}'"),
        ("data.preprocessing", None, "'data.preprocessing.bgr'"),
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
    with pytest.raises(CheckpointError, match=r"no weight's name starts with 'model\.', got net"):
        parse_checkpoint(contents)
    contents["hyper_parameters"] = {"lr": 0.1}
    with pytest.raises(CheckpointError, match="EPIC-KITCHENS-100's C1 is missing"):
        parse_checkpoint(contents)


@pytest.mark.parametrize("kind", ["TRN", "multi-scale TRN"])
def test_segments_that_contradict_the_weights(tmp_path: Path, kind: str) -> None:
    path = write(release(small(kind)), tmp_path / "file")
    with pytest.raises(CheckpointError, match="this one says 4, got 8"):
        load_checkpoint(path, num_segments=8)


def test_this_projects_weights_alone_are_not_taken_for_anothers() -> None:
    """They do not tell MTRN's pairing of classifiers, for one."""
    for model_type in ("tsn", "trn", "mtrn", "tsm"):
        with pytest.raises(CheckpointError, match="not a checkpoint"):
            parse_checkpoint(dict(make(model_type).state_dict()))


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
    assert "took shift_div as 8" in printed
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
    written, changes = update(write(contents, tmp_path / "file"), tmp_path / "new")
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
    assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)
