"""The program that writes features: what its options do, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.counting import tiny
from helpers.epic_dataset import write_csvs, write_flow, write_rgb, write_videos

from engine.feature_files import read_features
from model_loader import save_checkpoint
from tools.extract_features import main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    save_checkpoint(tiny("TSN", segments=2), root / "rgb.pth.tar")
    save_checkpoint(tiny("TSN", "Flow", segments=2, new_length=3), root / "flow.pth.tar")
    save_checkpoint(tiny("TSM", segments=4), root / "tsm.pth.tar")
    write_rgb(root / "frames")
    write_flow(root / "flow")
    write_rgb(root / "segments", "segments")
    write_videos(root / "videos")
    write_videos(root / "plain", "{video}.mp4", {"a": 20, "b": 30}, 25)
    write_csvs(root / "csv")
    return root


def command(data: Path, out: Path, model: str, *options: Any) -> list[str]:
    threads = () if "--threads" in options else ("--threads", "1")
    rest = map(str, ("--out", out, "--workers", 0, *threads, *options))
    return [str(data / f"{model}.pth.tar"), *rest]


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} - {"request.json"}


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("frames", {"P01_11": 120, "P01_12": 90, "P02_101": 100}),
        ("videos", {"P01_11": 120, "P01_12": 90, "P02_101": 100}),
        ("plain", {"a": 8, "b": 12}),
        ("plain/b.mp4", {"b": 12}),
        ("frames/P02/P02_101", {"P02_101": 100}),
    ],
)
def test_videos_are_found_in_whatever_is_given(
    data: Path, tmp_path: Path, root: str, expected: dict[str, int]
) -> None:
    arguments = command(data, tmp_path, "rgb", "--stride", 10, data / root)
    assert main(arguments) == 0
    assert names(tmp_path) == {f"{video}.safetensors" for video in expected}
    for video, frames in expected.items():
        arrays, metadata = read_features(tmp_path / f"{video}.safetensors")
        numbered = root.startswith("frames")
        assert arrays["frames"].tolist() == list(range(numbered, frames + numbered, 10))
        rate = {"P01": 60, "P02": 50}.get(video[:3], 25)
        assert arrays["seconds"] == pytest.approx((arrays["frames"] - numbered) / rate)
        assert (metadata["rate"], metadata["crops"]) == (rate / 10, 1)
        assert metadata["checkpoint"] == "rgb.pth.tar"
        assert len(metadata["checkpoint_sha256"]) == 64
        assert metadata["preprocessing"]["input_size"] == 32


def test_flow_is_numbered_and_timed_by_its_own_images(data: Path, tmp_path: Path) -> None:
    assert main(command(data, tmp_path, "flow", "--format", "npz", data / "flow")) == 0
    arrays, metadata = read_features(tmp_path / "P01_11.npz")
    assert metadata["fps"] == 30
    assert arrays["features"].shape == (59 - 2, 512)
    assert read_features(tmp_path / "P02_101.npz")[1]["fps"] == 50


def test_actionformer_gets_its_grid(data: Path, tmp_path: Path) -> None:
    grid = ("--rate", 10, "--window", 3, "--stride", 2)
    assert main(command(data, tmp_path, "rgb", "--format", "actionformer", *grid,
                        data / "plain")) == 0  # fmt: skip
    assert names(tmp_path) == {"a.npz", "b.npz", "actionformer.json"}
    grids = json.loads((tmp_path / "actionformer.json").read_text())
    assert grids["b"] == {"fps": 10, "feat_stride": 2, "num_frames": 3}
    with np.load(tmp_path / "b.npz") as archive:
        assert archive["feats"].shape == (2, 512)  # of 5 steps: 0..2 and 2..4


@pytest.mark.essential
@pytest.mark.parametrize("model", ["rgb", "tsm"])
@pytest.mark.parametrize("root", ["frames", "videos"])
def test_segments_of_a_dataset(data: Path, tmp_path: Path, model: str, root: str) -> None:
    csv = data / "csv" / "EPIC_100_validation.csv"
    segments = ("--annotations", csv, "--data", data / root, "--logits")
    assert main(command(data, tmp_path / "all", model, *segments)) == 0
    assert main(command(data, tmp_path / "mean", model, "--pool", "mean", *segments)) == 0
    arrays, metadata = read_features(tmp_path / "all" / "P01_11.safetensors")
    means, _ = read_features(tmp_path / "mean" / "P01_11.safetensors")
    assert metadata["ids"] == ["P01_11_0", "P01_11_1", "P01_11_2"]
    assert arrays["features"].shape == (3, 4 if model == "tsm" else 2, 512)
    assert means["features"] == pytest.approx(arrays["features"].mean(1), rel=1e-4, abs=1e-5)
    assert arrays["verb"].shape == (3, 5)
    assert arrays["noun"] == pytest.approx(means["noun"])


def test_folders_of_segments_have_a_file_each(data: Path, tmp_path: Path) -> None:
    csv = data / "csv" / "EPIC_train_action_labels.csv"
    segments = ("--annotations", csv, "--data", data / "segments")
    assert main(command(data, tmp_path, "rgb", *segments)) == 0
    _, metadata = read_features(tmp_path / "P01_11_1924_take-plate.safetensors")
    assert metadata["ids"] == ["1924"]
    assert len(names(tmp_path)) == 5


def test_missing_frames_are_all_listed_before_the_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rgb(tmp_path / "holes", videos={"P01_11": 120}, missing=(20, 27))
    csv = data / "csv" / "EPIC_100_validation.csv"
    segments = ("--annotations", csv, "--data", tmp_path / "holes", "--num-segments", 8)
    assert main(command(data, tmp_path / "out", "rgb", *segments)) == 1
    errors = capsys.readouterr().err
    assert "P01_12: no RGB frames" in errors
    assert "P02_101: no RGB frames" in errors
    assert "no frame has number" in errors
    assert not (tmp_path / "out").exists()
    assert main(command(data, tmp_path / "out", "rgb", "--skip-missing", *segments)) == 0
    _, metadata = read_features(tmp_path / "out" / "P01_11.safetensors")
    assert metadata["ids"] == ["P01_11_1", "P01_11_2"]


def test_a_gap_costs_a_video_unless_it_is_skipped(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rgb(tmp_path / "holes", videos={"P01_11": 20, "P01_12": 9}, missing=(12,))
    root, out = tmp_path / "holes", tmp_path / "out"
    assert main(command(data, out, "rgb", root)) == 1
    assert names(out) == {"P01_12.safetensors"}
    assert "1 videos could not be read" in capsys.readouterr().err
    skipping = command(data, tmp_path / "skipped", "rgb", "--skip-missing", root)
    assert main(skipping) == 0
    arrays, _ = read_features(tmp_path / "skipped" / "P01_11.safetensors")
    assert arrays["frames"].tolist() == [*range(1, 12), *range(13, 21)]
    assert "P01_11: no frame has number 12" in capsys.readouterr().err


def test_another_request_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, "rgb", data / "plain")) == 0
    for options in (("--logits",), ("--stride", 2), ("--threads", 2)):
        assert main(command(data, tmp_path, "rgb", *options, data / "plain")) == 1
        assert "holds results of another request" in capsys.readouterr().err
    assert main(command(data, tmp_path, "rgb", data / "videos")) == 1
    assert "sources was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("flow", ["frames"], "holds no videos for a model of modality Flow"),
        ("rgb", ["flow"], "holds no videos for a model of modality RGB"),
        ("flow", ["plain/a.mp4"], "flow must be computed beforehand"),
        ("rgb", ["none"], "no such file or folder"),
        ("rgb", ["plain/a.mp4", "plain"], "videos must have names that differ"),
        ("rgb", ["--stride=0", "plain"], "stride must be a positive integer, got 0"),
        ("rgb", ["--window=0", "plain"], "window must be a positive integer, got 0"),
        ("rgb", ["--batch-size=0", "plain"], "batch_size must be a positive integer, got 0"),
        ("rgb", ["--rate=-1", "plain"], "rate must be positive"),
        ("rgb", ["--rate=inf", "plain"], "rate must be positive"),
        ("rgb", ["--fps=0", "plain"], "fps must be positive"),
        ("rgb", ["--hop=2", "plain"], "hop is an option for TSM alone"),
        ("tsm", ["--hop=5", "plain"], "hop must be at most 4, got 5"),
        ("other", ["plain"], "there is no such file, and no published weights"),
    ],
)
def test_mistakes_get_one_message_and_write_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    model: str, options: list[str], message: str,
) -> None:  # fmt: skip
    given = [option if option.startswith("--") else data / option for option in options]
    assert main(command(data, tmp_path / "out", model, *given)) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()


def test_actionformer_is_for_whole_videos(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = data / "csv" / "EPIC_100_validation.csv"
    segments = ("--annotations", csv, "--data", data / "frames", "--format", "actionformer")
    assert main(command(data, tmp_path / "out", "rgb", *segments)) == 1
    assert "for whole videos, got annotated segments" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--annotations", "a.csv"], ["a.mp4", "--data", "b"]])
def test_either_videos_or_annotations_with_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    with pytest.raises(SystemExit):
        main(command(data, tmp_path, "rgb", *options))
    assert "give either VIDEO..., or --annotations CSV with --data ROOT" in capsys.readouterr().err
