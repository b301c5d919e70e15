import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pictures import ClassifiedClip, contact_sheet, draw_predictions, new_figure, save_figure
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
