"""Which runs go on."""

from pathlib import Path

import pytest
import torch
from helpers.training_runs import quick_recipe, small_model

from model_loader import load_checkpoint, save_checkpoint
from training.state import Progress, read_run, save_run

REQUEST = {"recipe": {"lr": 0.01, "milestones": (20, 40)}, "classes": ["open", "close"]}
LEARNER = {"optimizer": {"state": {}}, "schedule": {"last_epoch": 3}, "scaler": {}}


def saved(folder: Path) -> Progress:
    progress = Progress(
        epoch=1, step=3, loss_sum=1.5, rows=[{"epoch": 1, "validation_loss": None}], best_epoch=1,
        predictions={"label": (torch.tensor([0, 1]), torch.tensor([1, 1]))},
    )  # fmt: skip
    request = {"recipe": {"lr": 0.01, "milestones": [20, 40]}, "classes": ["open", "close"]}
    model = small_model(num_class=2)
    model.class_names = ["open", "close"]
    save_run(folder, model, quick_recipe(), progress, learner=LEARNER, request=request)
    return progress


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    progress = saved(tmp_path)
    run = read_run(tmp_path, REQUEST, resume=True)
    assert run is not None
    assert run.learner == LEARNER
    assert run.model.class_names == ("open", "close")
    labels = run.progress.predictions.pop("label"), progress.predictions.pop("label")
    assert all(one.equal(other) for one, other in zip(*labels, strict=True))
    assert run.progress == progress


def test_it_is_an_ordinary_checkpoint_too(tmp_path: Path) -> None:
    saved(tmp_path)
    assert load_checkpoint(tmp_path / "last.pth.tar").preprocessing.input_size == 32


def test_nothing_is_there(tmp_path: Path) -> None:
    assert read_run(tmp_path, REQUEST, resume=False) is None
    assert read_run(tmp_path / "missing", REQUEST, resume=True) is None


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="holds a run: --resume goes on with it"):
        read_run(tmp_path, REQUEST, resume=False)


def test_another_request_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match=r"another request: classes was \['open', 'close'\], now"):
        read_run(tmp_path, {**REQUEST, "classes": ["close", "open"]}, resume=True)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_checkpoint(small_model(), tmp_path / "last.pth.tar")
    with pytest.raises(ValueError, match="no checkpoint of a run that can go on"):
        read_run(tmp_path, REQUEST, resume=True)


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"request": REQUEST, "progress": {}},
        {"request": REQUEST, "progress": {"unknown": 1}, "learner": {}},
        {"request": None, "progress": {}, "learner": {}},
    ],
)
def test_a_run_of_another_program_is_refused(tmp_path: Path, training: object) -> None:
    options = {"optimizer": {"state": {}}, "training": training}
    save_checkpoint(small_model(), tmp_path / "last.pth.tar", **options)
    with pytest.raises(ValueError, match="no checkpoint of a run that can go on"):
        read_run(tmp_path, REQUEST, resume=True)
