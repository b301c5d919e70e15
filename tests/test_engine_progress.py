"""Progress of a run: a bar on a terminal, plain lines in a log."""

import pytest

from engine import progress
from engine.progress import show_progress


def test_a_log_gets_lines_with_rate_and_remaining_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 10.0, 40.0, 41.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    assert list(show_progress("abc", 7, unit="segments", done=4)) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == [
        "6 of 7 segments, 0.05 a second, 20 s left",
        "7 of 7 segments, 0.0732 a second, 0 s left",
    ]


def test_fractions_come_to_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    list(show_progress([1.5, 0.512], 2.012, unit="seconds", amount=lambda length: length))
    assert capsys.readouterr().err.startswith("2.01 of 2.01 seconds, ")


def test_large_numbers_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    list(show_progress("a", 1234567, unit="frames", done=1234566))
    assert capsys.readouterr().err.startswith("1234567 of 1234567 frames, ")


def test_lines_end_with_the_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 10.0, 40.0, 90.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    notes: list[str] = []
    for item in show_progress("abc", 3, unit="batches", note=lambda: notes[-1]):
        notes.append(f"loss {item}" if item == "b" else "")
    assert capsys.readouterr().err.splitlines() == [
        "2 of 3 batches, 0.05 a second, 20 s left, loss b",
        "3 of 3 batches, 0.0333 a second, 0 s left",
    ]


def test_hidden_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(show_progress("abc", 3, unit="segments", hidden=True)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_note_stands_beside_the_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    notes: list[str] = []
    for item in show_progress("abc", 3, unit="batches", note=lambda: notes[-1]):
        notes.append(f"loss {item}")
    assert capsys.readouterr().err.rstrip().endswith(", loss c]")


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(show_progress("abc", 7, unit="segments", done=4)) == ["a", "b", "c"]
    assert "7/7" in capsys.readouterr().err
