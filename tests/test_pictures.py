import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import pictures
from pictures import (
    ClassifiedClip,
    contact_sheet,
    draw_labels,
    draw_predictions,
    new_figure,
    save_figure,
)
from predictor import Label, Prediction

GREY = [225] * 3


def labels(kind: str, count: int = 5) -> tuple[Label, ...]:
    return tuple(Label(f"{kind} {i}", (i,), 0.5**i) for i in range(count))


TWO_TASKS = Prediction(labels("verb"), labels("noun"), labels("action"))


def test_the_sheet_holds_the_first_frame_of_each_snippet() -> None:
    frames = torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(30, 3, 6, 9)
    sheet = contact_sheet(frames, 10)  # snippets of 3 frames; 2 rows of 5
    assert sheet.shape == (3, 2 * 6 + 3 * 4, 5 * 9 + 6 * 4)
    assert sheet[:, 4:10, 4:13].unique().tolist() == [0]
    assert sheet[0, 7, 8::13].tolist() == [0, 3, 6, 9, 12]
    assert sheet[0, 17, 8::13].tolist() == [15, 18, 21, 24, 27]
    assert sheet[:, 0, 0].tolist() == GREY
    assert frames[0].unique().tolist() == [0]


def test_flow_is_drawn_in_colours_of_its_direction() -> None:
    frames = torch.full((2, 2, 6, 6), 128, dtype=torch.uint8)
    frames[0, 0], frames[1, 0] = 160, 96  # to the right, to the left
    frames[:, :, :3] = 128
    right, left = contact_sheet(frames, 2)[:, [5, 8]][..., [6, 16]].permute(2, 1, 0).tolist()
    assert right[0] == left[0] == [255] * 3  # no motion
    assert right[1][0] > right[1][2]  # red
    assert left[1][0] < left[1][2]  # blue


@pytest.mark.parametrize("kind", [".png", ".jpg", ".svg", ".pdf"])
def test_a_row_for_each_model_below_the_frames_of_each_clip(kind: str, tmp_path: Path) -> None:
    frames = torch.full((8, 3, 64, 114), 7, dtype=torch.uint8)
    one_task = Prediction(classes=labels("class", 2))
    clips = [
        ClassifiedClip("first", frames, 8, {"TSN": TWO_TASKS, "TRN": TWO_TASKS}),
        ClassifiedClip("second", frames[:2], 2, {"TSN": one_task}),
    ]
    path = tmp_path / f"picture{kind}"
    draw_predictions(clips, path, caution="Careful")
    if kind == ".svg":
        assert path.read_text().count("<!-- verb 4 -->") == 2
        for text in ("first", "second", "TSN", "TRN", "Careful", "class 1", "actions", "50 %"):
            assert f"<!-- {text} -->" in path.read_text()
    elif kind != ".pdf":
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        dark = (np.abs(pixels - 7).max(axis=-1) < 6).mean(axis=1)
        assert (dark > 0.9).sum() > 50  # the first clip's frames fill the width
    assert path.stat().st_size > 1000


def test_probabilities_of_zero_and_one_frame_can_be_drawn(tmp_path: Path) -> None:
    nothing = Prediction(classes=(Label("class 0", (0,), 0.0),))
    frames = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    draw_predictions([ClassifiedClip("", frames, 1, {"TSN": nothing})], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_matplotlib_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        draw_predictions([], tmp_path / "a.png")


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_figure(new_figure(1, 1), path)
    before = path.read_bytes()
    figure = new_figure(1, 1)
    figure.text(0, 0, r"$\nothing$")  # found wrong while it is drawn
    with pytest.raises(ValueError, match="nothing"):
        save_figure(figure, path)
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(new_figure(1, 1), tmp_path / "a.nonsense")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


WHITE = torch.full((3, 256, 456), 255, dtype=torch.uint8)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, ...]]]:
    """What was written into frames, and where: left, top, right, bottom."""
    written: list[tuple[str, tuple[float, ...]]] = []

    def write(draw: Any, place: Any, text: str, fill: Any, font: Any, anchor: str) -> None:
        written.append((text, draw.textbbox(place, text, font, anchor)))
        original(draw, place, text, fill, font, anchor)

    original = ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", write)
    return written


def test_labels_cover_the_bottom_of_a_frame(texts: list[Any]) -> None:
    image = WHITE.clone()
    drawn = draw_labels(image, TWO_TASKS)
    assert (image == 255).all()
    assert drawn.dtype == torch.uint8
    assert drawn.shape == image.shape
    rows = (drawn[0, :, 0] < 255).nonzero().flatten().tolist()
    assert rows == list(range(rows[0], 256))
    assert 180 < rows[0] < 210
    expected = [f"{kind} {i}" for kind in ("verb", "noun", "action") for i in range(3)]
    assert [text for text, _ in texts if "%" not in text] == expected
    assert [text for text, _ in texts if "%" in text] == ["100 %", "50 %", "25 %"] * 3


def test_bars_are_as_long_as_probabilities() -> None:
    prediction = Prediction(classes=labels("class"))
    drawn = draw_labels(torch.zeros_like(WHITE), prediction, lines=4)
    bars = (drawn[2] > drawn[0]).sum(dim=1)  # pixels of blue in each row
    lengths = [length for length in bars.unique_consecutive().tolist() if length > 0]
    longest = [max(lengths[i:]) for i in range(len(lengths))]
    assert max(longest) > 440
    for share in (1, 0.5, 0.25, 0.125):
        assert min(abs(length - share * max(longest)) for length in lengths) <= 2


@pytest.mark.parametrize(
    "size", [(1, 1), (200, 3), (10, 20), (64, 64), (112, 64), (456, 256), (256, 456), (1080, 1920)]
)
def test_labels_stay_in_frames_of_any_size(size: tuple[int, int], texts: list[Any]) -> None:
    h, w = size
    names = ["übergießen", "нарезать лук", "two\nlines", "x" * 500, "日本"]
    every = tuple(Label(name, (0,), 1.0) for name in names)
    image = torch.randint(256, (3, h, w), dtype=torch.uint8)
    drawn = draw_labels(image, Prediction(every, every, every), lines=5)
    assert drawn.shape == image.shape
    if min(size) >= 64:
        covered = round(0.41 * h)
        assert (drawn[:, :-covered] == image[:, :-covered]).all()  # about a third of it at most
        assert all(left >= 0 and right <= w for _, (left, _, right, _) in texts)
        for before, after in pairwise(texts):
            if "%" in after[0]:
                assert before[1][2] < after[1][0]
    if w == 1920:
        assert {text for text, _ in texts} >= {"two lines", "нарезать лук"}
        assert any(text.startswith("xxxx") and text.endswith("x…") for text, _ in texts)


@pytest.mark.parametrize(
    ("size", "count"),
    [((256, 340), 3), ((240, 320), 3), ((320, 240), 6), ((112, 112), 3), ((256, 456), 9)],
)
def test_names_in_narrow_frames_can_be_read(
    size: tuple[int, int], count: int, texts: list[Any]
) -> None:
    verbs, nouns = (
        [Label(name, (0,), 0.3) for name in names]
        for names in (("put-down", "take", "wash"), ("cutting board", "cup", "pan"))
    )
    actions = [Label(f"{verb.name} {noun.name}", (0, 0), 0.1) for verb in verbs for noun in nouns]
    image = torch.zeros(3, *size, dtype=torch.uint8)
    drawn = draw_labels(image, Prediction(tuple(verbs), tuple(nouns), tuple(actions)))
    names = [text for text, _ in texts if "%" not in text]
    assert len(names) == count
    assert names[:: count // 3] == ["put-down", "cutting board", "put-down cutting board"]
    assert not drawn[:, : 6 * size[0] // 10].any()


def test_tiny_frames_have_the_best_verb_and_noun(texts: list[Any]) -> None:
    draw_labels(torch.zeros(3, 64, 64, dtype=torch.uint8), TWO_TASKS)
    assert [text for text, _ in texts] == ["verb 0", "100 %", "noun 0", "100 %"]
    texts.clear()
    long = Prediction(classes=(Label("cut tomatoes", (0,), 1.0),))
    draw_labels(torch.zeros(3, 64, 64, dtype=torch.uint8), long)
    assert [text for text, _ in texts] == ["cut tomatoes"]  # rather than "cut t… 100 %"


def test_text_grows_with_the_frame(texts: list[Any]) -> None:
    heights = []
    for scale in (1, 4, 8):
        texts.clear()
        draw_labels(torch.zeros(3, 270 * scale, 480 * scale, dtype=torch.uint8), TWO_TASKS)
        _, (_, top, _, bottom) = next(entry for entry in texts if entry[0] == "verb 0")
        heights.append((bottom - top) / scale)
    assert heights == pytest.approx([heights[0]] * 3, rel=0.2)


def test_without_labels_the_frame_is_copied() -> None:
    drawn = draw_labels(WHITE, Prediction())
    assert torch.equal(drawn, WHITE)
    drawn.zero_()
    assert (WHITE == 255).all()


def test_frames_and_lines_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (WHITE.float(), WHITE[:2], WHITE[None]):
        with pytest.raises(ValueError, match=r"image must be uint8 \(3, H, W\), got torch\."):
            draw_labels(wrong, TWO_TASKS)
    with pytest.raises(ValueError, match="lines must be a positive integer, got 0"):
        draw_labels(WHITE, TWO_TASKS, lines=0)
    pictures._load_font.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        draw_labels(WHITE, TWO_TASKS)
