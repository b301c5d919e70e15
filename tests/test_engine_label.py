"""Rows of scores along videos and live sources."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.counting import CountedFrames, NoiseFrames, counted_images, tiny
from helpers.peak_memory import peak_memory
from helpers.small_models import assert_close
from torch import Tensor

from data.live import LiveFrame
from data.views import FrameRange, FrameSelection
from engine.label import LabelOptions, label_file, label_live
from engine.label_rows import ScoredRow
from engine.label_snippets import choose_frames, frame_borders
from long_videos import window_logits
from predictor import Predictor
from streaming import Stream
from tsn import TSN

FPS = 10
MODELS = ["TSN", "TRN", "MTRN", "TSM"]


def borders(count: int, fps: float = FPS) -> np.ndarray:
    return np.arange(count + 1) / fps


def file_rows(model: TSN, count: int, **options: object) -> list[ScoredRow]:
    wanted = LabelOptions(**options)  # type: ignore[arg-type]  # as tests give them
    return list(label_file(model, NoiseFrames(count), borders(count), wanted))


def live_rows(model: TSN, count: int, **options: object) -> list[ScoredRow]:
    wanted = LabelOptions(**options)  # type: ignore[arg-type]  # as tests give them
    source = NoiseFrames(count)
    frames = (LiveFrame(index / FPS, source.read([index])[0]) for index in range(count))
    return list(label_live(model, frames, wanted))


def spans(rows: list[ScoredRow]) -> list[tuple[float, float]]:
    """Return where rows lie, which must be side by side from 0 on."""
    starts = [row.start for row in rows]
    stops = [row.stop for row in rows]
    assert starts == [0, *stops[:-1]]
    assert all(start < stop for start, stop in zip(starts, stops, strict=True))
    return list(zip(np.round(starts, 6).tolist(), np.round(stops, 6).tolist(), strict=True))


def stacked(rows: list[ScoredRow]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(task) for task in zip(*(row.scores for row in rows), strict=True))


@torch.inference_mode()
def clip_scores(
    model: TSN, start: int, stop: int, count: int, crops: int = 1
) -> tuple[Tensor, ...]:
    """Return the logits of a clip of the noise."""
    frames = Predictor(model, optimize=False).load(FrameRange(NoiseFrames(count), start, stop))
    inputs = model.evaluation_transform(crops)(frames).unflatten(0, (crops, -1))
    return tuple(task.mean(0) for task in model(inputs))


@pytest.mark.parametrize("variant", MODELS)
@pytest.mark.parametrize("crops", [1, 3])
def test_a_file_has_rows_around_the_middles_of_its_windows(variant: str, crops: int) -> None:
    model = tiny(variant)
    rows = file_rows(model, 23, window=10, hop=4, crop_count=crops)
    # Windows begin at 0, 4, 8, 12 and 13.
    assert spans(rows) == [(0, 0.7), (0.7, 1.1), (1.1, 1.5), (1.5, 1.7), (1.7, 2.3)]
    for row, start in zip(rows, (0, 4, 8, 12, 13), strict=True):
        assert_close(row.scores, clip_scores(model, start, start + 10, 23, crops))


@pytest.mark.parametrize("variant", MODELS)
def test_windows_span_two_seconds_by_default(variant: str) -> None:
    assert spans(file_rows(tiny(variant), 45)) == [(0, 1.5), (1.5, 2.5), (2.5, 3.2), (3.2, 4.5)]
    # With a stride, T of them: windows of 12 begin at 0, 6, ..., 30 and 33.
    assert [stop for _, stop in spans(file_rows(tiny(variant), 45, stride=3))][:2] == [0.9, 1.5]
    assert spans(file_rows(tiny(variant), 7)) == [(0, 0.7)]
    assert spans(file_rows(tiny(variant), 1)) == [(0, 0.1)]


def test_frames_have_times_of_their_own() -> None:
    times = np.append(0, np.cumsum(np.arange(1, 24)))
    options = LabelOptions(window=10, hop=4)
    rows = list(label_file(tiny("TSN"), NoiseFrames(23), times.astype(float), options))
    assert [row.stop for row in rows] == [times[i] for i in (7, 11, 15, 17, 23)]


def test_at_a_rate_a_file_has_the_frames_of_that_rate_alone() -> None:
    model, source = tiny("TSM"), CountedFrames(NoiseFrames(60))
    rows = list(label_file(model, source, borders(60), LabelOptions(rate=5)))
    chosen = choose_frames(borders(60), 5)
    assert source.decoded == sorted(source.decoded)
    assert set(source.decoded) <= set(chosen.tolist())
    expected = window_logits(model, FrameSelection(NoiseFrames(60), chosen), window=10, hop=5)
    starts, logits = (list(part) for part in zip(*expected, strict=True))
    assert_close(stacked(rows), tuple(torch.cat(task) for task in zip(*logits, strict=True)))
    assert len(torch.cat(starts)) == len(rows)
    assert spans(rows)[-1][1] == 6


@pytest.mark.parametrize("modality", ["RGB", "RGBDiff"])
@pytest.mark.parametrize("options", [{}, {"rate": 5, "stride": 2, "batch_size": 3}])
def test_a_uni_directional_tsm_is_a_stream(modality: str, options: dict[str, int]) -> None:
    model = tiny("TSM", modality, shift_direction="past")
    with counted_images(model) as seen:
        rows = file_rows(model, 33, **options)
    length = model.frames_per_snippet
    starts = choose_frames(borders(33), options.get("rate", 2))
    starts = starts[starts <= 33 - length]
    assert sum(seen) == len(starts) == len(rows)
    stops = [*(starts[1:] / FPS).tolist(), 3.3]
    assert [stop for _, stop in spans(rows)] == pytest.approx(stops)
    transform = model.evaluation_transform()
    snippets = [transform(NoiseFrames(33).read(start + np.arange(length))) for start in starts]
    expected = Stream(model, stride=options.get("stride", 1))(torch.stack(snippets))
    assert_close(stacked(rows), expected)


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("options", [("TSM", "RGB", "past"), ("TSM", "RGBDiff", "past")])
def test_a_live_source_has_the_scores_of_a_file(options: tuple[str, str, str], crops: int) -> None:
    model = tiny(*options[:2], shift_direction=options[2])
    file, live = (rows(model, 40, rate=4, crop_count=crops) for rows in (file_rows, live_rows))
    if options[1] == "RGB":
        assert_close(stacked(live), stacked(file))
        assert spans(live)[:-1] == spans(file)[:-1]
    assert spans(live)[-1][1] == pytest.approx(spans(live)[-1][0] + 1 / 4)


def test_rows_of_a_live_source_do_not_reach_over_what_nobody_saw() -> None:
    """Their own frame is in them, also where others were dropped, or the source paused."""
    model, image = tiny("TSN"), NoiseFrames(1).read([0])[0]
    frames = [LiveFrame(seconds, image) for seconds in (0.0, 0.3, 0.5, 7.0, 7.6)]
    rows = list(label_live(model, frames, LabelOptions(rate=5)))
    found = [(row.start, row.stop) for row in rows]
    assert found == [(0.0, 0.3), (0.3, 0.5), (0.5, 1.5), (7.0, 7.6), (7.6, pytest.approx(7.8))]


@pytest.mark.parametrize("variant", ["TSN", "TRN", "MTRN"])
def test_live_frames_are_seen_once(variant: str) -> None:
    model = tiny(variant)
    with counted_images(model) as seen:
        rows = live_rows(model, 50, rate=5)
    assert seen == [1] * len(rows)
    assert len(rows) == 25
    inputs = torch.stack(
        [
            model.evaluation_transform()(f[None])
            for f in NoiseFrames(50).read(choose_frames(borders(50), 5))
        ]
    )
    assert_close(stacked(rows), Stream(model)(inputs))


def test_rows_of_a_stream_every_few_frames() -> None:
    model = tiny("TSN")
    single, rows = live_rows(model, 50, rate=5), live_rows(model, 50, rate=5, hop=4)
    assert spans(rows)[:2] == [(0, spans(single)[3][1]), (spans(single)[3][1], spans(single)[7][1])]
    places = [3, 7, 11, 15, 19, 23, 24]
    assert_close(stacked(rows), tuple(task[places] for task in stacked(single)))


@pytest.mark.parametrize("count", [3, 16, 17, 30])
def test_what_looks_ahead_sees_live_windows_of_a_clip(count: int) -> None:
    model = tiny("TSM")
    rows = live_rows(model, count, rate=FPS, window=8, hop=4)
    last = max(count - 8, 0)
    starts = [*range(0, last + 1, 4), *([last] if count > 8 else [])]
    assert spans(rows)[-1][1] == pytest.approx(count / FPS)
    assert len(rows) == len(starts)
    for row, start in zip(rows, starts, strict=True):
        assert_close(row.scores, clip_scores(model, start, min(start + 8, count), count))
    if count > 12:
        assert spans(rows)[:2] == [(0, 0.6), (0.6, 1.0)]


def test_rows_of_live_windows_come_as_soon_as_their_windows() -> None:
    came: list[int] = []

    def frames() -> Iterator[LiveFrame]:
        for index, image in enumerate(NoiseFrames(30).read(range(30))):
            came.append(index)
            yield LiveFrame(index / FPS, image)

    rows = label_live(tiny("TSM"), frames(), LabelOptions(rate=FPS, hop=2))
    next(rows)
    assert came == [0, 1, 2, 3]
    next(rows)
    assert len(came) == 6


@pytest.mark.parametrize("live", [False, True])
def test_scores_are_smoothed(live: bool) -> None:
    model, rows_of = tiny("TSN"), live_rows if live else file_rows
    options = {"rate": 5, "hop": 2, "smoothing": "mean:3"}
    rough = stacked(rows_of(model, 60, rate=5, hop=1 if live else 2))
    expected = [task.unfold(0, 3, 1).mean(-1) for task in rough]
    found = stacked(rows_of(model, 60, **options))
    if live:  # over frames, of which every second makes a row
        expected = [task[1::2] for task in expected]
        found = tuple(task[1:] for task in found)
        assert_close(found, tuple(expected))
    else:
        assert_close(tuple(task[2:] for task in found), tuple(expected))


def test_probabilities_and_one_task() -> None:
    model = tiny("TSN", before_softmax=False)
    for rows in (file_rows(model, 20), live_rows(model, 20)):
        for task in stacked(rows):
            assert torch.allclose(task.sum(-1), torch.ones(len(rows)))
    single = TSN(6, 2, "RGB", "resnet18", pretrained=None).eval()
    single.preprocessing = dataclasses.replace(single.preprocessing, input_size=32, scale_size=36)
    for rows in (file_rows(single, 20), live_rows(single, 20)):
        (scores,) = stacked(rows)
        assert scores.shape == (len(rows), 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "rate must be positive, in frames per second, got 0"),
        ({"hop": 0}, "hop must be a positive integer, got 0"),
        ({"window": 5, "hop": 6}, "hop must be at most the window, 5 frames, got 6"),
        ({"smoothing": "mean"}, "smoothing must be mean:N"),
        ({"crop_count": 2}, "crop_count"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        file_rows(tiny("TSN"), 20, **options)


def test_options_that_a_model_does_not_allow() -> None:
    with pytest.raises(ValueError, match="window is for models that see windows"):
        live_rows(tiny("TSN"), 20, window=4)
    with pytest.raises(ValueError, match="rate would take the 6 frames of a snippet apart"):
        file_rows(tiny("TSN", "RGBDiff"), 20, rate=4)


def test_images_need_a_rate() -> None:
    assert frame_borders(NoiseFrames(3), 4).tolist() == [0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="noise: its images have no times"):
        frame_borders(NoiseFrames(3), None)


def test_choosing_frames_of_a_rate() -> None:
    assert choose_frames(borders(12, 6), 3).tolist() == [0, 2, 4, 6, 8, 10]
    assert choose_frames(borders(4, 6), 60).tolist() == [0, 1, 2, 3]
    gaps = np.array([0, 0.1, 0.2, 3.0, 3.1, 3.9, 4.0])
    assert choose_frames(gaps, 1).tolist() == [0, 3, 5]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["TSN", "TSM", "past"])
def test_memory_does_not_grow_with_the_video(variant: str) -> None:
    model = tiny("TSM", shift_direction="past") if variant == "past" else tiny(variant)

    def label(count: int) -> None:
        for _ in label_file(model, NoiseFrames(count), borders(count), LabelOptions(rate=5)):
            pass

    label(100)
    short, long = peak_memory(lambda: label(300)), peak_memory(lambda: label(6000))
    if short is None or long is None:
        pytest.skip("memory is measured on Linux alone")
    assert long < short + 8e6
