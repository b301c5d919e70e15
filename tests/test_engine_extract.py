"""Extraction: a file for each video, whatever happens to the run and to other videos."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting import NoiseFrames, counted_images, tiny
from helpers.epic_dataset import SEGMENTS, VIDEOS, number_in, write_flow, write_rgb, write_videos
from helpers.peak_memory import peak_memory
from helpers.small_models import assert_close

from data.dataset import ClipDataset
from data.segments import Segment
from data.video import load_clip, open_frames
from engine import extract as module
from engine.extract import extract
from engine.feature_files import read_features
from engine.feature_writer import ExtractOptions
from engine.output_folder import OutputFolder
from engine.processes import Processes
from engine.video_list import Video
from engine.video_rows import DenseOptions
from tsn import TSN

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU, 1)


def run(
    model: TSN,
    videos: Sequence[Video],
    out: Path,
    options: ExtractOptions | None = None,
    processes: Processes = ALONE,
    **others: Any,
) -> dict[str, str]:
    folder = OutputFolder(out, {})
    options = options or ExtractOptions()
    failures, _ = extract(
        model, videos, folder, processes, options, **{"workers": 0, "about": {}, **others}
    )
    return failures


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_videos(root, "{video}.mp4", {"a": 30, "b": 12, "c": 21})
    return root


@pytest.fixture
def videos(root: Path) -> list[Video]:
    return [Video(name, root / f"{name}.mp4") for name in "abc"]


def test_each_row_is_its_frame_alone(videos: list[Video], tmp_path: Path) -> None:
    model = tiny("TSN")
    with counted_images(model) as seen:
        assert run(model, videos, tmp_path, ExtractOptions(logits=True)) == {}
    assert sum(seen) == 30 + 12 + 21
    arrays, metadata = read_features(tmp_path / "a.safetensors")
    frames = open_frames(videos[0].path).read(range(30))
    inputs = model.evaluation_transform()(frames)
    with torch.inference_mode():
        expected = model.features(inputs[None])
        logits = [head(expected) for head in model._heads()]
    assert_close(torch.from_numpy(arrays["features"]), expected)
    assert_close(torch.from_numpy(arrays["verb"]), logits[0])
    assert_close(torch.from_numpy(arrays["noun"]), logits[1])
    assert arrays["seconds"] == pytest.approx(np.arange(30) / 60)
    assert metadata["rate"] == metadata["fps"] == 60
    assert (metadata["video"], metadata["stride"], metadata["tsm_windows"]) == ("a", 1, None)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_and_processes_change_nothing(
    videos: list[Video], tmp_path: Path, workers: int
) -> None:
    model = tiny("TSN")
    run(model, videos, tmp_path / "alone")
    run(model, videos, tmp_path / "workers", workers=workers)
    for rank in range(2):
        share = videos[rank::2]
        run(model, share, tmp_path / "processes")
    assert contents(tmp_path / "alone") == contents(tmp_path / "workers")
    assert contents(tmp_path / "alone") == contents(tmp_path / "processes")


def test_finished_videos_are_not_computed_again(videos: list[Video], tmp_path: Path) -> None:
    model = tiny("TSN")
    run(model, videos, tmp_path)
    before = contents(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(before["b.safetensors"][:-9])
    (tmp_path / "b.safetensors.0123.partial").write_bytes(b"of a killed run")
    with counted_images(model) as seen:
        run(model, videos, tmp_path)
    assert sum(seen) == 12
    assert contents(tmp_path) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_video_costs_that_video_alone(
    videos: list[Video], tmp_path: Path, workers: int
) -> None:
    (tmp_path / "text.mp4").write_text("verb,noun\n" * 99)
    bad = [Video("text", tmp_path / "text.mp4"), Video("none", tmp_path / "none.mp4")]
    mixed = [videos[0], *bad, *videos[1:]]
    model = tiny("TSN")
    failures = run(model, mixed, tmp_path / "mixed", workers=workers)
    assert failures.keys() == {"text", "none"}
    assert "none.mp4: no such file or folder" in failures["none"]
    run(model, videos, tmp_path / "good")
    assert contents(tmp_path / "mixed") == contents(tmp_path / "good")
    write_videos(tmp_path, "{video}.mp4", {"none": 5})
    assert run(model, mixed, tmp_path / "mixed").keys() == {"text"}  # tried again
    assert "none.safetensors" in contents(tmp_path / "mixed")


def test_a_video_that_fails_on_the_way_leaves_nothing(
    videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = module.read_crops

    def fail(source: Any, *arguments: Any) -> Any:
        for number, block in enumerate(read(source, *arguments)):
            if number and source.name.endswith("a.mp4"):
                raise ValueError("frame 17\n is damaged")
            yield block

    monkeypatch.setattr(module, "read_crops", fail)
    assert run(tiny("TSN"), videos, tmp_path) == {"a": "frame 17 is damaged"}
    assert contents(tmp_path).keys() == {"b.safetensors", "c.safetensors", "request.json"}


def as_segments(root: Path) -> tuple[list[Segment], list[Video]]:
    """The tiny dataset's segments, by video."""
    segments = [
        Segment(str(index), video, frames=(1 + 3 * index, 60 + 2 * index))
        for index, (_, video, *_) in enumerate(SEGMENTS)
    ]
    return segments, [
        Video(
            name,
            root / name.partition("_")[0] / name,
            tuple(segment for segment in segments if segment.video == name),
            60.0,
        )
        for name in VIDEOS
    ]


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(
    ("variant", "modality"), [("TSN", "RGB"), ("MTRN", "RGB"), ("TSM", "RGB"), ("TRN", "Flow"),
                              ("TSN", "RGBDiff")],
)  # fmt: skip
def test_segments_have_the_features_and_logits_of_their_clips(
    tmp_path: Path, variant: str, modality: str, mean: bool
) -> None:
    flow = modality == "Flow"
    (write_flow if flow else write_rgb)(tmp_path)
    model = tiny(variant, modality, new_length=1 if modality == "RGB" else 3)
    segments, videos = as_segments(tmp_path)
    dataset = ClipDataset(
        segments, tmp_path, modality=modality, num_segments=4, new_length=model.new_length
    )
    options = ExtractOptions(mean=mean, logits=True, batch_size=7)
    with counted_images(model) as seen:
        assert run(model, videos, tmp_path / "out", options, dataset=dataset) == {}
    clips = {item["id"]: item["clip"] for item in map(dataset.__getitem__, range(len(dataset)))}
    snippets = set()
    for video in videos:
        arrays, metadata = read_features(tmp_path / "out" / f"{video.id}.safetensors")
        assert sorted(metadata["ids"]) == [segment.id for segment in video.segments]
        for row, name in enumerate(metadata["ids"]):
            with torch.inference_mode():
                inputs = model.evaluation_transform()(clips[name])[None]
                features, logits = model.features(inputs), model(inputs)
            found = torch.from_numpy(arrays["features"][row])
            assert_close(found, features.mean(0) if mean else features)
            assert_close(torch.from_numpy(arrays["verb"][row]), logits[0][0])
            assert_close(torch.from_numpy(arrays["noun"][row]), logits[1][0])
            first = clips[name][:: model.frames_per_snippet]
            assert arrays["frames"][row].tolist() == [number_in(frame) for frame in first]
            snippets |= {(video.id, number) for number in arrays["frames"][row].tolist()}
    assert sum(seen) == (4 * len(segments) if variant == "TSM" else len(snippets))


def test_windows_of_tsm_are_in_the_metadata(videos: list[Video], tmp_path: Path) -> None:
    run(tiny("TSM"), videos[:1], tmp_path, ExtractOptions(DenseOptions(hop=2, stride=3)))
    arrays, metadata = read_features(tmp_path / "a.safetensors")
    assert metadata["tsm_windows"] == {"segments": 4, "hop": 2}
    assert (metadata["rate"], metadata["stride"]) == (20, 3)
    assert arrays["frames"].tolist() == list(range(0, 30, 3))


def test_averaged_windows_are_means_of_their_rows(videos: list[Video], tmp_path: Path) -> None:
    model = tiny("TSN")
    run(model, videos[:1], tmp_path / "rows", ExtractOptions(logits=True))
    dense = DenseOptions(window=8, stride=5)
    options = ExtractOptions(dense, logits=True, file_format="npz")
    run(model, videos[:1], tmp_path / "windows", options)
    rows, _ = read_features(tmp_path / "rows" / "a.safetensors")
    windows, _ = read_features(tmp_path / "windows" / "a.npz")
    assert windows["frames"].tolist() == [0, 5, 10, 15, 20]
    for name in ("features", "verb"):
        means = np.stack([rows[name][start : start + 8].mean(0) for start in windows["frames"]])
        assert_close(torch.from_numpy(windows[name]), torch.from_numpy(means))


def test_actionformer_wants_a_known_rate(tmp_path: Path) -> None:
    write_rgb(tmp_path, videos={"P01_11": 9})
    path = tmp_path / "P01" / "P01_11"
    options = ExtractOptions(file_format="actionformer")
    failures = run(tiny("TSN"), [Video("P01_11", path)], tmp_path / "out", options)
    assert "its frame rate is not known" in failures["P01_11"]
    assert run(tiny("TSN"), [Video("P01_11", path, fps=60)], tmp_path / "out", options) == {}
    arrays, metadata = read_features(tmp_path / "out" / "P01_11.npz")
    assert {name: array.shape for name, array in arrays.items()} == {"feats": (9, 512)}
    assert metadata["rate"] == 60


@pytest.mark.parametrize(
    ("variant", "model_options", "options", "message"),
    [
        ("TRN", {}, ExtractOptions(logits=True), "logits along a video need"),
        ("TSN", {"before_softmax": False}, ExtractOptions(logits=True), "logits need a model"),
        ("TSM", {"temporal_pool": True}, ExtractOptions(DenseOptions(window=2)), "must be 1"),
        ("TSN", {}, ExtractOptions(crop_count=5), "crop_count must be 1, 3 or 10"),
    ],
)
def test_what_a_model_cannot_give_is_refused(
    videos: list[Video], tmp_path: Path, variant: str, model_options: dict[str, Any],
    options: ExtractOptions, message: str,
) -> None:  # fmt: skip
    with pytest.raises(ValueError, match=message):
        run(tiny(variant, **model_options), videos, tmp_path, options)


def test_a_killed_worker_stops_the_run(
    videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = os.getpid()

    def die(path: Any, *arguments: Any, **options: Any) -> Any:
        if path.name == "b.mp4" and os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return open_frames(path, *arguments, **options)

    monkeypatch.setattr(module, "open_frames", die)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        run(tiny("TSN"), videos, tmp_path, workers=1)
    monkeypatch.undo()
    assert run(tiny("TSN"), videos, tmp_path) == {}
    assert len(contents(tmp_path)) == 4


def test_a_full_disk_stops_the_run_and_leaves_what_is_finished(
    videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = OutputFolder.write_rows

    def fill(folder: OutputFolder, name: str, *arguments: Any, **metadata: Any) -> None:
        if name == "b.safetensors":
            raise OSError(28, "No space left on device")
        write(folder, name, *arguments, **metadata)

    monkeypatch.setattr(OutputFolder, "write_rows", fill)
    with pytest.raises(OSError, match="No space left on device"):
        run(tiny("TSN"), videos, tmp_path)
    assert contents(tmp_path).keys() == {"a.safetensors", "request.json"}


class _Constant(torch.nn.Module):
    """A backbone that needs no time."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.mean((1, 2, 3))[:, None].expand(-1, 512)


@pytest.mark.parametrize("window", [1, 16])
def test_memory_does_not_grow_with_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    model = tiny("TSN")
    monkeypatch.setattr(module, "open_frames", lambda path, _, strict: NoiseFrames(int(path.name)))
    monkeypatch.setitem(model._modules, "base_model", _Constant())
    monkeypatch.setattr(model, "parameters", lambda: iter([torch.zeros(1)]))
    options = ExtractOptions(DenseOptions(window=window))

    def peak(count: int) -> int | None:
        video = Video(f"{count}", Path(f"{count}"))
        return peak_memory(lambda: run(model, [video], tmp_path / str(count), options))

    peak(100)
    short, long = peak(200), peak(4000)
    assert (tmp_path / "4000" / "4000.safetensors").stat().st_size > 7 * 2**20
    if short is None or long is None:
        pytest.skip("this system does not tell the peak of memory")
    assert long < short + 4 * 2**20  # crops are 12 MB, features 8 MB


def test_clips_are_loaded_by_number(tmp_path: Path) -> None:
    """What `load_clip` reads by number is what rows of segments are made of."""
    write_rgb(tmp_path, videos={"P01_11": 30})
    source = open_frames(tmp_path / "P01" / "P01_11")
    clip = load_clip(source, num_segments=4, start=5, stop=25, by_number=True)
    segment = Segment("s", "P01_11", frames=(5, 25))
    dataset = ClipDataset([segment], tmp_path, modality="RGB", num_segments=4)
    video = Video("P01_11", tmp_path / "P01" / "P01_11", (segment,))
    run(tiny("TSN"), [video], tmp_path / "out", dataset=dataset)
    arrays, _ = read_features(tmp_path / "out" / "P01_11.safetensors")
    assert arrays["frames"].tolist() == [[number_in(frame) for frame in clip]]
