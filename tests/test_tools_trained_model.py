"""The model that a command line asks to train: its options, and where its weights come from."""

from pathlib import Path

import pytest
import torch
from helpers.small_tsn import refused, small_tsn

from checkpoints.files import write_file
from model_loader import save_checkpoint
from tools.train_options import make_recipe, train_parser
from tools.trained_model import Start, build_model, find_start
from trn import MTRN
from tsm import TSM

SIZES = {"input_size": None, "scale_size": None}
SMALL = "--recipe synthetic-actions --base-model resnet18 --num-segments 2"


def start_of(model: str, words: str, pretrained: Path | None = None) -> Start:
    command = [model, "--train", "train.csv", "--out", "run", *words.split()]
    command += ["--pretrained", str(pretrained)] if pretrained else []
    options = train_parser().parse_args(command)
    return find_start(options, make_recipe(options))


def build(
    model: str, words: str = SMALL, pretrained: Path | None = None, **sizes: int
) -> torch.nn.Module:
    command = [model, "--train", "train.csv", "--out", "run", *words.split()]
    recipe = make_recipe(train_parser().parse_args(command))
    return build_model(start_of(model, words, pretrained), recipe, 3, {**SIZES, **sizes})


def test_a_model_without_a_file_is_the_usual_one() -> None:
    start = start_of("tsm", "--pretrained imagenet")
    assert start.options == {"base_model": "resnet50", "modality": "RGB", "num_segments": 8}
    assert start.weights == "imagenet"
    start = start_of("tsm", "--pretrained none --modality flow --base-model bninception")
    assert start.options["modality"] == "Flow"
    assert start.options["base_model"] == "BNInception"
    assert start.weights is None


@pytest.mark.parametrize(
    ("words", "file"),
    [("", "TSM_kinetics_RGB_resnet50"), ("--modality flow", "TSM_kinetics_Flow_")],
)
def test_a_recipe_that_needs_a_file_says_where_it_is(words: str, file: str) -> None:
    with refused("recipe tsm-finetune", f"https://hanlab18.mit.edu/projects/tsm/models/{file}"):
        start_of("tsm", words)


@pytest.mark.parametrize(
    ("model", "words"),
    [("tsn", "--shift-div 4"), ("mtrn", "--shift-direction past"),
     ("tsm", "--classifier-pairing per-scale")],
)  # fmt: skip
def test_options_of_another_model_are_refused(model: str, words: str) -> None:
    with refused(words.split()[0], f"not {model}"):
        start_of(model, f"{words} --pretrained none")


def test_a_file_says_what_its_weights_need(tmp_path: Path) -> None:
    saved = TSM(3, 2, "Flow", base_model="resnet18", new_length=2, shift_div=4,
                shift_direction="past", pretrained=None)  # fmt: skip
    saved.class_names = ["cut", "peel", "wash"]
    path = save_checkpoint(saved, tmp_path / "tsm.pth.tar")
    start = start_of("tsm", "--recipe synthetic-actions", path)
    assert start.class_names == ("cut", "peel", "wash")
    model = build("tsm", "--recipe synthetic-actions", path)
    assert isinstance(model, TSM)
    assert (model.arch, model.modality, model.new_length) == ("resnet18", "Flow", 2)
    assert (model.num_segments, model.shift_div, model.shift_direction) == (2, 4, "past")
    for name, tensor in saved.state_dict().items():
        assert tensor.equal(model.state_dict()[name])
    with refused("shift_div must be 4", "got 8"):
        build("tsm", "--recipe synthetic-actions --shift-div 8", path)

    # Of another model's file, what the backbone needs; of RGB weights, any modality.
    options = start_of("tsn", "--recipe synthetic-actions", path).options
    assert options == {
        "base_model": "resnet18", "modality": "Flow", "num_segments": 8, "new_length": 2
    }  # fmt: skip
    rgb = save_checkpoint(small_tsn(3, 4), tmp_path / "tsn.pth.tar")
    options = start_of("tsn", "--modality flow", rgb).options
    assert "new_length" not in options
    assert options["num_segments"] == 4


def test_a_file_that_does_not_record_its_segments_fits_any_number(tmp_path: Path) -> None:
    path = write_file(small_tsn(3, 2).state_dict(), tmp_path / "weights.pth")
    assert start_of("tsn", "", path).options["num_segments"] == 8
    assert start_of("tsn", "--num-segments 3", path).options["num_segments"] == 3


def test_weights_depend_on_the_seed_and_preprocessing_on_the_options() -> None:
    first, same = (build("mtrn", f"{SMALL} --classifier-pairing per-scale") for _ in range(2))
    other = build("mtrn", f"{SMALL} --seed 7", input_size=32, scale_size=40)
    assert isinstance(first, MTRN)
    assert isinstance(other, MTRN)
    assert first.classifier_pairing == "per-scale"
    weights = [model.get_parameter("new_fc.weight") for model in (first, same, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    assert (first.input_size, first.scale_size) == (224, 256)
    assert (other.input_size, other.scale_size) == (32, 40)
    assert not first.partial_bn
    assert first.dropout == 0


def test_frames_are_no_smaller_than_the_input() -> None:
    with pytest.raises(
        ValueError, match="--scale-size must be at least --input-size, 299, got 256"
    ):
        build("tsn", SMALL, input_size=299)
