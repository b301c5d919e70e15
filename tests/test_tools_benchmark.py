"""Every part of the benchmark runs, and baselines give the library's numbers."""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.benchmark import Measurement, Timer

from data.synthetic import make_video
from presets import evaluation_transform, training_transform
from tools import benchmark
from tsn import TSN

MODELS = ("TSN", "TRN", "MTRN", "TSM")


@pytest.fixture(autouse=True)
def no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_MIN_SECONDS", 0)


def options(folder: Path, **others: object) -> Namespace:
    defaults = {"device": torch.device("cpu"), "models": ["TSN"], "backbones": ["resnet18"]}
    sizes = {"segments": 2, "frame_size": (300, 260), "batches": [1], "precisions": ["float32"]}
    rest = {"compile": False, "video": None, "folder": folder}
    return Namespace(**{**defaults, **sizes, **rest, **others})


def preprocessing_only(backbone: str) -> TSN:
    with torch.device("meta"):
        return TSN(5, 2, "RGB", backbone, pretrained=None)


def test_ways_are_interleaved() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "ab"}
    benchmark.measure("part", "task", ways, rounds=3)
    rounds = "".join(order).replace("ba", "b a").split()
    assert len(rounds) == 3
    assert all(set(calls) == {"a", "b"} for calls in rounds)


def test_speeds_are_the_ratios_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a slow minute that befalls both does not count."""
    seconds = iter([3.0, 1.0, 30.0, 10.0, 8.0, 2.0])  # of a and b in turn

    class FixedTimer(Timer):
        def blocked_autorange(self, *_: object, **__: object) -> Measurement:
            return Measurement(1, [next(seconds)], self._task_spec)

    monkeypatch.setattr("torch.utils.benchmark.Timer", FixedTimer)
    ways = {"a": lambda: None, "b": lambda: None}
    baseline, other = benchmark.measure("part", "task", ways, rounds=3)
    assert (baseline.metadata, other.metadata) == ({"speeds": [1, 1, 1]}, {"speeds": [3, 3, 4]})
    assert (other.times, other.median) == ([1, 10, 2], 2)
    assert benchmark._describe(other) == "b x 3.00 (3.00 to 4.00)"


@pytest.mark.parametrize("backbone", ["resnet18", "BNInception"])
@pytest.mark.parametrize("crop_count", [1, 10])
@pytest.mark.parametrize("size", [(456, 256), (256, 300), (500, 300)])
def test_baseline_crops_are_the_same(backbone: str, crop_count: int, size: tuple[int, int]) -> None:
    model = preprocessing_only(backbone)
    pixels = torch.randint(0, 256, (2, *reversed(size), 3), dtype=torch.uint8)
    images = [Image.fromarray(frame.numpy()) for frame in pixels]
    expected = evaluation_transform(model, crop_count)(images)
    assert benchmark._crops(model, images, crop_count).equal(expected)


@pytest.mark.parametrize("backbone", ["resnet18", "BNInception"])
def test_baseline_training_crops_are_alike(backbone: str) -> None:
    """Of images of one colour, on which it does not matter what is drawn."""
    model = preprocessing_only(backbone)
    images = [Image.new("RGB", (456, 256), colour) for colour in ("tan", "navy")]
    expected = training_transform(model)(images)
    assert benchmark._random_crop(model, images).equal(expected)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        *((name, "resnet18") for name in MODELS),
        *(("TSM", backbone) for backbone in ("resnet50", "mobilenetv2")),
        ("TSN", "BNInception"),
    ],
)
def test_baseline_models_are_the_same(tmp_path: Path, name: str, backbone: str) -> None:
    model = benchmark._model(name, backbone, options(tmp_path))
    clips = torch.randn(1, 6, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(benchmark._baseline(model)(clips), model(clips))


def test_backbones_are_somebody_elses_and_folded(tmp_path: Path) -> None:
    for backbone in ("resnet18", "BNInception", "mobilenetv2"):
        ((_, ways),) = benchmark.models(options(tmp_path, backbones=[backbone]))
        network = ways["backbone only"].args[0]
        kinds = {type(module) for module in network.modules()}
        assert nn.Conv2d in kinds
        assert nn.BatchNorm2d not in kinds
        assert ways["backbone only"]().ndim == 2


PARTS: dict[Callable[..., object], dict[str, list[str]]] = {
    benchmark.loading: {"TSN resnet18": ["zip", "legacy", "safetensors"]},
    benchmark.transforms: {
        f"{name}, resnet18": ["Pillow images", "tensor"]
        for name in ("one crop", "ten crops", "training")
    },
    benchmark.models: {
        f"{name} resnet18, clips: {batch}": [
            *("unoptimised", "optimised, float32", "compiled, float32"),
            *("optimised, bfloat16", "compiled, bfloat16", "backbone only"),
        ]
        for name in ("TSN", "MTRN")
        for batch in (1, 2)
    },
    benchmark.video: {"decode a clip": ["library"], "ten crops, TSN resnet18": ["library"]},
    benchmark.streaming: {
        "windows at hop 1, TSN resnet18": ["library"],
        "windows at hop 1, MTRN resnet18": ["library"],
        "frame by frame, TSM resnet18": ["library"],
    },
}
"""Part -> its tasks -> their ways beside the baseline."""


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Callable[..., object]
) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda module: None)  # slow
    monkeypatch.setattr(TSN, "input_size", 64)
    given = options(
        tmp_path,
        models=["TSN", "MTRN"],
        batches=[1, 2],
        precisions=["float32", "bfloat16"],
        compile=True,
        video=make_video(tmp_path / "clip.mp4", 6),
    )
    found = {}
    for task, ways in part(given):
        baseline, *others = ways
        assert baseline == "baseline"
        found[task] = others
        for call in ways.values():
            call()
    assert found == PARTS[part]


def test_published_pairs_alone_are_measured(tmp_path: Path) -> None:
    given = options(tmp_path, models=["TSM"], backbones=["BNInception"])
    assert not list(benchmark.models(given))
    assert not list(benchmark.streaming(given))


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    arguments = ["--parts", "transforms", "--backbones", "resnet18", "--segments", "2"]
    assert benchmark.main([*arguments, "--rounds", "2", "--json", str(path)]) == 0
    contents = json.loads(path.read_text())
    assert contents["machine"] == benchmark.describe_machine(torch.device("cpu"))
    assert contents["options"]["segments"] == 2
    rows = contents["results"]
    assert [row["way"] for row in rows] == ["baseline", "Pillow images", "tensor"] * 3
    assert (rows[0]["part"], rows[0]["task"]) == ("transforms", "one crop, resnet18")
    assert all(len(row["times"]) >= 2 and row["median"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert all(row["speed"] == median(row["speeds"]) for row in rows)
    images, tensor = (
        f"{row['speed']:.2f} ({min(row['speeds']):.2f} to {max(row['speeds']):.2f})"
        for row in rows[1:3]
    )
    assert f"one crop, resnet18: Pillow images x {images}, tensor x {tensor}\n" in printed
    assert "baseline  |  Pillow images  |  tensor" in printed


def test_what_was_measured_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(_: Namespace):
        yield "task", {"baseline": lambda: None}
        raise KeyboardInterrupt

    monkeypatch.setitem(benchmark._PARTS, "video", part)
    path = tmp_path / "figures.json"
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(["--parts", "video", "--rounds", "1", "--json", str(path)])
    assert [row["task"] for row in json.loads(path.read_text())["results"]] == ["task"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "everything"], "invalid choice: 'everything'"),
        (["--frame-size", "456"], "WIDTHxHEIGHT"),
        (["--rounds", "0"], "positive"),
        (["--backbones", "resnet1"], "resnet1"),
        (["--device", "cuda:17"], "cuda:17"),
        (["--video", "nowhere.mp4"], "nowhere.mp4"),
        (["--video", __file__], "not a video file that can be read"),
        (["--video", "."], "must be a regular file"),
        (["--precisions", "int8"], "int8"),
        (["--segments", "1"], "--segments"),
        (["--segments", "21"], "--segments"),
        (["--json", "."], "--json"),
        (["--json", "nowhere/figures.json"], "nowhere"),
    ],
)
def test_bad_arguments_are_named_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
