import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.figures import collect_figures
from numpy.typing import ArrayLike

import evaluation_pictures
from evaluation_pictures import draw_class_accuracies, draw_confusions

NAMES = ["take", "put", "wash", "open", "never"]
LABELS = [1] * 4 + [2] * 3 + [0] * 2 + [3]
PREDICTIONS = [1, 1, 2, 3, 2, 2, 2, 4, 0, 1]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn."""
    return collect_figures(monkeypatch, evaluation_pictures)


def tick_labels(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_rows_of_the_confusion_matrix_are_in_percent(figures: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    draw_confusions(LABELS, PREDICTIONS, NAMES, path, title="TSM: verbs", num_classes=3)
    (axes,) = figures[0].axes
    assert axes.images[0].get_array().tolist() == [  # put, wash, take, others
        [50, 25, 0, 25],
        [0, 100, 0, 0],
        [0, 0, 50, 50],
    ]
    assert tick_labels(axes.yaxis) == ["put", "wash", "take"]
    assert tick_labels(axes.xaxis) == ["put", "wash", "take", "other classes"]
    assert tick_labels(axes.child_axes[0].yaxis) == ["4", "3", "2"]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {
        (0, 0): "50", (1, 0): "25", (3, 0): "25", (1, 1): "100", (2, 2): "50", (3, 2): "50"
    }  # fmt: skip
    assert axes.get_title("left") == "TSM: verbs\n3 most frequent classes, 9 of 10 segments"
    assert path.stat().st_size > 1000


def test_there_is_no_column_of_other_classes_where_there_are_none(
    figures: list[Any], tmp_path: Path
) -> None:
    draw_confusions([0, 1, 1], [0, 1, 0], ["a", "b"], tmp_path / "a.png")
    assert figures[0].axes[0].images[0].get_array().tolist() == [[50, 50], [0, 100]]
    assert tick_labels(figures[0].axes[0].xaxis) == ["b", "a"]


def test_accuracy_of_classes_against_their_frequency_in_training(
    figures: list[Any], tmp_path: Path
) -> None:
    draw_class_accuracies(
        LABELS, PREDICTIONS, NAMES, tmp_path / "a.png",
        title="TSM: verbs", training_counts=[2000, 90, 7, 0, 5], tail=[2, 3],
    )  # fmt: skip
    (axes,) = figures[0].axes
    others, tail = axes.collections[:2]
    assert others.get_offsets().tolist() == [[90, 50], [2000, 50]]  # put, take
    assert tail.get_offsets().tolist() == [[7, 100], [0, 0]]  # wash, open
    sizes = np.array([*others.get_sizes(), *tail.get_sizes()])
    np.testing.assert_allclose(sizes, 400 * np.sqrt(np.array([4, 2, 3, 1]) / 4))
    legend = [text.get_text().strip() for text in figures[0].legends[0].get_texts()]
    assert legend == ["2 other classes", "2 tail classes", "segments evaluated:", "1", "2", "4"]
    assert {text.get_text() for text in axes.texts} == {"take", "put", "wash", "open"}
    assert axes.get_xlabel() == "training segments of the class"
    assert tick_labels(axes.xaxis)[:5] == ["0", "1", "3", "10", "30"]
    assert axes.get_xlim() == (-0.2, 3750)
    assert axes.get_title("left") == (
        "TSM: verbs\ntop-1 accuracy 60.00 % of 10 segments, 50.00 % on average over 4 classes"
    )


def test_without_training_counts_the_axis_says_so(figures: list[Any], tmp_path: Path) -> None:
    draw_class_accuracies(LABELS, PREDICTIONS, NAMES, tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.collections[0].get_offsets()[:, 0].tolist() == [4, 3, 2, 1]
    assert "training segments are not known" in axes.get_xlabel()
    assert axes.get_xlim() == (0.8, 12.5)
    assert figures[0].legends[0].get_texts()[0].get_text() == "4 classes"


def test_names_cover_neither_one_another_nor_points(figures: list[Any], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 200, 3000) * random.integers(0, 200, 3000) // 200
    predictions = np.where(random.random(3000) < labels / 300, labels, 0)
    names = [f"the class {i}" for i in range(200)]
    draw_class_accuracies(labels, predictions, names, tmp_path / "a.png")
    (axes,) = figures[0].axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 15
    assert not any(box.count_overlaps(boxes) > 1 for box in boxes)  # with itself
    points = axes.transData.transform(axes.collections[0].get_offsets())
    assert not any(box.contains(*point) for box in boxes for point in points)


@pytest.mark.parametrize("draw", [draw_confusions, draw_class_accuracies])
def test_pictures_are_reproducible_whatever_the_names_hold(
    draw: Callable[..., None], figures: list[Any], tmp_path: Path
) -> None:
    names = [*NAMES[:3], r"$\nothing$", "n" * 100]
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for path in paths:
        draw(LABELS, PREDICTIONS, names, path, title="$1")
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_long_names_are_cut(figures: list[Any], tmp_path: Path) -> None:
    draw_confusions([0], [0], ["n" * 20], tmp_path / "a.png")
    draw_confusions([0], [0], ["n" * 21], tmp_path / "b.png")
    names = [tick_labels(figure.axes[0].yaxis) for figure in figures]
    assert names == [["n" * 20], ["n" * 19 + "…"]]


@pytest.mark.parametrize("draw", [draw_confusions, draw_class_accuracies])
@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], r"labels must be integers \(S,\), at least one, got float64 \(0,\)"),
        ([0.5], [0], r"labels must be integers \(S,\), at least one, got float64 \(1,\)"),
        ([0], [[0]], r"predictions must be integers \(S,\), at least one, got int64 \(1, 1\)"),
        ([0], [5], "predictions must be ids of the 5 classes named, got 5 to 5"),
        ([-1, 2], [0, 0], "labels must be ids of the 5 classes named, got -1 to 2"),
        ([0, 1], [0], r"of the same segments, got \(2,\) and \(1,\)"),
    ],
)
def test_arrays_that_do_not_fit(
    draw: Callable[..., None],
    labels: ArrayLike,
    predictions: ArrayLike,
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(labels, predictions, NAMES, tmp_path / "a.png")


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, 3, 4, -5]])
def test_training_counts_that_do_not_fit(counts: list[int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training_counts must be 5 numbers of segments"):
        draw_class_accuracies(
            LABELS, PREDICTIONS, NAMES, tmp_path / "a.png", training_counts=counts
        )


@pytest.mark.parametrize("draw", [draw_confusions, draw_class_accuracies])
def test_matplotlib_is_asked_for(
    draw: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        draw(LABELS, PREDICTIONS, NAMES, tmp_path / "a.png")
