"""Old files become documented ones; nothing is lost, and nothing overwritten unasked."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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

from checkpoints.files import read_file
from model_loader import load_checkpoint, save_checkpoint
from tools.update_checkpoints import main
from tsn import TSN

PROGRAM = Path(__file__).resolve().parent.parent / "tools" / "update_checkpoints.py"

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
            "optimizer": {"state": {0: {"m": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
            "best_prec1": np.float64(0.5),
            "history": [1, {"a": 2}],
            **own_entries,
            **entries,
        },
    )


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
    new = tmp_path / "new.pth"
    assert main([str(old), str(new)]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert "removed the prefix 'module.'" in printed
    assert printed.endswith(f"wrote {new}\n")
    assert old.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["new.pth", "old.pth.tar"]
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
    contents = old_contents("trn")
    contents["state_dict"] = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in contents["state_dict"].items()
    }
    old = write(contents, tmp_path / "old.pth")
    assert main([str(old)]) == 0
    new = read_file(tmp_path / "old-updated.pth")
    assert new["epoch"] == 80
    assert new["best_prec1"] == 0.5
    assert new["history"] == [1, {"a": 2}]
    torch.testing.assert_close(new["optimizer"], contents["optimizer"])
    assert vars(new["args"]) == {
        **vars(contents["args"]),
        "train_list": "/data/train.pkl",
        "crop": (224, "crops"),
    }
    for name, tensor in contents["state_dict"].items():
        assert torch.equal(new["state_dict"][name.removeprefix("module.")], tensor)
    assert {tensor.dtype for tensor in new["state_dict"].values()} == {torch.float16, torch.int64}


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


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys) -> None:
    old = write(old_contents("tsn"), tmp_path / "old.pth")
    for existing in ("old-updated.pth", "other.pth"):
        (tmp_path / existing).write_text("precious")
    before = old.read_bytes()
    for arguments in ([], ["other.pth"], ["old.pth"]):
        assert main([str(old), *(str(tmp_path / name) for name in arguments)]) == 1
        printed, errors = capsys.readouterr()
        assert printed == ""
        assert "exists" in errors
        assert "--overwrite" in errors
        assert errors.count("\n") == 1
    assert old.read_bytes() == before
    assert (tmp_path / "old-updated.pth").read_text() == "precious"
    assert (tmp_path / "other.pth").read_text() == "precious"


def test_overwriting_when_asked(tmp_path: Path, capsys) -> None:
    old = write(old_contents("trn"), tmp_path / "old.pth")
    other = tmp_path / "other.pth"
    other.write_text("no longer wanted")
    before = old.read_bytes()
    assert main([str(old), str(other), "--overwrite"]) == 0
    assert old.read_bytes() == before
    assert_same(load_checkpoint(other), make("trn"))
    assert main(["--overwrite", str(old)]) == 0
    assert f"wrote {old}" in capsys.readouterr().out
    assert_same(load_checkpoint(old), make("trn"))
    assert sorted(os.listdir(tmp_path)) == ["old.pth", "other.pth"]


def test_files_that_need_no_update(tmp_path: Path, capsys) -> None:
    path = save_checkpoint(make("tsm"), tmp_path / "new.pth", args={"lr": 0.1}, epoch=2)
    before = path.stat()
    for options in ([], ["--overwrite"]):
        assert main([str(path), *options]) == 0
        assert capsys.readouterr().out == f"{path} needs no update: nothing written\n"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path) == ["new.pth"]
    # A destination that is asked for is written.
    assert main([str(path), str(tmp_path / "copy.pth")]) == 0
    assert_same(load_checkpoint(tmp_path / "copy.pth"), make("tsm"))


def test_updating_twice_changes_nothing(tmp_path: Path, capsys) -> None:
    path = write(old_contents("mtrn"), tmp_path / "old.pth")
    assert main([str(path), "--overwrite"]) == 0
    capsys.readouterr()
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
        (None, "is not a checkpoint"),
        ("missing", "no such checkpoint file"),
        ("nowhere", "no such folder"),
    ],
)
def test_errors_are_one_line_that_names_the_file(tmp_path: Path, capsys, change, message) -> None:
    old, new = tmp_path / "old.pth", tmp_path / "new.pth"
    if change is None:
        old.write_text("hello")
    elif change == "nowhere":
        write(old_contents("tsn"), old)
        new = tmp_path / "nowhere" / "new.pth"
    elif isinstance(change, dict):
        write(old_contents("tsn", **change), old)
    assert main([str(old), str(new)]) == 1
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert message in errors
    assert str(tmp_path) in errors
    assert errors.count("\n") == 1
    assert not new.exists()
    assert set(os.listdir(tmp_path)) <= {"old.pth"}


def test_usage(capsys) -> None:
    for arguments in ([], ["a", "b", "c"], ["a", "--force"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert "usage" in capsys.readouterr().err


def test_another_number_of_segments_is_recorded(tmp_path: Path, capsys) -> None:
    path = save_checkpoint(make("tsn"), tmp_path / "tsn.pth")
    assert main([str(path), "--num-segments", "6", "--overwrite"]) == 0
    assert "took num_segments as 6, as asked; the file records 4" in capsys.readouterr().out
    loaded = load_checkpoint(path)
    assert (loaded.num_segments, loaded.load_report) == (6, ())


def test_as_a_program_from_anywhere(tmp_path: Path) -> None:
    write(old_contents("tsn"), tmp_path / "old.pth")
    command = [sys.executable, str(PROGRAM), "old.pth"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("wrote old-updated.pth\n")


def test_segments_of_a_release_that_does_not_record_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = TSN(5, 2, "RGB", base_model="resnet18", pretrained=None).eval()
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    release, updated = tmp_path / "tsn.pth.tar", tmp_path / "updated.pth.tar"
    torch.save({"epoch": 3, "arch": "resnet18", "state_dict": weights}, release)
    assert main([str(release), str(updated)]) == 1
    assert "num_segments" in capsys.readouterr().err
    assert not updated.exists()
    assert main([str(release), str(updated), "--num-segments", "2"]) == 0
    clip = torch.randn(1, 6, 64, 64)
    assert torch.equal(load_checkpoint(updated)(clip), model(clip))
