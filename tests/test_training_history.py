"""What is written of epochs and steps; TensorBoard's writer is a stand-in."""

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from training.history import TensorBoardLog, describe_epoch, write_epochs

ROW = {
    "epoch": 3, "lr": 0.01, "training_loss": 1.2343, "validation_loss": 1.4,
    "verb_top1": 45.06, "verb_top5": 70.0, "noun_top1": 30.25, "noun_top5": 50.0,
    "action_top1": 21.0, "seconds": 35.2,
}  # fmt: skip


@pytest.mark.essential
def test_the_table_has_each_epoch_once(tmp_path: Path) -> None:
    path = tmp_path / "epochs.csv"
    rows = [ROW | {"epoch": epoch, "lr": 0.1 / 3} for epoch in (1, 2)]
    write_epochs(path, rows[:1])
    write_epochs(path, rows)
    with open(path, newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(ROW)
    assert [{name: float(value) for name, value in row.items()} for row in read] == rows
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_unknown_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "epochs.csv"
    write_epochs(path, [{"epoch": 1, "validation_loss": None}, {"epoch": 2, "label_top1": 0.0}])
    assert path.read_bytes() == b"epoch,validation_loss,label_top1\n1,,\n2,,0.0\n"


def test_a_failed_write_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "epochs.csv"
    write_epochs(path, [ROW])
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_epochs(tmp_path / "none" / "epochs.csv", [ROW])
    with pytest.raises(UnicodeEncodeError):
        write_epochs(path, [{"epoch": "\ud800"}])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_says_all_of_an_epoch() -> None:
    assert describe_epoch([ROW], 25, best=True) == (
        "epoch 3 of 25: training loss 1.234, validation loss 1.400, verb 45.1 %, noun 30.2 %, "
        "action 21.0 % (best), lr 0.01, 35 s, about 13 min left"
    )


def test_a_line_without_validation_and_of_the_last_epoch() -> None:
    row = {"epoch": 25, "lr": 1.23456e-5, "training_loss": 4.321e-5, "validation_loss": None}
    assert describe_epoch([row | {"seconds": 4000}], 25, best=True) == (
        "epoch 25 of 25: training loss 4.321e-05, lr 1.23e-05, 67 min"
    )


@pytest.mark.parametrize(
    ("seconds", "left"),
    [
        ([300, 10, 10], "20 s"),  # not the mean of all: the first compiles
        ([1000] * 9 + [59.6] * 3, "119 s"),
        ([60], "2 min"),
        ([3569], "119 min"),
        ([3600], "2 h 0 min"),
        ([180_000], "100 h 0 min"),
    ],
)
def test_the_remaining_time(seconds: list[float], left: str) -> None:
    rows = [ROW | {"epoch": i, "seconds": value} for i, value in enumerate(seconds, 1)]
    line = describe_epoch(rows, len(rows) + 2, best=False)
    assert line.endswith(f", about {left} left")
    assert "(best)" not in line


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked of TensorBoard's writer, by a module in its place."""
    asked: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: Path, *, purge_step: int, flush_secs: int) -> None:
            asked.append((folder, purge_step))

        def add_scalar(self, *values: object) -> None:
            asked.append(values)

        def close(self) -> None:
            asked.append("close")

    module = ModuleType("torch.utils.tensorboard")
    vars(module)["SummaryWriter"] = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return asked


def test_steps_and_epochs_are_logged(events: list[Any], tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, 7)
    log.log_step(7, 2.5, 0.01)
    log.log_epoch({"epoch": 1, "training_loss": 2.4, "validation_loss": None}, 8)
    log.close()
    assert events == [
        (tmp_path, 7),
        ("step/loss", 2.5, 7),
        ("step/lr", 0.01, 7),
        ("epoch/epoch", 1, 8),
        ("epoch/training_loss", 2.4, 8),
        "close",
    ]


def test_without_a_folder_nothing_is_logged_or_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = TensorBoardLog(None)
    log.log_step(1, 2.5, 0.01)
    log.log_epoch(ROW, 1)
    log.close()


def test_tensorboard_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path)


def test_a_resumed_log_hides_the_steps_that_were_lost(tmp_path: Path) -> None:
    """With TensorBoard itself, where it is installed."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, loss in ((1, 1.0), (3, 2.0)):
        log = TensorBoardLog(tmp_path, first)
        for step in range(first, first + 4):
            log.log_step(step, loss, 0.01)
        log.close()
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    seen = [(event.step, event.value) for event in events.Scalars("step/loss")]
    assert seen == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0), (6, 2.0)]
