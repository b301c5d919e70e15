"""What several programs share: checkpoints by name, workers, errors in one line."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from engine.processes import Processes
from tools import options
from tools.options import choose_workers, find_checkpoint, includes_stop, print_list, run_program
from tsn import TSN
from weights.published import PUBLISHED

ALONE = Processes(0, 1, torch.device("cpu"), 1)


def test_checkpoints_are_files_or_names_of_published_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.pth").touch()
    assert find_checkpoint(tmp_path / "weights.pth") == tmp_path / "weights.pth"
    entry = PUBLISHED[3]
    monkeypatch.setattr(options, "fetch", lambda url, sha256_prefix: Path(url, sha256_prefix))
    assert find_checkpoint(entry.file_name) == Path(entry.url, entry.sha256_prefix or "")
    with pytest.raises(FileNotFoundError, match=r"no published weights of this name\. They are: "):
        find_checkpoint("other.pth")


@pytest.mark.parametrize(
    ("num_class", "modality", "option", "expected"),
    [
        ((97, 300), "RGB", None, True),
        ((97, 300), "RGB", False, False),
        ((97, 300), "Flow", None, False),
        ((97, 300), "Flow", True, False),
        ((125, 352), "RGB", None, False),
        (5, "RGB", None, False),
        (5, "RGB", True, True),
    ],
)
def test_the_stop_frame_is_of_rgb_clips_of_epic_kitchens_100(
    num_class: int | tuple[int, int], modality: str, option: bool | None, expected: bool
) -> None:
    with torch.device("meta"):
        model = TSN(num_class, 1, modality, base_model="resnet50", pretrained=None)
    assert includes_stop(model, Namespace(include_stop=option)) is expected


def test_long_lists_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_list("lost:", ["a\nb"])
    assert capsys.readouterr().err == "lost:\n  a\\nb\n"
    print_list("lost:", range(1020))
    assert capsys.readouterr().err.endswith("\n  19\n  and 1,000 more\n")


def test_workers_are_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.options.count_cores", lambda: 12)
    assert choose_workers(None, ALONE) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert choose_workers(None, ALONE) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "99")
    assert choose_workers(None, ALONE) == 1
    assert choose_workers(0, ALONE) == 0
    with pytest.raises(ValueError, match="--workers must be at least 0, got -1"):
        choose_workers(-1, ALONE)


@pytest.mark.parametrize(
    ("error", "status", "message", "of_another_process"),
    [
        (ValueError("so not"), 1, "error: so not", ""),
        (OSError("disk full"), 1, "error: disk full", "(process 2): error: disk full"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on", ""),
        (
            RuntimeError("DataLoader worker (pid 7) is killed"),
            1,
            "error: a worker process",
            "(process 2)",
        ),
    ],
)
def test_what_ends_a_run_is_said_once(
    error: BaseException,
    status: int,
    message: str,
    of_another_process: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run() -> int:
        raise error

    assert run_program("evaluate.py", run) == status
    assert f"evaluate.py: {message}" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "2")
    assert run_program("evaluate.py", run) == status
    said = capsys.readouterr().err
    assert of_another_process in said
    if not of_another_process:
        assert said == ""


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("DataLoader worker is killed")]
)
def test_what_ends_a_run_says_how_it_goes_on(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        raise error

    run_program("train.py", run, interrupted="--resume goes on")
    assert "; --resume goes on" in capsys.readouterr().err


def test_other_errors_of_the_program_stay_visible() -> None:
    def run() -> int:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_program("evaluate.py", run)
