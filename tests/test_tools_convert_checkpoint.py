"""Checkpoints of every kind become documented ones, in the format that was asked for."""

import hashlib
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.equality import assert_equal
from helpers.original_format import (
    Global,
    assert_same,
    is_legacy,
    make,
    original,
    prefixed,
    training_options,
    write,
)
from helpers.other_projects import lightning, release

from checkpoints.files import read_file
from model_loader import load_checkpoint, save_checkpoint
from tools.convert_checkpoint import convert, main
from tools.options import find_format

PROGRAM = Path(__file__).resolve().parent.parent / "tools" / "convert_checkpoint.py"
OPTIMIZER = {"state": {0: {"m": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
OLD = {
    "tsn": ("tsn", {}),
    "trn": ("tsn", {"consensus_type": "TRN", "img_feature_dim": None}),
    "mtrn": ("tsn", {"consensus_type": "TRNMultiscale", "img_feature_dim": None}),
    "tsm": ("tsm", {}),
    "tsm-nl": ("tsm", {"non_local": True, "temporal_pool": True}),
}
"""model_type now: model_type then, and other entries of then."""


def old_contents(model_type: str, modality: str = "RGB", /, **entries: Any) -> dict[str, Any]:
    model = make(model_type, modality)
    written, own_entries = OLD[model_type]
    return original(
        model,
        model_type,
        **{
            "model_type": written,
            "state_dict": prefixed(model.state_dict()),
            "args": training_options(img_feature_dim=32, flow_length=2),
            "optimizer": OPTIMIZER,
            "best_prec1": np.float64(0.5),
            "history": [1, {"a": 2}],
            **own_entries,
            **entries,
        },
    )


def halved(contents: dict[str, Any]) -> dict[str, Any]:
    state = contents["state_dict"]
    half = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    return {**contents, "state_dict": half}


# One file to another


@pytest.mark.parametrize(
    ("model_type", "modality", "legacy"),
    [
        ("tsn", "RGB", True),
        ("trn", "Flow", True),
        ("mtrn", "RGB", False),
        ("tsm", "Flow", False),
        ("tsm-nl", "RGB", True),
    ],
)
def test_old_files_become_documented(
    tmp_path: Path, capsys, model_type: str, modality: str, legacy: bool
) -> None:
    old = write(old_contents(model_type, modality), tmp_path / "old.pth.tar", legacy=legacy)
    before = old.read_bytes()
    new = tmp_path / "new.pth.tar"
    options = ["--legacy"] if legacy else []
    assert main([str(old), "--output", str(new), *options]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert "removed the prefixes 'module.'" in printed
    assert printed.endswith(f"wrote {new}\n")
    assert old.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["new.pth.tar", "old.pth.tar"]
    assert is_legacy(new) == legacy

    model = make(model_type, modality)
    contents = torch.load(new, weights_only=False)  # as the original reads it
    assert contents["model_type"] == model_type
    assert contents["format_version"] == 1
    assert list(contents["state_dict"]) == list(model.state_dict())
    assert (contents["args"].flow_length, contents["args"].dropout) == (2, 0.4)
    if model_type in ("trn", "mtrn"):
        assert contents["img_feature_dim"] == 32
    if model_type == "tsm-nl":
        assert contents["non_local"] is True

    loaded = load_checkpoint(new)
    assert loaded.load_report == ()
    assert_same(loaded, model)


def test_nothing_is_lost(tmp_path: Path) -> None:
    contents = halved(old_contents("trn"))
    old = write(contents, tmp_path / "old.pth")
    convert(old, tmp_path / "new.pth")
    new = read_file(tmp_path / "new.pth")
    assert (new["epoch"], new["best_prec1"]) == (80, 0.5)
    assert_equal(new["history"], contents["history"])
    assert_equal(new["optimizer"], contents["optimizer"])
    assert vars(new["args"]) == {
        **vars(contents["args"]),
        "train_list": "/data/train.pkl",
        "crop": (224, "crops"),
    }
    for name, tensor in contents["state_dict"].items():
        assert torch.equal(new["state_dict"][name.removeprefix("module.")], tensor)
    assert {tensor.dtype for tensor in new["state_dict"].values()} == {torch.float16, torch.int64}


@pytest.mark.parametrize(
    ("model_type", "modality"),
    [("tsn", "RGB"), ("mtrn", "Flow"), ("trn", "RGBDiff"), ("tsm-nl", "RGB")],
)
def test_to_safetensors_and_back(tmp_path: Path, model_type: str, modality: str) -> None:
    contents = halved(original(make(model_type, modality), model_type))
    old = write(contents, tmp_path / "old.pth.tar")
    there, back = tmp_path / "there.safetensors", tmp_path / "back.pth.tar"
    assert convert(old, there)[0] == there
    assert convert(there, back)[0] == back
    assert (find_format(there), find_format(back)) == ("safetensors", "zip")
    # In another order, which safetensors has of its own.
    weights = sorted(read_file(back)["state_dict"].items())
    assert_equal(dict(weights), dict(sorted(contents["state_dict"].items())))
    expected = load_checkpoint(old)
    for path in (there, back):
        loaded = load_checkpoint(path)
        assert_same(loaded, expected)
        assert loaded.load_report == ()


def test_options_that_this_library_adds(tmp_path: Path) -> None:
    model = make("mtrn", classifier_pairing="per-scale", relation_sampling="random")
    path = save_checkpoint(model, tmp_path / "mtrn.pth")
    convert(path, tmp_path / "mtrn.safetensors")
    loaded = load_checkpoint(tmp_path / "mtrn.safetensors")
    assert loaded.classifier_pairing == "per-scale"
    assert loaded.preprocessing == model.preprocessing


def test_where_a_file_comes_from_is_recorded(tmp_path: Path) -> None:
    old = write(old_contents("tsn"), tmp_path / "old.pth.tar")
    _, changes = convert(old, tmp_path / "new.pth")
    digest = hashlib.sha256(old.read_bytes()).hexdigest()
    expected = {"file": "old.pth.tar", "sha256": digest, "changes": changes}
    assert read_file(tmp_path / "new.pth")["provenance"] == expected
    convert(tmp_path / "new.pth", tmp_path / "newer.pth")
    assert read_file(tmp_path / "newer.pth")["provenance"] == expected


@pytest.mark.parametrize("entry", ["optimizer", "optimizer_states"])
def test_safetensors_leave_the_optimizer_out_and_say_so(tmp_path: Path, entry: str) -> None:
    contents = original(make("tsn"), "tsn", **{entry: OPTIMIZER})
    path, new = write(contents, tmp_path / "old.pth"), tmp_path / "new.safetensors"
    _, changes = convert(path, new)
    assert f"left out the entry {entry}: safetensors files hold no optimiser state" in changes
    assert entry not in read_file(new)


def test_checkpoints_of_other_projects(tmp_path: Path) -> None:
    c1 = make("tsm", num_class=(97, 300), shift_place="blockres", shift_div=8)
    one_task = make("tsn", num_class=5)
    for name, contents, model, segments in (
        ("c1", lightning(c1, "TSM"), c1, None),
        ("release", release(one_task), one_task, 4),
    ):
        path = write(contents, tmp_path / f"{name}.ckpt", legacy=False)
        expected = load_checkpoint(path, num_segments=segments)
        for there in (tmp_path / f"{name}.safetensors", tmp_path / f"{name}.pth.tar"):
            _, changes = convert(path, there, num_segments=segments)
            assert tuple(changes[: len(expected.load_report)]) == expected.load_report
            loaded = load_checkpoint(there)
            assert_same(loaded, expected)
            assert loaded.load_report == ()
            assert model.num_class == loaded.num_class
        kept = read_file(there)
        for entry in ("hyper_parameters", "global_step", "optimizer_states", "best_prec1"):
            if entry in contents:
                assert_equal(kept[entry], contents[entry])


def test_segments_that_a_file_does_not_record(tmp_path: Path, capsys) -> None:
    path = write(release(make("tsn", num_class=5)), tmp_path / "tsn.pth.tar")
    new = tmp_path / "new.pth.tar"
    assert main([str(path), "--output", str(new)]) == 1
    assert "num_segments" in capsys.readouterr().err
    assert not new.exists()
    assert main([str(path), "--output", str(new), "--num-segments", "2"]) == 0
    assert load_checkpoint(new).num_segments == 2


def test_another_number_of_segments_is_recorded(tmp_path: Path) -> None:
    path = save_checkpoint(make("tsm"), tmp_path / "tsm.pth")
    _, changes = convert(path, tmp_path / "new.safetensors", num_segments=6)
    assert changes == [
        "took num_segments as 6, as asked; the file records 4",
        "changed segment_count from 4 to 6",
    ]
    assert load_checkpoint(tmp_path / "new.safetensors").num_segments == 6


def test_old_serialisation_for_the_original(tmp_path: Path) -> None:
    path = save_checkpoint(make("tsn"), tmp_path / "tsn.safetensors")
    back = tmp_path / "tsn.pth.tar"
    convert(path, back, legacy=True)
    assert is_legacy(back)
    contents = torch.load(back, weights_only=False)  # as the original reads it
    assert type(contents["args"]) is Namespace
    assert contents["args"].dropout == 0.4


@pytest.mark.skipif(os.name == "nt", reason="the payload is for POSIX")
@pytest.mark.parametrize("name", ["new.safetensors", "new.pth"])
def test_what_needs_trust_is_left_out_and_named(tmp_path: Path, capsys, name: str) -> None:
    marker = tmp_path / "executed"
    evil = Global(os.system, f"touch '{marker}'")
    contents = original(make("tsn"), "tsn", callbacks={"evil": evil, "f": len}, optimizer=[len])
    path, new = write(contents, tmp_path / "evil.pth"), tmp_path / name
    assert main([str(path), "--output", str(new)]) == 1
    assert "could run code" in capsys.readouterr().err
    assert not marker.exists()
    assert not new.exists()
    assert main([str(path), "--output", str(new), "--trust"]) == 0
    assert marker.exists()
    printed = capsys.readouterr().out
    assert "left out the entry callbacks: callbacks['f'] must be a plain value" in printed
    assert "left out the entry optimizer: an item of optimizer must be a plain value" in printed
    assert {"callbacks", "optimizer"}.isdisjoint(read_file(new))
    assert_same(load_checkpoint(new), make("tsn"))


# Several files, updated


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("old.pth.tar", "old-updated.pth.tar"),
        ("old_v1.2.pth", "old_v1.2-updated.pth"),
        ("old", "old-updated"),
        ("TSN_segments=8-3ecf904f.pth.tar", "TSN_segments=8-3ecf904f-updated.pth.tar"),
    ],
)
def test_a_name_beside_the_file(tmp_path: Path, name: str, expected: str) -> None:
    path = write(old_contents("tsn"), tmp_path / name)
    assert main([str(path)]) == 0
    assert sorted(os.listdir(tmp_path)) == sorted([name, expected])
    assert torch.hub.HASH_REGEX.search(expected) is None, "its SHA-256 is another now"


@pytest.mark.parametrize("legacy", [False, True])
def test_updated_files_keep_their_format(tmp_path: Path, legacy: bool) -> None:
    path = write(old_contents("tsn"), tmp_path / "old.pth", legacy=legacy)
    assert convert(path)[0] == tmp_path / "old-updated.pth"
    assert is_legacy(tmp_path / "old-updated.pth") == legacy


def test_updating_to_the_old_serialisation(tmp_path: Path) -> None:
    path = write(old_contents("tsn"), tmp_path / "old.pth", legacy=False)
    convert(path, legacy=True)
    assert is_legacy(tmp_path / "old-updated.pth")


def test_a_folder_and_files_are_updated_whatever_is_wrong_with_others(
    tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(old_contents("tsn"), folder / "a.pth.tar")
    save_checkpoint(make("tsm"), folder / "b.safetensors")
    (folder / "c.pth").write_text("hello")
    (folder / "notes.txt").write_text("not a checkpoint")
    single = write(old_contents("trn"), tmp_path / "d")
    assert main([str(folder), str(single)]) == 1
    printed, errors = capsys.readouterr()
    assert errors.count("\n") == 1
    assert str(folder / "c.pth") in errors
    assert f"wrote {folder / 'a-updated.pth.tar'}\n" in printed
    assert f"{folder / 'b.safetensors'} needs no update: nothing written\n" in printed
    assert printed.endswith(f"wrote {tmp_path / 'd-updated'}\n")
    assert len(os.listdir(folder)) == 5


def test_files_that_need_no_update(tmp_path: Path, capsys) -> None:
    path = save_checkpoint(make("tsm"), tmp_path / "new.pth", args={"lr": 0.1}, epoch=2)
    before = path.stat()
    for options in ([], ["--overwrite"]):
        assert main([str(path), *options]) == 0
        assert capsys.readouterr().out == f"{path} needs no update: nothing written\n"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path) == ["new.pth"]
    # A file that is asked for is written.
    assert main([str(path), "--output", str(tmp_path / "copy.pth")]) == 0
    assert_same(load_checkpoint(tmp_path / "copy.pth"), make("tsm"))


def test_updating_twice_changes_nothing(tmp_path: Path, capsys) -> None:
    path = write(old_contents("mtrn"), tmp_path / "old.pth")
    assert main([str(path), "--overwrite"]) == 0
    assert f"wrote {path}" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["old.pth"]
    assert_same(load_checkpoint(path), make("mtrn"))
    assert main([str(path), "--overwrite"]) == 0
    assert "needs no update" in capsys.readouterr().out


def test_what_the_file_does_not_tell_is_recorded(tmp_path: Path, capsys) -> None:
    """With the values that loading it assumes, in canonical spelling."""
    contents = original(make("tsn"), "tsn", args=None, arch="ResNet18", modality="rgb")
    path = write(contents, tmp_path / "old.pth")
    assert main([str(path), "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert "changed arch from 'ResNet18' to 'resnet18'" in printed
    assert "changed modality from 'rgb' to 'RGB'" in printed
    new = read_file(path)
    assert type(new["args"]) is Namespace
    assert vars(new["args"]) == {"flow_length": 1, "dropout": 0.7}
    assert new["preprocessing"]["mean"] == (0.485, 0.456, 0.406)


# Files that exist, and errors


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys) -> None:
    old = write(old_contents("tsn"), tmp_path / "old.pth")
    before = old.read_bytes()
    existing = [tmp_path / name for name in ("old-updated.pth", "other.pth", "other.safetensors")]
    for path in existing:
        path.write_text("precious")
    for arguments in ([], *(["--output", str(path)] for path in (old, *existing))):
        assert main([str(old), *arguments]) == 1
        printed, errors = capsys.readouterr()
        assert printed == ""
        assert "exists: give another --output, or pass --overwrite" in errors
        assert errors.count("\n") == 1
    assert old.read_bytes() == before
    assert all(path.read_text() == "precious" for path in existing)
    for path in existing[1:]:
        assert main([str(old), "--output", str(path), "--overwrite"]) == 0
        assert_same(load_checkpoint(path), make("tsn"))
    assert old.read_bytes() == before


def test_an_interrupted_update_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = write(old_contents("tsn"), tmp_path / "old.pth")
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        main([str(path), "--overwrite"])
    assert os.listdir(tmp_path) == ["old.pth"]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "resnet34"}, "do not fit"),
        ({"model_type": "i3d"}, "model_type must be one of"),
        ({"optimizer": Global(os.system, "exit")}, "posix.system"),
    ],
)
def test_entries_that_do_not_load_are_named_in_one_line(
    tmp_path: Path, capsys, change: dict[str, Any], message: str
) -> None:
    old = write(old_contents("tsn", **change), tmp_path / "old.pth")
    assert main([str(old)]) == 1
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert message in errors
    assert str(old) in errors
    assert errors.count("\n") == 1
    assert os.listdir(tmp_path) == ["old.pth"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pth"], "no such checkpoint file: missing.pth"),
        (["missing.pth", "--output", "new.pth"], "no such checkpoint file: missing.pth"),
        (["text", "--output", "new.safetensors"], "is not a checkpoint"),
        (["tsn.pth", "--output", "none/new.safetensors"], "no such folder: none"),
        (["tsn.pth", "--output", "none/new.pth"], "no such folder: none"),
        (["tsn.pth", "--output", "new.safetensors", "--legacy"], "legacy must be False"),
        (["trn.pth", "--num-segments", "3"], "num_segments must be 4 or left"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(make("tsn"), "tsn.pth")
    save_checkpoint(make("trn"), "trn.pth")
    Path("text").write_text("hello")
    assert main(arguments) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert sorted(os.listdir()) == ["text", "trn.pth", "tsn.pth"]


def test_usage(tmp_path: Path, capsys) -> None:
    for arguments in (
        *([], ["a", "--force"], ["a", "b", "--output", "c"]),
        *([str(tmp_path)], [str(tmp_path), "--output", "c"]),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert "usage" in capsys.readouterr().err


def test_as_a_program_from_anywhere(tmp_path: Path) -> None:
    """From a folder that has modules of our names, where safetensors has another meaning too."""
    save_checkpoint(make("tsn"), tmp_path / "tsn.pth")
    for name in ("weights", "ops", "tsn", "safetensors"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not this one')\n")
    command = [sys.executable, str(PROGRAM), "tsn.pth", "--output", "tsn.safetensors"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("wrote tsn.safetensors\n")


def test_keys_that_are_no_names_are_left_out_of_safetensors(tmp_path: Path) -> None:
    contents = {**old_contents("tsn"), 3: 1, (1, 2): 2, None: 3}
    del contents["optimizer"]
    _, changes = convert(write(contents, tmp_path / "old.pth"), tmp_path / "new.safetensors")
    left_out = [change.partition(":")[0] for change in changes if "names are strings" in change]
    assert left_out == [f"left out the entry {key}" for key in ("3", "(1, 2)", "None")]
    assert load_checkpoint(tmp_path / "new.safetensors").num_segments == 4


def test_options_that_are_tensors_do_not_stop_a_folder(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        write(old_contents("tsn", args=Namespace(flow_length=torch.ones(2))), tmp_path / name)
    assert main([str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.glob("*-updated.pt")) == [
        "a-updated.pt", "b-updated.pt"
    ]  # fmt: skip


def test_another_serialisation_is_a_change(tmp_path: Path) -> None:
    path = save_checkpoint(make("tsn"), tmp_path / "tsn.pth")
    assert convert(path)[0] is None
    written, _ = convert(path, legacy=True)
    assert written is not None
    assert is_legacy(written)
