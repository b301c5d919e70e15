"""Everything that a checkpoint holds is shown, for people and as JSON, and no model is built."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.original_format import Global, make, original, prefixed, training_options, write

from checkpoints.errors import CheckpointError
from model_loader import save_checkpoint
from tools.print_checkpoint_details import describe, main
from tsn import TSN

PROGRAM = Path(__file__).resolve().parent.parent / "tools" / "print_checkpoint_details.py"

STATE = {
    "base_model.conv1.weight": torch.zeros(4, 10, 3, 3),
    "base_model.bn1.weight": torch.zeros(4),
    "base_model.bn1.running_mean": torch.zeros(4),
    "base_model.bn1.running_var": torch.zeros(4),
    "base_model.bn1.num_batches_tracked": torch.tensor(1),
    "fc_verb.weight": torch.zeros(125, 8).half(),
    "fc_noun.weight": torch.zeros(352, 8),
}
OPTIMIZER = {
    "state": {0: {"momentum_buffer": torch.zeros(3, 5)}, 1: {"momentum_buffer": torch.zeros(2)}},
    "param_groups": [
        {"lr": np.float64(0.01), "name": "conv", "foreach": None, "params": [0, 1]},
        {"lr": 0.02, "name": "rest", "foreach": None, "params": []},
    ],
}


def small(**entries: object) -> dict:
    """A file of a shift network with few weights; nobody builds the model."""
    return {
        "model_type": "tsm",
        "epoch": np.int64(80),
        "segment_count": 8,
        "modality": "Flow",
        "arch": "resnet50",
        "shift_div": 8,
        "shift_place": "blockres",
        "temporal_pool": False,
        "non_local": False,
        "args": training_options(flow_length=5),
        "optimizer": OPTIMIZER,
        "state_dict": STATE,
        **entries,
    }


def run(arguments: list[str]) -> int:
    """The program, which must not build a model."""
    with mock.patch.object(TSN, "_build", side_effect=AssertionError("a model was built")):
        return main(arguments)


def rows(text: str) -> dict[str, str]:
    """First column -> the others."""
    return {
        line.split()[0]: " ".join(line.split()[1:])
        for line in text.splitlines()
        if line.startswith("  ")
    }


@pytest.mark.parametrize("legacy", [True, False])
def test_what_people_see(tmp_path: Path, capsys, legacy: bool) -> None:
    path = write(small(), tmp_path / "model.pth.tar", legacy=legacy, device="cuda:0")
    assert run([str(path)]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    found = rows(printed)
    expected = {
        "file": str(path),
        "size": f"{path.stat().st_size:,} bytes, {'legacy' if legacy else 'zip'} serialisation",
        "variant": "TSM",
        "epoch": "80",
        "model_type": "tsm",
        "segment_count": "8",
        "modality": "Flow",
        "arch": "resnet50",
        "num_class": "125 verbs, 352 nouns",
        "new_length": "5",
        "shift_div": "8",
        "shift_place": "blockres",
        "temporal_pool": "False",
        "dropout": "0.4",
        "mean": "(0.5,)",
        "std": "(0.226,)",
        "learning_rate": "0.001",
        "batch_size": "64",
        "train_list": "/data/train.pkl",
        "lr_steps": "(20, 40)",
        "crop": "(224, crops)",
        "run": "günther",
        "resume": "-",
        "group": "1 lr=0.02, name=rest, params=0",
        "state": "2 parameters, 2 tensors, 68 bytes",
        "base_model.conv1.weight": "(4, 10, 3, 3) float32",
        "base_model.bn1.running_mean": "(4,) float32",
        "base_model.bn1.num_batches_tracked": "() int64",
        "fc_verb.weight": "(125, 8) float16",
    }
    assert found | expected == found
    assert "group 0  lr=0.01, name=conv, params=2" in printed
    assert "Preprocessing (that of the published weights of this kind)" in printed
    parameters, size = 360 + 4 + 1000 + 2816, 4 * (360 + 3 * 4 + 2816) + 8 + 2 * 1000
    assert printed.endswith(f"\n7 tensors, {parameters:,} parameters, {size:,} bytes\n")


def test_columns_are_aligned(tmp_path: Path, capsys) -> None:
    run([str(write(small(), tmp_path / "model.pth"))])
    for section in capsys.readouterr().out.split("\n\n")[:-1]:
        lines = [line for line in section.splitlines() if line.startswith("  ")]
        starts = {len(line) - len(line[2:].split("  ", 1)[1].lstrip()) for line in lines}
        assert len(starts) == 1, section


@pytest.mark.parametrize(
    ("model_type", "old"),
    [("tsn", False), ("trn", True), ("mtrn", False), ("tsm", True), ("tsm-nl", False)],
)
def test_json(tmp_path: Path, capsys, model_type: str, old: bool) -> None:
    model = make(model_type)
    entries: dict = {}
    if old:
        entries = {
            "state_dict": prefixed(model.state_dict()),
            "args": training_options(img_feature_dim=32),
        }
    contents = original(model, model_type, **entries)
    assert run([str(write(contents, tmp_path / "model.pth")), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["variant"] == model_type.upper()
    assert found["config"]["num_class"] == [5, 7]
    assert found["config"]["arch"] == "resnet18"
    assert found["weights"] == [
        {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)[6:]}
        for name, tensor in contents["state_dict"].items()
    ]
    assert found["totals"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["args"]["crop"] == [224, "crops"]
    assert found["args"]["train_list"] == "/data/train.pkl"
    assert found["args"]["learning_rate"] == 0.001
    assert found["optimizer"] is None
    assert found["problem"] is None
    assert len(found["notes"]) == old
    assert found["preprocessing"] is None, "nobody knows for a ResNet-18"


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    path = write(small(extra={"top1": np.float32(0.5)}), tmp_path / "model.pth")
    details = describe(path)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["entries"]["extra"] == {"top1": 0.5}
    assert details["optimizer"] == {
        "param_groups": [
            {"lr": 0.01, "name": "conv", "foreach": None, "params": 2},
            {"lr": 0.02, "name": "rest", "foreach": None, "params": 0},
        ],
        "state": {"parameters": 2, "tensors": 2, "bytes": 68},
    }
    assert details["totals"] == {"tensors": 7, "parameters": 4180, "bytes": 14760}


def test_files_that_this_project_writes(tmp_path: Path, capsys) -> None:
    model = make("mtrn", "Flow")
    path = save_checkpoint(model, tmp_path / "model.pth", epoch=3, args={"lr": 0.1})
    assert run([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "Preprocessing (recorded in the file)" in printed
    assert "Other entries" not in printed
    assert rows(printed)["classifier_pairing"] == "published"
    assert rows(printed)["img_feature_dim"] == "32"


def test_one_task_and_another_order_of_things(tmp_path: Path, capsys) -> None:
    state = {"new_fc.weight": torch.zeros(9, 8), "base_model.conv1.weight": STATE["fc_noun.weight"]}
    contents = {
        "best": 0.5,
        **small(modality="RGB", optimizer=None, args=None),
        "state_dict": state,
    }
    assert run([str(write(contents, tmp_path / "model.pth"))]) == 0
    printed = capsys.readouterr().out
    assert rows(printed)["num_class"] == "9"
    assert "Training arguments\n  none" in printed
    assert "Optimizer\n  none" in printed
    assert "Other entries\n  best  0.5" in printed


def test_state_of_a_training_is_cut_short(tmp_path: Path, capsys) -> None:
    progress = {"epoch": 3, "step": 7, "rows": [{"epoch": 1}], "best_epoch": 2}
    contents = {**small(), "training": {"request": {"--lr": 0.1}, "progress": progress}}
    assert run([str(write(contents, tmp_path / "last.pth.tar"))]) == 0
    assert rows(capsys.readouterr().out)["training"] == "epoch=3, step=7, best_epoch=2"
    contents["training"] = {"progress": "of another program"}
    assert run([str(write(contents, tmp_path / "other.pth.tar"))]) == 0
    assert rows(capsys.readouterr().out)["training"] == "progress=of another program"


@pytest.mark.parametrize(
    ("num_class", "names", "expected"),
    [
        ((7, 8), [[*"abcdefg"], [*"abcdefgh"]],
         "7: a, b, c, d, e and 2 more; 8: a, b, c, d, e and 3 more"),
        (2, ["open", "close"], "2: open, close"),
    ],
)  # fmt: skip
def test_the_first_class_names_are_shown(
    tmp_path: Path, capsys, num_class: Any, names: list, expected: str
) -> None:
    model = TSN(num_class, 2, "RGB", "resnet18", pretrained=None)
    model.class_names = names
    path = save_checkpoint(model, tmp_path / "model.pth")
    run([str(path)])
    assert rows(capsys.readouterr().out)["class_names"] == expected
    assert describe(path)["config"]["class_names"] == names


def test_names_stand_as_in_the_file(tmp_path: Path, capsys) -> None:
    path = write(small(state_dict=prefixed(STATE)), tmp_path / "model.pth")
    assert run([str(path)]) == 0
    printed = capsys.readouterr().out
    assert rows(printed)["module.fc_noun.weight"] == "(352, 8) float32"
    assert "on loading: removed the prefixes 'module.' from 7 of 7 names" in printed


def test_old_model_types_are_explained(tmp_path: Path, capsys) -> None:
    path = write(small(non_local=True), tmp_path / "model.pth")
    assert run([str(path)]) == 0
    printed = capsys.readouterr().out
    assert rows(printed)["variant"] == "TSM-NL"
    assert "on loading: took model_type 'tsm' with non_local as 'tsm-nl'" in printed


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"model_type": "i3d"}, "model_type must be one of"),
        ({"segment_count": None}, "pass num_segments"),
        ({"state_dict": {**STATE, "step": 7}}, "got int under 'step'"),
        ({"state_dict": {"backbone.weight": torch.ones(2)}}, "no head that fits"),
    ],
)
def test_files_that_cannot_be_loaded_are_shown(tmp_path: Path, capsys, entries, problem) -> None:
    path = write(small(**entries), tmp_path / "model.pth")
    assert run([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "load_checkpoint cannot load it: " in printed
    assert problem in printed
    assert rows(printed)["arch"] == "resnet50"
    assert rows(printed)["learning_rate"] == "0.001"


def test_files_of_other_projects_are_shown(tmp_path: Path, capsys) -> None:
    contents = {"epoch": 3, "arch": "resnet50", "best_prec1": 70.1, "state_dict": prefixed(STATE)}
    assert run([str(write(contents, tmp_path / "model.pth"))]) == 0
    printed = capsys.readouterr().out
    assert "the file does not record its number of segments: pass num_segments" in printed
    assert rows(printed)["best_prec1"] == "70.1"
    alone = write({"state_dict": {"a": torch.ones(1)}}, tmp_path / "alone.pth")
    assert run([str(alone)]) == 0
    assert "Entries\n  none" in capsys.readouterr().out


def test_another_number_of_segments_is_shown(tmp_path: Path, capsys) -> None:
    path = write(small(), tmp_path / "model.pth")
    details = describe(path, num_segments=25)
    assert details["problem"] is None
    assert details["config"]["segment_count"] == 25
    assert details["notes"][-1] == "took num_segments as 25, as asked; the file records 8"


def test_odd_values(tmp_path: Path, capsys) -> None:
    loop: list = []
    loop.append(loop)
    args = Namespace(
        nan=float("nan"), inf=np.float64("-inf"), one=torch.tensor(3), many=torch.ones(2, 3),
        device=torch.device("cuda"), kind=torch.float16, raw=b"a", some={1}, loop=loop,
        escape="\x1b[31mred\nline",
    )  # fmt: skip
    path = write(small(args=args, optimizer=[1]), tmp_path / "model.pth")
    details = describe(path)
    values = json.loads(json.dumps(details, allow_nan=False))["args"]
    assert values.pop("loop")[0][0][0]
    assert values == {
        "nan": "nan",
        "inf": "-inf",
        "one": 3,
        "many": "float32 tensor of shape (2, 3)",
        "device": "cuda",
        "kind": "torch.float16",
        "raw": "b'a'",
        "some": [1],
        "escape": "\x1b[31mred\nline",
    }
    assert run([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed, "a file does not command the terminal"
    assert r"'\x1b[31mred\nline'" in printed
    assert "Optimizer\n  unknown  (1,)" in printed


def test_large_values_are_cut_short(tmp_path: Path) -> None:
    ways: list[Any] = [1]
    for _ in range(100):
        ways = [ways, ways]
    args = Namespace(long=list(range(5000)), names={i: i for i in range(1001)}, large=2**70)
    details = describe(write(small(args=args, ways=ways), tmp_path / "model.pth"))
    assert len(json.dumps(details)) < 2_000_000
    assert details["args"]["long"] == [*range(1000), "4,000 more"]
    assert details["args"]["names"] == {**{str(i): i for i in range(1000)}, "...": "1 more"}
    assert details["args"]["large"] == str(2**70)


def unreadable(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.pth" for name in ("missing", "empty", "text", "half")}
    paths["empty"].touch()
    paths["text"].write_text("hello\n")
    whole = write(small(), tmp_path / "whole.pth").read_bytes()
    paths["half"].write_bytes(whole[: len(whole) // 2])
    paths["folder"] = tmp_path
    paths["number"] = write(3, tmp_path / "number.pth")
    paths["bare"] = write(STATE, tmp_path / "bare.pth")
    paths["weightless"] = write(small(state_dict={}), tmp_path / "weightless.pth")
    return paths


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "half", "folder", "number", "bare", "weightless"]
)
def test_errors_are_one_line_that_names_the_file(tmp_path: Path, capsys, kind: str) -> None:
    path = unreadable(tmp_path)[kind]
    for options in ([], ["--json"], ["--trust"]):
        assert run([str(path), *options]) == 1
        printed, errors = capsys.readouterr()
        assert printed == ""
        assert errors.count("\n") == 1
        assert str(path) in errors


@pytest.mark.skipif(os.name == "nt", reason="the payload is for POSIX")
def test_hostile_files(tmp_path: Path, capsys) -> None:
    marker = tmp_path / "executed"
    evil = Global(os.system, f"touch '{marker}'")
    path = write(small(optimizer={"state": evil}), tmp_path / "evil.pth")
    assert run([str(path)]) == 1
    assert "posix.system" in capsys.readouterr().err
    assert not marker.exists()
    assert run([str(path), "--trust"]) == 0
    assert marker.exists()
    assert rows(capsys.readouterr().out)["unknown"] == "state=0"


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--yaml"]])
def test_usage(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(arguments)
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_as_a_program_from_anywhere(tmp_path: Path) -> None:
    """From a folder that has modules of our names, to a pipe that closes, without UTF-8."""
    write(small(), tmp_path / "model.pth")
    for name in ("weights", "ops", "tsn"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not this one')\n")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, str(PROGRAM), "model.pth"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert rows(result.stdout)["run"] == "g\\xfcnther"
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()  # as `| head` does
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_describing_raises_what_the_library_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        describe(tmp_path / "none")
    with pytest.raises(CheckpointError, match="a dictionary with state_dict, got int"):
        describe(write(3, tmp_path / "number"))
