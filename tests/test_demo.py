import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.hub_cache import hub_cache_fixture  # noqa: F401 -- a fixture
from helpers.other_projects import lightning
from PIL import Image

import demo
from data.synthetic import make_flow, make_video
from model_loader import save_checkpoint
from trn import TRN
from tsm import TSM
from tsn import TSN

FAST = ["--arch", "resnet18", "--segment-count", "2"]


def run(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    status = demo.main([*arguments, "--output", str(folder / "demo.png")])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def error(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    status = demo.main([*arguments, "--output", str(folder / "demo.png")])
    captured = capsys.readouterr()
    assert status == 1
    assert captured.err.startswith("demo.py: error: ")
    assert captured.err.count("\n") == 1
    assert not (folder / "demo.png").exists()
    return captured.err


@pytest.mark.essential
def test_all_four_models_classify_a_synthetic_clip(tmp_path, capsys) -> None:
    text = run(FAST, tmp_path, capsys)
    for title in ("TSN", "TRN", "MTRN", "TSM"):
        assert f"\n{title} resnet18 RGB\nverbs" in text
    assert "The weights are random: the labels mean nothing." in text
    assert len(re.findall(r"^ +\S+ %|^\w+ +\S+ %", text, re.M)) == 4 * 3 * 5
    with Image.open(tmp_path / "demo.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 500
    disc = np.abs(pixels.astype(int) - (250, 200, 40)).max(axis=-1) < 30
    assert disc.sum() > 1000  # the frames are in the picture


@pytest.mark.essential
def test_as_a_program_from_another_folder(tmp_path) -> None:
    program = Path(demo.__file__)
    command = [sys.executable, str(program), "tsn", *FAST]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Picture: demo.png" in result.stdout
    assert (tmp_path / "demo.png").stat().st_size > 1000


def test_flow(tmp_path, capsys) -> None:
    options = ["TSN", *FAST, "--modality", "flow", "--flow-length", "3"]
    assert "TSN resnet18 Flow" in run(options, tmp_path, capsys)
    (tmp_path / "flow").mkdir()
    clip = make_flow(tmp_path / "flow", 7)
    text = run([*options, "--clip", str(clip), "--crops", "3"], tmp_path, capsys)
    assert "7 frames" in text
    assert "synthetic" not in text


def test_batch_is_parts_of_the_clip(tmp_path, capsys) -> None:
    clip = make_video(tmp_path / "clip.mp4", 20)
    options = ["trn", *FAST, "--clip", str(clip), "--start", "2", "--stop", "14"]
    text = run([*options, "--batch-size", "3"], tmp_path, capsys)
    for part in (1, 2, 3):
        assert f"TRN resnet18 RGB, part {part} of 3" in text


def test_options_reach_the_models(tmp_path, capsys) -> None:
    options = ["--dropout", "0.25", "--print-model"]
    shift = ["--tsm-shift-div", "4", "--tsm-shift-place", "block", "--tsm-temporal-pool"]
    text = run(["tsm-nl", *FAST, *options, *shift], tmp_path, capsys)
    assert "Dropout(p=0.25" in text
    assert "shift_div=4" in text
    assert "NonLocalBlock" in text
    assert "TemporalPool" in text
    text = run(["mtrn", *FAST, "--print-model", "--trn-img-feature-dim", "16"], tmp_path, capsys)
    assert "out_features=16" in text
    text = run(["tsn", *FAST, "--print-model", "--tsn-consensus-type", "max"], tmp_path, capsys)
    assert "MaxConsensus" in text


def test_combinations_that_cannot_be_are_skipped(tmp_path, capsys) -> None:
    text = run(["--arch", "bninception", "--segment-count", "1"], tmp_path, capsys)
    assert (
        "Skipped tsm: shift_place='blockres' with shift_every=1 is not possible with BNInception"
        in text
    )
    assert "Skipped mtrn: num_segments" in text
    assert "TSN BNInception RGB" in text
    assert "\nTSM" not in text


@pytest.mark.essential
def test_checkpoint_and_class_names_give_labels(tmp_path, capsys) -> None:
    model = TSM((2, 3), 2, "RGB", base_model="resnet18", pretrained=None)
    path = save_checkpoint(model, tmp_path / "tsm.pth.tar")
    for kind, names in (("verb", "take put"), ("noun", "pan cup tap")):
        rows = "".join(f"{i},{name},[]\n" for i, name in enumerate(names.split()))
        (tmp_path / f"{kind}.csv").write_text(f"{kind}_id,class_key,{kind}s\n{rows}")
    names = ["--verb-classes", tmp_path / "verb.csv", "--noun-classes", tmp_path / "noun.csv"]
    text = run(["--checkpoint", str(path), *map(str, names)], tmp_path, capsys)
    assert "TSM resnet18 RGB" in text
    assert re.search(r"(take|put) (pan|cup|tap)", text)
    assert "random" not in text
    model.class_names = (["cut", "fry"], ["egg", "leek", "oil"])
    save_checkpoint(model, path)
    assert re.search(
        r"(cut|fry) (egg|leek|oil)", run(["--checkpoint", str(path)], tmp_path, capsys)
    )
    text = run(["--checkpoint", str(path), *map(str, names)], tmp_path, capsys)
    assert re.search(r"(take|put) (pan|cup|tap)", text)


@pytest.mark.parametrize("options", [
    ["trn"], ["tsm-nl"], ["--modality", "Flow"], ["--arch", "resnet50"],
    ["--dropout", "0.1"], ["--tsm-shift-div", "4"], ["--trn-img-feature-dim", "256"],
    ["--tsm-temporal-pool"], ["--tsm-shift-place", "block"],
])  # fmt: skip
def test_options_that_contradict_the_checkpoint(options, tmp_path, capsys) -> None:
    model = TSM((2, 3), 2, "RGB", base_model="resnet18", pretrained=None)
    path = save_checkpoint(model, tmp_path / "tsm.pth.tar")
    text = error([*options, "--checkpoint", str(path)], tmp_path, capsys)
    assert "contradicts the checkpoint" in text


def test_other_segments_than_the_checkpoint_records(tmp_path, capsys) -> None:
    options = ["--segment-count", "4", "--print-model", "--checkpoint"]
    for kind in (TRN, TSM):
        model = kind((2, 3), 2, "RGB", base_model="resnet18", pretrained=None)
        path = save_checkpoint(model, tmp_path / "model.pth.tar")
        if kind is TSM:
            assert "num_segments=4" in run([*options, str(path)], tmp_path, capsys)
        else:
            assert "num_segments must be 2" in error([*options, str(path)], tmp_path, capsys)


def test_options_that_agree_with_the_checkpoint(tmp_path, capsys) -> None:
    model = TRN((2, 3), 2, "RGB", base_model="resnet18", pretrained=None)
    path = save_checkpoint(model, tmp_path / "trn.pth.tar")
    options = ["--modality", "rgb", "--dropout", "0.7", "--trn-img-feature-dim", "256"]
    run(["trn", *FAST, *options, "--checkpoint", str(path)], tmp_path, capsys)


@pytest.mark.parametrize(("options", "message"), [
    (["--clip", "nowhere.mp4"], "nowhere.mp4"),
    (["--clip", __file__], "not a video|cannot|video"),
    (["--checkpoint", "nowhere.tar"], "nowhere.tar"),
    (["--checkpoint", __file__], "is not a checkpoint"),
    (["--arch", "resnet99"], "resnet99"),
    (["--modality", "depth"], "modality must be one of"),
    (["tsn", "--trn-img-feature-dim", "4"], "--trn-img-feature-dim is for trn and mtrn"),
    (["--flow-length", "5"], "new_length must be 1 for modality RGB"),
    (["--pretrained", "imagenet", "--checkpoint", "x"], "exclude each other"),
    (["--verb-classes", "x.csv"], "needed together"),
    (["--fetch-classes", "--verb-classes", "x.csv"], "exclude each other"),
    (["tsn", *FAST, "--start", "50", "--stop", "10"], "--start and --stop"),
    (["tsn", *FAST, "--batch-size", "1000"], "--batch-size"),
    (["tsn", *FAST, "--batch-size", "0"], "--batch-size"),
    (["tsn", *FAST, "--segment-count", "0"], "num_segments"),
    (["--arch", "resnet51"], "did you mean 'resnet50'"),
])  # fmt: skip
def test_errors_are_one_line(options, message, tmp_path, capsys) -> None:
    assert re.search(message, error(options, tmp_path, capsys))


def test_output_must_have_a_folder(capsys) -> None:
    assert demo.main([*FAST, "--output", "/nowhere/demo.png"]) == 1
    assert "/nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demo", "demo.txt"])
def test_output_must_be_a_picture(name: str, tmp_path, capsys) -> None:
    assert demo.main([*FAST, "--output", str(tmp_path / name)]) == 1
    assert "--output must end in one of .png" in capsys.readouterr().err


def test_class_names_are_for_two_tasks(tmp_path, capsys) -> None:
    model = TSN(3, 2, "RGB", base_model="resnet18", pretrained=None)
    path = save_checkpoint(model, tmp_path / "tsn.pth.tar")
    for kind in ("verb", "noun"):
        (tmp_path / f"{kind}.csv").write_text(f"{kind}_id,class_key\n0,one\n")
    names = ["--verb-classes", tmp_path / "verb.csv", "--noun-classes", tmp_path / "noun.csv"]
    text = error(["--checkpoint", str(path), *map(str, names)], tmp_path, capsys)
    assert "one task with 3 classes" in text


def test_trust_is_asked_for(tmp_path, capsys) -> None:
    path = tmp_path / "whole.pth"
    torch.save({"state_dict": {}, "model": torch.nn.Linear(1, 1)}, path)
    assert "--trust" in error(["--checkpoint", str(path)], tmp_path, capsys)
    assert "--trust" not in error(["--checkpoint", str(path), "--trust"], tmp_path, capsys)


@pytest.mark.slow
def test_a_reader_that_goes_away(tmp_path) -> None:
    command = f"{sys.executable} {demo.__file__} tsn {' '.join(FAST)} --output demo.png | head -1"
    result = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "Error" not in result.stderr
    assert "error" not in result.stderr


def test_names_that_do_not_fit(tmp_path, capsys) -> None:
    for kind in ("verb", "noun"):
        (tmp_path / f"{kind}.csv").write_text(f"{kind}_id,class_key\n0,one\n")
    names = ["--verb-classes", tmp_path / "verb.csv", "--noun-classes", tmp_path / "noun.csv"]
    assert "class_names" in error(["tsn", *FAST, *map(str, names)], tmp_path, capsys)


def test_real_clips_get_labels_from_a_checkpoint(epic_test_data, tmp_path, capsys) -> None:
    annotations = epic_test_data / "annotations"
    names = ["--verb-classes", annotations / "EPIC_verb_classes.csv",
             "--noun-classes", annotations / "EPIC_noun_classes.csv"]  # fmt: skip
    for modality, clip in (("RGB", "arm_wrestling.mp4"), ("RGB", "short.avi"), ("RGB", "frames"),
                           ("Flow", "frames")):  # fmt: skip
        model = TSN((125, 352), 3, modality, base_model="resnet18", pretrained=None)
        path = save_checkpoint(model, tmp_path / "model.pth.tar", legacy=True)
        options = ["--checkpoint", path, "--clip", epic_test_data / "clips" / clip, *names]
        text = run([str(option) for option in options], tmp_path, capsys)
        verbs = (annotations / "EPIC_verb_classes.csv").read_text()
        match = re.search(r"^verbs +\S+ % +(\S+)$", text, re.M)
        assert match
        assert f",{match[1]}," in verbs


def test_published_weights_bring_the_classes_of_their_dataset(hub_cache, tmp_path, capsys) -> None:
    model = TSN((97, 300), 8, "RGB", pretrained=None)
    torch.save(lightning(model, "TSN"), hub_cache / "tsn_rgb.ckpt")
    folder = hub_cache.parent / "epic_kitchens_annotations"
    folder.mkdir()
    for kind, count in (("verb", 97), ("noun", 300)):
        rows = "".join(f"{i},{kind}-{i}\n" for i in range(count))
        (folder / f"EPIC_100_{kind}_classes.csv").write_text(f"id,key\n{rows}")
    text = run(["tsn", "--pretrained", "epic-kitchens-100", "--fetch-classes"], tmp_path, capsys)
    assert re.search(r"^verbs +\S+ % +verb-\d+$", text, re.M)
    assert "random" not in text
    path = save_checkpoint(TSN((2, 3), 2, "RGB", "resnet18", pretrained=None), tmp_path / "a.pth")
    message = error(["--checkpoint", str(path), "--fetch-classes"], hub_cache, capsys)
    assert "--fetch-classes knows no dataset with (2, 3) classes" in message
    assert "pass --verb-classes and --noun-classes" in message


def test_segments_of_a_release_that_does_not_record_them(tmp_path, capsys) -> None:
    model = TSN(5, 2, "RGB", base_model="resnet18", pretrained=None)
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    path = tmp_path / "tsn.pth.tar"
    torch.save({"epoch": 3, "arch": "resnet18", "state_dict": weights}, path)
    assert "number of segments" in error(["--checkpoint", str(path)], tmp_path, capsys)
    text = run(["--checkpoint", str(path), "--segment-count", "2"], tmp_path, capsys)
    assert "TSN resnet18 RGB\nclasses" in text
