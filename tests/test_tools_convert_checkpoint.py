"""Checkpoints of every kind go to safetensors and back, and nothing of them is lost."""

import hashlib
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.original_format import (
    Global,
    assert_same,
    is_legacy,
    make,
    original,
    training_options,
    write,
)
from helpers.other_projects import lightning, release
from test_checkpoints_safetensors_file import assert_equal

from checkpoints.files import read_file
from model_loader import load_checkpoint, save_checkpoint
from tools.convert_checkpoint import convert, main
from tools.options import find_format

PROGRAM = Path(__file__).resolve().parent.parent / "tools" / "convert_checkpoint.py"
EXTRA = {
    "args": training_options(),
    "optimizer": {"state": {0: {"m": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    "best_prec1": np.float64(0.5),
    "history": [1, {"a": (2, 3)}],
}


@pytest.mark.parametrize(
    ("model_type", "modality"),
    [("tsn", "RGB"), ("mtrn", "Flow"), ("trn", "RGBDiff"), ("tsm-nl", "RGB")],
)
def test_a_round_trip_loses_nothing(tmp_path: Path, model_type: str, modality: str) -> None:
    model = make(model_type, modality)
    contents = original(model, model_type, **EXTRA)
    contents["state_dict"] = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in contents["state_dict"].items()
    }
    old = write(contents, tmp_path / "old.pth.tar")
    there = tmp_path / "there.safetensors"
    back = tmp_path / "back.pth"
    convert(old, there)
    assert find_format(there) == "safetensors"
    assert convert(there, back) == []
    assert find_format(back) == "zip"
    converted, returned = read_file(there), read_file(back)
    assert_equal(returned, converted)
    for name in ("epoch", "segment_count", "modality", "arch", "optimizer", "history"):
        assert_equal(returned[name], contents[name])
    assert returned["best_prec1"] == 0.5
    assert_equal(dict(returned["state_dict"]), contents["state_dict"])
    assert vars(returned["args"]) == {
        **vars(contents["args"]),
        "train_list": "/data/train.pkl",
        "crop": (224, "crops"),
    }
    assert returned["provenance"]["file"] == "old.pth.tar"
    assert returned["provenance"]["sha256"] == hashlib.sha256(old.read_bytes()).hexdigest()
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


def test_checkpoints_of_other_projects(tmp_path: Path) -> None:
    c1 = make("tsm", num_class=(97, 300), shift_place="blockres", shift_div=8)
    one_task = make("tsn", num_class=5)
    for name, contents, model, segments in (
        ("c1", lightning(c1, "TSM"), c1, None),
        ("release", release(one_task), one_task, 4),
    ):
        path = write(contents, tmp_path / f"{name}.ckpt", legacy=False)
        there = tmp_path / f"{name}.safetensors"
        changes = convert(path, there, num_segments=segments)
        expected = load_checkpoint(path, num_segments=segments)
        assert tuple(changes[: len(expected.load_report)]) == expected.load_report
        loaded = load_checkpoint(there)
        assert_same(loaded, expected)
        assert loaded.load_report == ()
        kept = read_file(there)
        assert kept["provenance"]["changes"] == changes
        for entry in ("hyper_parameters", "global_step", "optimizer_states", "best_prec1"):
            if entry in contents:
                assert_equal(kept[entry], contents[entry])
        assert model.num_class == loaded.num_class


def test_another_number_of_segments_is_recorded(tmp_path: Path) -> None:
    path = save_checkpoint(make("tsm"), tmp_path / "tsm.pth")
    changes = convert(path, tmp_path / "new.safetensors", num_segments=6)
    assert changes == [
        "took num_segments as 6, as asked; the file records 4",
        "changed segment_count from 4 to 6",
    ]
    assert load_checkpoint(tmp_path / "new.safetensors").num_segments == 6


def test_saving_a_model_as_safetensors(tmp_path: Path) -> None:
    model = make("trn")
    path = save_checkpoint(
        model, tmp_path / "model.safetensors", epoch=3, args={"lr": 0.1, "run": Path("x")}
    )
    assert find_format(path) == "safetensors"
    assert_same(load_checkpoint(path), model)
    assert vars(read_file(path)["args"])["run"] == "x"
    with pytest.raises(ValueError, match="legacy must be False"):
        save_checkpoint(model, path, legacy=True)


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
    assert main([str(path), str(new)]) == 1
    assert "could run code" in capsys.readouterr().err
    assert not marker.exists()
    assert not new.exists()
    assert main([str(path), str(new), "--trust"]) == 0
    assert marker.exists()
    printed = capsys.readouterr().out
    assert "left out the entry callbacks: callbacks['f'] must be a plain value" in printed
    assert "left out the entry optimizer: an item of optimizer must be a plain value" in printed
    assert {"callbacks", "optimizer"}.isdisjoint(read_file(new))
    assert_same(load_checkpoint(new), make("tsn"))


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys) -> None:
    path = save_checkpoint(make("tsn"), tmp_path / "tsn.pth")
    existing = tmp_path / "tsn.safetensors"
    existing.write_text("precious")
    assert main([str(path), str(existing)]) == 1
    assert "exists: give another name" in capsys.readouterr().err
    assert existing.read_text() == "precious"
    assert main([str(path), str(existing), "--overwrite"]) == 0
    assert_same(load_checkpoint(existing), make("tsn"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pth", "new.safetensors"], "no such checkpoint file: missing.pth"),
        (["text", "new.safetensors"], "is not a checkpoint"),
        (["tsn.pth", "none/new.safetensors"], "no such folder: none"),
        (["tsn.pth", "new.safetensors", "--legacy"], "legacy must be False"),
        (["trn.pth", "new.safetensors", "--num-segments", "3"], "num_segments must be 4 or left"),
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


def test_as_a_program_from_anywhere(tmp_path: Path) -> None:
    """From a folder that has modules of our names, where safetensors has another meaning too."""
    save_checkpoint(make("tsn"), tmp_path / "tsn.pth")
    for name in ("weights", "ops", "tsn", "safetensors"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not this one')\n")
    command = [sys.executable, str(PROGRAM), "tsn.pth", "tsn.safetensors"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("wrote tsn.safetensors\n")
