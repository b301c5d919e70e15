import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.figures import collect_figures

import training_pictures
from training_pictures import draw_curves, draw_training_comparison

Row = dict[str, float | None]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn; they are laid out, but not written, which takes longest."""
    monkeypatch.setattr(training_pictures, "save_figure", lambda figure, path: None)
    return collect_figures(monkeypatch, training_pictures)


def make_rows(*accuracies: float | None, task: str = "label", **others: float) -> list[Row]:
    """Return an epoch for each accuracy."""
    return [
        {
            "epoch": epoch, "lr": 0.1**epoch, "training_loss": 2 / epoch,
            "validation_loss": None if accuracy is None else 3 / epoch,
            **others, f"{task}_top1": accuracy, "seconds": 1.0,
        }
        for epoch, accuracy in enumerate(accuracies, 1)
    ]  # fmt: skip


def curves(axes: Any) -> dict[str, list[tuple[float, ...]]]:
    """Return the points of each curve that has a name, which stands in the margin, too."""
    found = {
        line.get_label(): [tuple(np.round(point, 6).tolist()) for point in line.get_xydata()]
        for line in axes.lines
        if not line.get_label().startswith("_")
    }
    assert [text.get_text() for text in axes.texts if text.get_text() != "best"] == list(found)
    return found


@pytest.mark.essential
def test_losses_rates_and_accuracies_by_epoch(figures: list[Any], tmp_path: Path) -> None:
    rows = make_rows(20, 40, 30, task="action", verb_top1=50, verb_top5=80, noun_top1=60)
    draw_curves(rows, tmp_path / "a.png", title="TSM of $1")
    (figure,) = figures
    loss, accuracy, lr = figure.axes
    assert figure.get_suptitle() == (
        "TSM of $1\nbest epoch 2 of 3: verb 50.0 %, noun 60.0 %, action 40.0 %"
    )
    assert curves(loss) == {
        "training": [(1, 2), (2, 1), (3, 0.666667)],
        "validation": [(1, 3), (2, 1.5), (3, 1)],
    }
    assert curves(accuracy) == {
        "verb": [(1, 50), (2, 50), (3, 50)],
        "verb top-5": [(1, 80), (2, 80), (3, 80)],
        "noun": [(1, 60), (2, 60), (3, 60)],
        "action": [(1, 20), (2, 40), (3, 30)],
    }
    (steps,) = lr.patches
    assert steps.get_data().values.tolist() == pytest.approx([0.1, 0.01, 0.001])
    assert steps.get_data().edges.tolist() == [0, 1, 2, 3]
    for axes in figure.axes:
        assert axes.get_xlim() == (0, 3)
        assert [2, 2] in [list(line.get_xdata()) for line in axes.lines]  # the best epoch
    assert accuracy.get_ylim() == (0, 100)


def test_the_first_of_the_best_epochs_is_marked(figures: list[Any], tmp_path: Path) -> None:
    draw_curves(make_rows(None, 40, 40, None), tmp_path / "a.png")
    assert figures[0].get_suptitle() == "best epoch 2 of 4: label 40.0 %"
    loss, accuracy, _ = figures[0].axes
    assert curves(accuracy) == {"label": [(2, 40), (3, 40)]}
    assert curves(loss)["validation"] == [(2, 1.5), (3, 1)]


def test_without_validation_there_is_no_panel_for_it(figures: list[Any], tmp_path: Path) -> None:
    draw_curves(make_rows(None, None), tmp_path / "a.png")
    loss, lr = figures[0].axes
    assert list(curves(loss)) == ["training"]
    assert lr.get_ylabel() == "learning\nrate"
    assert figures[0].get_suptitle() == "epoch 2: training loss 1"


@pytest.mark.parametrize(("count", "marked"), [(1, True), (2, True), (30, True), (300, False)])
def test_few_epochs_are_points(
    count: int, marked: bool, figures: list[Any], tmp_path: Path
) -> None:
    draw_curves(make_rows(*np.linspace(10, 90, count).tolist()), tmp_path / "a.png")
    for axes in figures[0].axes:
        ticks = axes.get_xticks()
        assert (ticks == ticks.round()).all()
        assert 2 <= len(ticks) <= 12
    assert [line.get_marker() == "o" for line in figures[0].axes[0].lines[:2]] == [marked] * 2


def test_models_are_compared(figures: list[Any], tmp_path: Path) -> None:
    runs = {
        "TSN": make_rows(48, 50),
        "TRN": make_rows(90, 100, task="action", verb_top1=3),
        "TSM": make_rows(95, None, 100, None),
    }
    draw_training_comparison(runs, tmp_path / "a.png", title="Order", without_order=50)
    (axes,) = figures[0].axes
    assert figures[0].get_suptitle() == "Order"
    assert curves(axes) == {
        "TSN 50.0 %": [(1, 48), (2, 50)],
        "TRN 100.0 %": [(1, 90), (2, 100)],
        "TSM 100.0 %": [(1, 95), (3, 100)],
        "best without order: 50 %": [(0, 50), (4, 50)],
    }
    assert len({line.get_color() for line in axes.lines}) == 4


@pytest.mark.parametrize("end", [0.0, 0.2, 50.0, 100.0])
@pytest.mark.parametrize("count", [4, 10])
def test_names_of_curves_do_not_overlap(
    count: int, end: float, figures: list[Any], tmp_path: Path
) -> None:
    from matplotlib.text import Text

    runs = {f"model {i}": make_rows(10, end) for i in range(count)}
    draw_training_comparison(runs, tmp_path / "a.png")
    figures[0].draw_without_rendering()
    (axes,) = figures[0].axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to the curve
    assert len(boxes) == count
    assert not any(box.count_overlaps(boxes) > 1 for box in boxes)  # with itself
    assert all(figures[0].bbox.contains(*box.min) for box in boxes)
    assert all(figures[0].bbox.contains(*box.max) for box in boxes)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([0.3], [0.3]),
        ([0.2, 0.8, 0.5], [0.2, 0.8, 0.5]),  # none is moved without need
        ([0.5, 0.5], [0.55, 0.45]),  # the first comes highest
        ([0.5, 0.52, 0.9], [0.46, 0.56, 0.9]),  # about where they were
        ([1, 1, 0.99, 0.1], [1, 0.9, 0.8, 0.1]),
        ([0, 0], [0.1, 0]),
        ([0.5] * 20, [0.1 * i for i in range(19, -1, -1)]),  # more than there is room for
    ],
)
def test_places_are_spread_no_more_than_needed(places: list[float], expected: list[float]) -> None:
    spread = training_pictures._spread(np.array(places), 0.1)
    assert spread.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_pictures_are_written(ending: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.{ending}" for name in "ab"]
    draw_curves(make_rows(20), paths[0], title=r"$\nothing$")
    draw_training_comparison({r"$\nothing$": make_rows(20)}, paths[1])
    assert all(path.stat().st_size > 1000 for path in paths)


def test_there_must_be_something_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows must be those of at least one epoch, got none"):
        draw_curves([], tmp_path / "a.png")
    with pytest.raises(ValueError, match="runs must have at least one model, got none"):
        draw_training_comparison({}, tmp_path / "a.png")
    for rows in ([], make_rows(None)):
        with pytest.raises(ValueError, match="validation accuracies, got none of 'TSN'"):
            draw_training_comparison({"TSN": rows}, tmp_path / "a.png")


def test_matplotlib_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        draw_curves(make_rows(20), tmp_path / "a.png")
