"""What is in the figures: the classes, the winners, the strip of actions, the times."""

import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.figures import collect_figures
from PIL import Image
from torch import Tensor

import timeline_pictures
from timeline_pictures import Timeline

VERBS, NOUNS = [f"verb {i}" for i in range(12)], ["cup", "pan", "lid"]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn; they are laid out, but not written, which takes longest."""
    monkeypatch.setattr(timeline_pictures, "save_figure", lambda figure, path: None)
    return collect_figures(monkeypatch, timeline_pictures)


def peak(size: int, best: int, probability: float = 0.9) -> Tensor:
    """Probabilities with one best class."""
    values = torch.full((size,), (1 - probability) / (size - 1))
    values[best] = probability
    return values


def two_tasks(parts: list[tuple[float, float, int, int]]) -> Timeline:
    timeline = Timeline({"verbs": VERBS, "nouns": NOUNS})
    for start, stop, verb, noun in parts:
        timeline.add(start, stop, [peak(12, verb), peak(3, noun, 0.8)])
    return timeline


PARTS = [(0, 4, 5, 1), (4, 5, 11, 1), (5, 8, 5, 0), (10, 12, 0, 2)]  # and a gap from 8 to 10


def labels(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def bars(axes: Any, color: str) -> list[tuple[float, ...]]:
    """Left, bottom, right and top of the bars of a colour, from left to right."""
    from matplotlib.colors import same_color

    return sorted(
        tuple(round(float(x), 2) for x in path.get_extents().extents)
        for bar in axes.collections
        if type(bar).__name__ != "QuadMesh" and same_color(bar.get_facecolor()[0], color)
        for path in bar.get_paths()
    )


@pytest.mark.essential
def test_classes_that_win_for_longest_have_rows(figures: list[Any], tmp_path: Path) -> None:
    two_tasks(PARTS).draw(tmp_path / "a.png", title="P01_01", caution="Careful")
    (figure,) = figures
    top, verbs, nouns, strip, colorbar = figure.axes
    assert top.get_title("left") == "P01_01"
    assert figure.get_suptitle() == "Careful"
    assert verbs.get_title("left") == "verbs"
    rows = labels(verbs.yaxis)
    assert rows[:3] == ["verb 5", "verb 0", "verb 11"]
    assert len(rows) == 9
    assert rows[-1] == "best of 4 others"
    assert labels(nouns.yaxis) == ["pan", "cup", "lid"]
    mesh = nouns.collections[0]
    probabilities = mesh.get_array().filled(-1)
    assert probabilities.shape[0] == 3
    assert probabilities[:, 100].tolist() == pytest.approx([0.8, 0.1, 0.1])
    gap = int(9 / 12 * probabilities.shape[1])
    assert probabilities[:, gap].tolist() == [-1] * 3
    assert mesh.get_clim() == (0, 1)
    assert colorbar.get_ylabel() == "probability"
    assert [axes.get_xlim() for axes in (verbs, nouns, strip)] == [(0, 12)] * 3


def test_the_winner_of_each_moment_is_marked(figures: list[Any], tmp_path: Path) -> None:
    two_tasks(PARTS).draw(tmp_path / "a.png", title="")
    _, verbs, nouns, *_ = figures[0].axes
    spans = [(x0, x1, int(y0)) for x0, y0, x1, _ in bars(verbs, timeline_pictures._WINNER)]
    assert spans == [(0, 4, 0), (4, 5, 2), (5, 8, 0), (10, 12, 1)]
    spans = [(x0, x1, int(y0)) for x0, y0, x1, _ in bars(nouns, timeline_pictures._WINNER)]
    assert spans == [(0, 5, 0), (5, 8, 1), (10, 12, 2)]


def test_a_winner_among_the_others_is_marked_there(figures: list[Any], tmp_path: Path) -> None:
    parts = [(2.0 * i, 2.0 * i + (2 if i < 8 else 1), i, 0) for i in range(9)]
    two_tasks(parts).draw(tmp_path / "a.png", title="")
    verbs = figures[0].axes[1]
    assert labels(verbs.yaxis) == [*VERBS[:8], "best of 4 others"]
    *_, last = bars(verbs, timeline_pictures._WINNER)
    assert last == (16, 8.76, 17, 8.96)
    assert verbs.collections[0].get_array()[8].max() == pytest.approx(0.9)


def test_the_strip_shows_the_best_actions(figures: list[Any], tmp_path: Path) -> None:
    two_tasks(PARTS).draw(tmp_path / "a.png", title="")
    strip = figures[0].axes[3]
    assert strip.get_title("left") == "best actions"
    legend = [text.get_text() for text in strip.get_legend().get_texts()]
    assert legend == ["verb 5 pan  40%", "verb 5 cup  30%", "verb 0 lid  20%", "verb 11 pan  10%"]
    assert bars(strip, timeline_pictures._COLORS[0]) == [(0, 0, 4, 1)]
    assert bars(strip, timeline_pictures._COLORS[3]) == [(4, 0, 5, 1)]
    names = {text.get_position()[0]: text.get_text() for text in strip.texts}
    assert {round(x, 1): name for x, name in names.items()} == {
        2.0: "verb 5\npan", 4.5: "verb 11\npan", 6.5: "verb 5\ncup", 11.0: "verb 0\nlid"
    }  # fmt: skip


def test_many_actions_share_a_colour_and_names_fit_their_bars(
    figures: list[Any], tmp_path: Path
) -> None:
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(12, (60, 2), generator=random).tolist()
    two_tasks([(i, i + 1, verb, noun % 3) for i, (verb, noun) in enumerate(ids)]).draw(
        tmp_path / "a.png", title=""
    )
    strip = figures[0].axes[3]
    *_, others = [text.get_text() for text in strip.get_legend().get_texts()]
    assert others.startswith(f"{len({(v, n % 3) for v, n in ids}) - 7} others  ")
    boxes = [text.get_window_extent() for text in strip.texts]
    assert not any(box.count_overlaps(boxes) > 1 for box in boxes)  # with itself


def test_between_two_parts_no_other_action_appears(figures: list[Any], tmp_path: Path) -> None:
    timeline = Timeline({"verbs": VERBS[:3], "nouns": NOUNS})
    for start, stop, values in ((0, 100.1, [0.5, 0.4, 0.1]), (100.1, 220, [0, 0.45, 0.55])):
        timeline.add(start, stop, 2 * [torch.tensor(values)])
    timeline.draw(tmp_path / "a.png", title="")
    _, verbs, _, strip, _ = figures[0].axes
    spans = [(x0, x1, int(y0)) for x0, y0, x1, _ in bars(verbs, timeline_pictures._WINNER)]
    assert spans == [(0, 100, 1), (100, 220, 0)]
    legend = [text.get_text() for text in strip.get_legend().get_texts()]
    assert legend == ["verb 2 lid  55%", "verb 0 cup  45%"]


def test_one_task_has_a_strip_of_classes(figures: list[Any], tmp_path: Path) -> None:
    timeline = Timeline({"classes": ["a", "b"]})
    timeline.add(5, 6.5, [peak(2, 1).half()])
    timeline.draw(tmp_path / "a.png", title="")
    _, classes, strip, _ = figures[0].axes
    assert classes.get_title("left") == "classes"
    assert strip.get_title("left") == "best classes"
    assert [text.get_text() for text in strip.texts] == ["b"]
    assert strip.get_xlim() == (5, 6.5)


@pytest.mark.parametrize(
    ("start", "stop", "first", "last", "unit"),
    [
        (0, 0.4, "0:00.0", "0:00.4", "min:s"),
        (0, 10, "0:00", "0:10", "min:s"),
        (3, 300, "0:30", "5:00", "min:s"),
        (0, 86_400, "0:00", "24:00:00", "h:min:s"),
    ],
)
def test_times_read_well(
    start: float, stop: float, first: str, last: str, unit: str, figures: list[Any], tmp_path: Path
) -> None:
    two_tasks([(start, stop, 0, 0)]).draw(tmp_path / "a.png", title="")
    strip = figures[0].axes[3]
    ticks = labels(strip.xaxis)
    assert ticks[0] == first
    assert ticks[-1] == last
    assert 4 <= len(ticks) <= 13
    assert strip.get_xlabel() == f"time ({unit})"


@pytest.mark.parametrize(
    ("size", "count"), [((256, 456), 6), ((256, 340), 6), ((64, 64), 12), ((320, 240), 11)]
)
def test_thumbnails_stand_above_even_times(
    size: tuple[int, int], count: int, figures: list[Any], tmp_path: Path
) -> None:
    timeline = two_tasks([(0, 12, 0, 0), (12, 24, 1, 1)])
    for number in range(12):  # as many as tools/label_video.py has of a file
        timeline.add_thumbnail(2 * number, torch.full((3, *size), number, dtype=torch.uint8))
    timeline.add_thumbnail(25, torch.zeros(3, *size, dtype=torch.uint8))  # after the end
    timeline.draw(tmp_path / "a.png", title="")
    top = figures[0].axes[0]
    numbers = [int(axes.images[0].get_array().max()) for axes in top.child_axes]
    assert numbers == list(range(0, 12, 12 // count))[: len(numbers)]
    assert len(numbers) >= count
    boxes = [
        axes.get_window_extent().transformed(top.transAxes.inverted()) for axes in top.child_axes
    ]
    for number, axes, box in zip(numbers, top.child_axes, boxes, strict=True):
        assert box.x0 <= number / 12 <= box.x1
        assert axes.texts[0].get_text() == f"0:{2 * number:04.1f}"
    assert boxes[0].x0 == 0
    assert boxes[-1].x1 <= 1
    steps = [after.x0 - before.x1 for before, after in pairwise(boxes)]
    assert min(steps) == pytest.approx(max(steps), abs=1e-3)
    assert min(steps) > 0


def test_thumbnails_of_a_live_source(figures: list[Any], tmp_path: Path) -> None:
    timeline = two_tasks([(0, 1200, 0, 0)])
    for seconds in range(1200):
        timeline.add_thumbnail(seconds, torch.zeros(3, 96, 24, dtype=torch.uint8))
    timeline.draw(tmp_path / "a.png", title="")
    texts = [axes.texts[0] for axes in figures[0].axes[0].child_axes]
    assert 15 < len(texts) < 25
    assert len({text.get_text() for text in texts}) == len(texts)
    edges = [(box.x0, box.x1) for box in (text.get_window_extent() for text in texts)]
    assert all(before[1] < after[0] for before, after in pairwise(edges))


@pytest.mark.parametrize("probability", [0.98, 0.55, 0.004])
def test_the_colour_bar_ends_with_a_tick(
    probability: float, figures: list[Any], tmp_path: Path
) -> None:
    timeline = Timeline({"classes": NOUNS})
    timeline.add(0, 1, [torch.tensor([0, probability, 0])])
    timeline.draw(tmp_path / "a.png", title="")
    bar = figures[0].axes[-1]
    ticks = bar.get_yticks()
    assert ticks[0] == 0
    assert ticks[-1] == bar.get_ylim()[1]
    assert probability <= ticks[-1] <= 1.5 * probability
    assert bar.get_window_extent().width > 10


def test_any_names_are_drawn_and_pictures_are_reproducible(tmp_path: Path) -> None:
    timeline = Timeline({"$verbs": [r"$\nothing$", "n" * 100], "nouns": ["two\nlines", "größe"]})
    timeline.add(0, 1, [peak(2, 0), peak(2, 1)])
    timeline.add(1, 2, [peak(2, 1), peak(2, 0)])
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of a layout without room
        for path in paths:
            timeline.draw(path, title="$1")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as picture:
        assert picture.size[0] == 1300


def test_parts_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({}, {"verbs": []}):
        with pytest.raises(ValueError, match="at least one task, and names"):
            Timeline(wrong)
    timeline = Timeline({"verbs": VERBS, "nouns": NOUNS})
    with pytest.raises(ValueError, match="the timeline is empty"):
        timeline.draw(tmp_path / "a.png", title="")
    for tensors in ([], [peak(12, 0)], [peak(3, 0), peak(12, 0)], [peak(12, 0)[None], peak(3, 0)]):
        with pytest.raises(ValueError, match=r"must be tensors \(12,\), \(3,\), one for each task"):
            timeline.add(0, 1, tensors)
    with pytest.raises(ValueError, match="a part must have 0 <= start < stop, got 1 to 1"):
        timeline.add(1, 1, [peak(12, 0), peak(3, 0)])
    with pytest.raises(ValueError, match=r"image must be uint8 \(3, H, W\)"):
        timeline.add_thumbnail(0, torch.zeros(3, 8, 8))
    timeline.add(0, 1, [peak(12, 0), peak(3, 0)])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        timeline.draw(tmp_path / "a.png", title="")
    assert not list(tmp_path.iterdir())
