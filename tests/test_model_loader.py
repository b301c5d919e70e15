"""Models come out of files as they went in: of every kind, on the CPU, without side effects."""

import hashlib
import os
import socket
import threading
import urllib.request
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.original_format import (
    VARIANTS,
    Global,
    assert_same,
    is_legacy,
    make,
    original,
    outputs,
    prefixed,
    training_options,
    write,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from checkpoints.config import ModelConfig
from checkpoints.errors import CheckpointError
from data.preprocessing import Preprocessing
from model_loader import (
    build_model,
    get_config,
    load_checkpoint,
    read_documented,
    save_checkpoint,
)
from ops.backbones import BACKBONES
from trn import TRN
from tsm import TSM
from tsn import TSN


@pytest.fixture(scope="module")
def tsn() -> TSN:
    """A model that tests only read."""
    return make("tsn")


@pytest.mark.essential
@pytest.mark.parametrize(
    ("modality", "legacy"), [("RGB", True), ("Flow", False)], ids=["RGB-legacy", "Flow-zip"]
)
@pytest.mark.parametrize("model_type", VARIANTS)
def test_files_of_the_original(tmp_path: Path, model_type, modality, legacy) -> None:
    model = make(model_type, modality)
    contents = original(model, model_type)
    path = write(contents, tmp_path / "model.pth.tar", legacy=legacy, device="cuda:1")
    loaded = load_checkpoint(path)
    assert_same(loaded, model)
    assert type(loaded) is VARIANTS[model_type][0]
    assert loaded.load_report == ()


@pytest.mark.parametrize("model_type", ["tsn", "trn", "mtrn", "tsm"])
def test_one_task(tmp_path: Path, model_type: str) -> None:
    model = make(model_type, num_class=3)
    path = write(original(model, model_type), tmp_path / "model.pth.tar")
    loaded = load_checkpoint(path)
    assert loaded.num_class == 3
    assert_same(loaded, model)


@pytest.mark.parametrize(
    ("model_type", "written", "entries"),
    [
        ("tsn", "tsn", {}),
        ("trn", "tsn", {"consensus_type": "TRN", "img_feature_dim": None}),
        ("mtrn", "tsn", {"consensus_type": "TRNMultiscale", "img_feature_dim": None}),
        ("tsm", "tsm", {}),
        ("tsm-nl", "tsm", {"temporal_pool": True, "non_local": True}),
    ],
)
def test_old_files(tmp_path: Path, model_type: str, written: str, entries: dict) -> None:
    model = make(model_type)
    contents = original(
        model,
        model_type,
        **{
            "model_type": written,
            "state_dict": prefixed(model.state_dict()),
            "args": training_options(img_feature_dim=32),
            **entries,
        },
    )
    loaded = load_checkpoint(write(contents, tmp_path / "model.pth.tar"))
    assert_same(loaded, model)
    assert "'module.'" in loaded.load_report[0]


@pytest.mark.essential
@pytest.mark.parametrize("model_type", VARIANTS)
def test_a_round_trip(tmp_path: Path, model_type: str) -> None:
    model, legacy = make(model_type, "Flow"), model_type in ("trn", "tsm")
    model.preprocessing = Preprocessing(mean=(0.4,), std=(0.3,), input_size=112, scale_size=128)
    path = save_checkpoint(model, tmp_path / "model.pth.tar", legacy=legacy)
    loaded = load_checkpoint(path)
    assert_same(loaded, model)
    assert loaded.preprocessing == model.preprocessing
    assert is_legacy(path) == legacy
    assert os.listdir(tmp_path) == ["model.pth.tar"]


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("tsn", {"consensus_type": "identity"}),
        ("tsn", {"consensus_type": "avg", "before_softmax": False}),
        ("mtrn", {"classifier_pairing": "per-scale"}),
        ("tsm", {"shift_every": 2, "consensus_type": "max"}),
        ("tsm", {"base_model": "BNInception"}),
        ("tsm", {"shift_direction": "past"}),
        ("tsm", {"shift_direction": "past", "base_model": "BNInception"}),
        ("tsm", {"base_model": "mobilenetv2", "shift_place": "blockres", "shift_every": 2}),
        ("tsn", {"base_model": "mobilenetv2"}),
    ],
)
def test_options_survive_a_round_trip(tmp_path: Path, model_type: str, options: dict) -> None:
    model = make(model_type, **options)
    assert_same(load_checkpoint(save_checkpoint(model, tmp_path / "model.pth")), model)


@pytest.mark.parametrize("consensus_type", ["TRN", "TRNMultiscale"])
def test_a_tsn_that_was_made_relational(tmp_path: Path, consensus_type: str) -> None:
    model = make("tsn", consensus_type=consensus_type, img_feature_dim=16)
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "model.pth"))
    assert loaded.consensus_type == consensus_type
    assert_same(loaded, model)


def test_rgb_differences(tmp_path: Path) -> None:
    model = make("tsn", "RGBDiff")
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "model.pth"))
    assert loaded.modality == "RGBDiff"
    assert_same(loaded, model)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_leave_nothing_on_the_meta_device(name: str) -> None:
    """Tensors that are no part of the state dict would stay without values."""
    with torch.device("meta"):
        model = TSN(2, 2, "RGB", base_model=name, pretrained=None)
    state = set(model.state_dict(keep_vars=True).values())
    assert not [
        name
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if tensor not in state
    ]
    held = [value for module in model.modules() for value in vars(module).values()]
    assert not [value for value in held if isinstance(value, torch.Tensor)]


def test_saved_files_read_as_the_original_reads_them(tmp_path: Path) -> None:
    for model_type, (_, own_options) in VARIANTS.items():
        model, legacy = make(model_type, "Flow"), model_type in ("trn", "tsm")
        args = {"train_list": Path("/data/train"), "learning_rate": np.float64(0.1)}
        path = save_checkpoint(
            model, tmp_path / "model.pth.tar", epoch=np.int64(3), args=args, legacy=legacy
        )
        ckpt = torch.load(path, weights_only=False)
        assert ckpt["model_type"] == model_type
        assert (ckpt["args"].flow_length, ckpt["args"].dropout) == (2, 0.4)
        assert vars(ckpt["args"])["train_list"] == "/data/train", "readable on every system"
        assert type(ckpt["args"].learning_rate) is float, "and with every NumPy"
        assert (ckpt["epoch"], ckpt["segment_count"]) == (3, 4)
        assert (ckpt["modality"], ckpt["arch"]) == ("Flow", "resnet18")
        assert list(ckpt["state_dict"]) == list(model.state_dict())
        for name, value in own_options.items():
            assert ckpt[name] == value
        again = make(model_type, "Flow")
        again.load_state_dict(ckpt["state_dict"], strict=True)
        assert_same(again, model)


@pytest.mark.essential
def test_training_goes_on_from_a_file(tmp_path: Path) -> None:
    model = make("tsm", "Flow").train()
    assert isinstance(model, TSM)
    optimizer = torch.optim.SGD(model.get_optim_policies(), lr=1e-4, momentum=0.9)
    sum(output.sum() for output in model(torch.randn(2, 16, 64, 64))).backward()
    optimizer.step()
    path = tmp_path / "model.pth.tar"
    save_checkpoint(model, path, epoch=1, args=Namespace(lr=0.1), optimizer=optimizer.state_dict())
    content = hashlib.sha256(path.read_bytes()).digest()

    loaded = load_checkpoint(path)
    assert not loaded.training
    assert_same(loaded, model.eval())
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, p in loaded.named_parameters() if not p.requires_grad}
    assert frozen, "partial batch norm froze something"
    resumed = torch.optim.SGD(loaded.train().get_optim_policies(), lr=1e-4, momentum=0.9)
    resumed.load_state_dict(torch.load(path, weights_only=False)["optimizer"])
    sum(output.sum() for output in loaded(torch.randn(2, 16, 64, 64))).backward()
    resumed.step()
    assert hashlib.sha256(path.read_bytes()).digest() == content, "loading never writes"
    # And the file may be replaced while a model from it lives.
    save_checkpoint(loaded, path)
    assert_same(load_checkpoint(path), loaded.eval())


@pytest.mark.parametrize("precision", ["half", "bfloat16", "double"])
def test_the_model_is_float32_whatever_the_file_is(tmp_path: Path, tsn: TSN, precision) -> None:
    state = {
        name: getattr(tensor, precision)() if tensor.is_floating_point() else tensor
        for name, tensor in tsn.state_dict().items()
    }
    path = write(original(tsn, "tsn", state_dict=state), tmp_path / "model.pth")
    loaded = load_checkpoint(path)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32, torch.int64}
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype))
    assert all(output.dtype == torch.float32 for output in outputs(loaded))


def test_where_and_how_the_model_comes(tmp_path: Path, tsn: TSN) -> None:
    loaded = load_checkpoint(str(write(original(tsn, "tsn"), tmp_path / "x", device="cuda:3")))
    tensors = [*loaded.parameters(), *loaded.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert not any(module.training for module in loaded.modules())
    assert all(tensor.is_leaf for tensor in tensors)


class CountFills(TorchDispatchMode):
    """Counts operations that fill memory with fresh values; on the meta device too, they take time.

    Copies of whole weights are counted as well.
    """

    fills = 0
    copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.fills += name in ("normal_", "uniform_", "fill_", "zero_", "random_", "bernoulli_")
        self.copies += name in ("clone", "copy_", "_to_copy") and args[0].ndim > 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("model_type", VARIANTS)
def test_loading_initialises_nothing_and_needs_no_network(
    tmp_path: Path, model_type: str, monkeypatch
) -> None:
    model = make(model_type)
    path = write(original(model, model_type), tmp_path / "model.pth")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    state = torch.get_rng_state()
    with CountFills() as counter:
        load_checkpoint(path)
    assert counter.fills == 0
    assert counter.copies == 0, "no weight is held twice"
    assert torch.equal(torch.get_rng_state(), state)
    with CountFills() as counter:
        build_model(get_config(model)).double()
    assert counter.fills > 10, "the counter counts"
    assert counter.copies > 10


def test_the_allow_list_is_left_as_it_was(tmp_path: Path, tsn: TSN) -> None:
    path = write(original(tsn, "tsn"), tmp_path / "model.pth")
    before = torch.serialization.get_safe_globals()
    try:
        torch.serialization.add_safe_globals([Namespace])
        during = set(torch.serialization.get_safe_globals())
        threads = [threading.Thread(target=load_checkpoint, args=(path,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(torch.serialization.get_safe_globals()) == during
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@pytest.mark.parametrize("entry", ["epoch", "args", "optimizer", "state_dict"])
@pytest.mark.skipif(os.name == "nt", reason="the payload is for POSIX")
def test_hostile_files(tmp_path: Path, tsn: TSN, entry: str) -> None:
    marker = tmp_path / "executed"
    evil = Global(os.system, f"touch '{marker}'")
    contents = original(tsn, "tsn")
    contents[entry] = {
        "epoch": evil,
        "args": training_options(evil=[evil]),
        "optimizer": {"state": {0: evil}, "param_groups": []},
        "state_dict": {**tsn.state_dict(), "evil": evil},
    }[entry]
    path = write(contents, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth holds 'posix\.system'"):
        load_checkpoint(path)
    assert not marker.exists()
    if entry == "optimizer":
        assert_same(load_checkpoint(path, trust=True), tsn)
        assert marker.exists()


def test_a_whole_model_is_no_checkpoint(tmp_path: Path, tsn: TSN) -> None:
    path = tmp_path / "model.pth"
    torch.save(tsn, path)
    with pytest.raises(CheckpointError, match=r"holds 'tsn\.TSN'"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"a whole model \(TSN\).*weights_only=False"):
        load_checkpoint(path, trust=True)


def renamed(state: dict) -> dict:
    return {name.replace("layer1", "stage1"): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"arch": "resnet19"}, "cannot be: base_model must be .*, got 'resnet19' .*; known are"),
        ({"modality": "Audio"}, "cannot be: modality must be one of RGB, Flow, RGBDiff"),
        ({"consensus_type": "median"}, "cannot be: consensus_type must be one of"),
        ({"segment_count": 0}, "cannot be: num_segments must be a positive integer, got 0"),
        ({"args": Namespace(dropout=7)}, "cannot be: dropout must be a number from 0 to 1"),
        ({"segment_count": "many"}, "segment_count must be a number, got 'many'"),
        ({"arch": "resnet34"}, r"do not fit a TSN of its config; \d+ missing: .* and \d+ more$"),
        ({"modality": "Flow"}, r"conv1.weight \(64, 3, 7, 7\) instead of \(64, 4, 7, 7\)"),
        ({"state_dict": renamed}, r"20 missing: .*layer1.* and 15 more; 24 unexpected: .*stage1"),
    ],
)
def test_files_that_contradict_themselves(tmp_path: Path, tsn: TSN, entries, message) -> None:
    entries = {n: v(tsn.state_dict()) if callable(v) else v for n, v in entries.items()}
    path = write(original(tsn, "tsn", **entries), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize(
    ("model_type", "entries", "message"),
    [
        ("trn", {"segment_count": 6}, r"pre_classifier.1.weight \(512, 128\) instead of \(512, 19"),
        ("mtrn", {"segment_count": 6}, "missing: .*classifiers.3"),
        ("mtrn", {"segment_count": 3}, "unexpected: .*classifiers.2"),
        ("mtrn", {"segment_count": 1}, "num_segments must be from 2"),
        ("trn", {"img_feature_dim": 64}, r"new_fc.weight \(32, 512\) instead of \(64, 512\)"),
        ("tsm", {"shift_place": "blockres"}, r"missing: base_model.layer1.0.conv1.net.weight"),
        ("tsm", {"shift_place": "nowhere"}, "shift_place must be one of block, blockres"),
        ("tsm", {"model_type": "trn"}, "no head that fits model_type 'trn'"),
        ("tsm", {"non_local": True}, "54 missing: base_model.layer2.0.block.net.conv1.weight"),
        ("tsm-nl", {"segment_count": 3}, "temporal_pool needs an even num_segments"),
    ],
)
def test_files_that_contradict_their_weights(tmp_path: Path, model_type, entries, message) -> None:
    path = write(original(make(model_type), model_type, **entries), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)


def test_files_that_are_none(tmp_path: Path, tsn: TSN) -> None:
    with pytest.raises(FileNotFoundError, match="no such checkpoint file"):
        load_checkpoint(tmp_path / "none.pth")
    path = save_checkpoint(tsn, tmp_path / "model.pth")
    path.write_bytes(path.read_bytes()[:1_000_000])
    with pytest.raises(CheckpointError, match=r"1,000,000 bytes\) is not a checkpoint"):
        load_checkpoint(path)


def test_segments_that_a_file_does_not_record(tmp_path: Path, tsn: TSN) -> None:
    path = write(original(tsn, "tsn", segment_count=None), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="pass num_segments"):
        load_checkpoint(path)
    assert_same(load_checkpoint(path, num_segments=4), tsn)


@pytest.mark.parametrize("model_type", ["tsn", "tsm", "tsm-nl"])
def test_other_segments_than_recorded(tmp_path: Path, model_type: str) -> None:
    model = make(model_type)
    path = write(original(model, model_type), tmp_path / "model.pth")
    expected = build_model(replace(get_config(model), num_segments=6)).eval()
    expected.load_state_dict(model.state_dict())
    loaded = load_checkpoint(path, num_segments=6)
    assert_same(loaded, expected)
    assert loaded.load_report == ("took num_segments as 6, as asked; the file records 4",)
    if model_type == "tsm-nl":
        message = "temporal_pool needs an even num_segments, got 5"
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path, num_segments=5)


@pytest.mark.parametrize("args", [None, {}, {"dropout": 0.4, "flow_length": 2}])
def test_args_may_be_missing_or_a_dictionary(tmp_path: Path, tsn: TSN, args: Any) -> None:
    path = write(original(tsn, "tsn", args=args), tmp_path / "model.pth")
    loaded = load_checkpoint(path)
    assert loaded.dropout == (0.4 if args else 0.7), "the model's own where none is recorded"


in_wrappers = pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    ],
    ids=["DataParallel", "AveragedModel", "compile", "DataParallel of compile"],
)


@in_wrappers
def test_wrapped_models_are_saved_without_the_wrapping(tmp_path: Path, tsn: TSN, wrap) -> None:
    path = save_checkpoint(wrap(tsn), tmp_path / "model.pth")
    loaded = load_checkpoint(path)
    assert loaded.load_report == ()
    assert_same(loaded, tsn)


@in_wrappers
def test_weights_of_wrapped_models_load(tmp_path: Path, tsn: TSN, wrap) -> None:
    contents = original(tsn, "tsn", state_dict=wrap(tsn).state_dict())
    loaded = load_checkpoint(write(contents, tmp_path / "model.pth"))
    assert_same(loaded, tsn)
    assert len(loaded.load_report) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((nn.Linear(1, 1),), {}, "model must be a TSN, TRN, MTRN or TSM, got Linear"),
        ((nn.DataParallel(nn.Linear(1, 1)),), {}, "got Linear"),
        ((), {"args": Namespace(function=len)}, r"args\['function'\] must be a plain value"),
        ((), {"optimizer": "SGD"}, r"optimizer must be its state_dict\(\), got str"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, tsn: TSN, arguments, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        save_checkpoint(*(arguments or (tsn,)), tmp_path / "model.pth", **options)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, tsn: TSN, monkeypatch) -> None:
    path = save_checkpoint(tsn, tmp_path / "model.pth", epoch=1)

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(make("trn"), path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["model.pth"]
    assert_same(load_checkpoint(path), tsn)


def test_settings_build_the_same_kind_of_model() -> None:
    model = make("trn", "Flow", num_class=3)
    built = build_model(get_config(model))
    assert type(built) is TRN
    assert get_config(built) == get_config(model)
    assert [(n, t.shape) for n, t in built.state_dict().items()] == [
        (n, t.shape) for n, t in model.state_dict().items()
    ]
    with pytest.raises(ValueError, match=r"model_type must be one of .* got 'i3d'"):
        build_model(ModelConfig("i3d", 3, 8, "RGB", "resnet18", 1))


@pytest.mark.parametrize("model_type", ["tsn", "trn", "mtrn", "tsm"])
@pytest.mark.parametrize("num_class", [10, [3, 4]])
def test_classes_of_ones_own(tmp_path: Path, model_type: str, num_class: Any) -> None:
    expected = make(model_type)
    path = save_checkpoint(expected, tmp_path / "file")
    model = load_checkpoint(path, num_class=num_class)
    assert model.num_class == (num_class if num_class == 10 else (3, 4))
    heads = ("fc_verb.", "fc_noun.", "consensus.classifiers.")
    kept = {name for name in expected.state_dict() if not name.startswith(heads)}
    for name in kept:
        assert torch.equal(model.state_dict()[name], expected.state_dict()[name])
    outputs(model)  # no weight was left without memory
    assert "was trained on (5, 7) classes" in model.load_report[-1]
    assert load_checkpoint(path, num_class=(5, 7)).load_report == ()


@pytest.mark.parametrize("num_class", [0, -1, "many", (1, 2, 3), 1.5])
def test_classes_that_cannot_be(tmp_path: Path, num_class: Any) -> None:
    with pytest.raises(ValueError, match="num_class"):
        load_checkpoint(save_checkpoint(make("tsn"), tmp_path / "file"), num_class=num_class)


def test_an_optimiser_stays_out_of_safetensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optimizer must be None .*\.pth\.tar"):
        save_checkpoint(make("tsn"), tmp_path / "m.safetensors", optimizer={"state": {}})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
def test_training_resumes_with_the_batch_norms_that_it_had(tmp_path: Path, suffix: str) -> None:
    model = TSN(3, 2, "RGB", "resnet18", pretrained=None, partial_bn=False)
    assert not load_checkpoint(save_checkpoint(model, tmp_path / f"a{suffix}")).partial_bn
    model.partialBN(True)
    path = save_checkpoint(model, tmp_path / f"b{suffix}")
    model.partialBN(False)
    optimizer = torch.optim.SGD(model.get_optim_policies(), lr=0.1, momentum=0.9)
    again = load_checkpoint(save_checkpoint(model, tmp_path / f"c{suffix}")).train()
    resumed = torch.optim.SGD(again.get_optim_policies(), lr=0.1, momentum=0.9)
    resumed.load_state_dict(optimizer.state_dict())
    assert load_checkpoint(path).partial_bn


NAMES = {(5, 7): (tuple("vwxyz"), tuple("abcdefg")), 3: ("left", "right", "größer")}


@pytest.mark.essential
@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
@pytest.mark.parametrize(("model_type", "num_class"), [("tsn", 3), ("mtrn", (5, 7)), ("tsm", 3)])
def test_class_names_live_in_the_file(
    tmp_path: Path, suffix: str, model_type: str, num_class: Any
) -> None:
    model, names = make(model_type, num_class=num_class), NAMES[num_class]
    assert model.class_names is None
    assert load_checkpoint(save_checkpoint(model, tmp_path / f"a{suffix}")).class_names is None
    model.class_names = list(map(list, names)) if num_class == (5, 7) else list(names)
    path = save_checkpoint(nn.DataParallel(model), tmp_path / f"b{suffix}")
    loaded = load_checkpoint(path)
    assert loaded.class_names == model.class_names == names
    again = load_checkpoint(save_checkpoint(loaded, tmp_path / f"c{suffix}"), num_class=num_class)
    assert again.class_names == names
    assert build_model(get_config(again)).class_names == names
    recorded = [*map(list, names)] if num_class == (5, 7) else [*names]
    assert read_documented(path)[0]["class_names"] == recorded
    assert load_checkpoint(path, num_class=4).class_names is None, "new heads have none"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["v"] * 5, r"class_names must be \(verbs, nouns\), a list of names each, .* got list"),
        ((["v"] * 5, ["n"] * 6), r"for \(5, 7\) classes, got \(5, 6\)"),
        ((["v"] * 5, [*range(7)]), "a list of names each, .* got"),
        ({"verbs": ["v"] * 5}, "got dict"),
        ((["v"] * 5, ["n"] * 6 + ["\x1b[2J"]), r"no control characters, got '\\x1b\[2J'"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path: Path, names: Any, message: str) -> None:
    model = make("tsn")
    with pytest.raises(ValueError, match=message):
        model.class_names = names
    path = write(original(model, "tsn", class_names=names), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=f"model.pth: .*{message}.*; correct or remove this"):
        load_checkpoint(path)
    model.class_names = NAMES[5, 7]
    with pytest.raises(ValueError, match="class_names"):
        model.class_names = names
    assert model.class_names == NAMES[5, 7]
    model.class_names = None
    assert "class_names" not in read_documented(save_checkpoint(model, path))[0]
