"""The benchmark of training runs, and its bare loop learns what training learns."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from helpers.training_runs import ALONE, quick_recipe, small_model

from tools import benchmark_training
from training.batches import ClipBatches, plan_epoch
from training.loop import train

TINY = "--backbone mobilenetv2 --segments 2 --input-size 32 --batch-size 2 --steps 2 --rounds 2"


def test_the_bare_loop_learns_the_same(tmp_path: Path) -> None:
    recipe = quick_recipe(epochs=1, schedule="constant", factors=False, clip_norm=0.5)
    model = small_model(num_class=10)
    bare = deepcopy(model)
    clips = benchmark_training._ClipsInMemory(12, model, str(tmp_path))
    read = ClipBatches(clips, model.training_transform(flip=recipe.flip), seed=recipe.seed)
    batches = [read[part] for part in plan_epoch(len(clips), recipe, 0)]
    benchmark_training._learn_bare(bare, recipe, batches, 3, ALONE.device)
    train(model, recipe, clips, None, tmp_path, ALONE, request={}, workers=0)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(bare.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("words", [["--workers", "0"], ["--model", "mtrn"]])
def test_it_says_how_much_of_the_speed_is_left(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_training.main([*TINY.split(), *words]) == 0
    share = r"\S+% \(\S+% to \S+%\)"
    assert re.search(
        rf"bare loop \S+ s a step; training {share} of its speed, by CPU time {share}; workers "
        r"busy for \S+%; start and end of an epoch \S+ s\n$",
        capsys.readouterr().out,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backbone", "resnet1"], "resnet1"),
        (["--precision", "float8"], "float8"),
        (["--device", "cuda:17"], "cuda:17"),
    ],
)
def test_bad_options_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_training.main(words) == 1
    assert message in capsys.readouterr().err
