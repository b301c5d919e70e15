"""The program that evaluates models over a dataset."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.epic_dataset import write_rgb
from helpers.evaluation_data import arguments, labelled, write_evaluation_data
from helpers.synthetic_clips import tiny_tsn

from epic.annotations import read_annotations
from epic.scores import fuse_scores, read_scores, write_scores
from model_loader import load_checkpoint, save_checkpoint
from predictor import Predictor
from tools.evaluate import main

IDS = ["P01_11_0", "P01_11_1", "P01_11_2", "P01_12_0", "P01_12_1", "P02_101_0", "P02_101_1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation_data(tmp_path_factory.mktemp("data"))


@pytest.mark.essential
def test_one_model_gets_scores_metrics_and_pictures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(data, tmp_path / "out", annotations=labelled(data))) == 0
    scores = read_scores(tmp_path / "out" / "rgb" / "scores.pt")
    assert scores["ids"] == IDS
    assert scores["video_ids"][-1] == "P02_101"
    report = capsys.readouterr().out
    assert (tmp_path / "out" / "report.txt").read_text() in report
    assert "unseen" in report
    (metrics,) = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(metrics["metrics"]) == 12
    assert metrics["num_segments"] == 7
    pictures = {path.name for path in (tmp_path / "out" / "rgb").glob("*.png")}
    assert pictures == {
        "accuracy_noun.png", "accuracy_verb.png", "confusion_noun.png", "confusion_verb.png",
    }  # fmt: skip


@pytest.mark.parametrize("source", ["frames", "videos"])
def test_logits_are_those_of_the_predictor(data: Path, tmp_path: Path, source: str) -> None:
    """And so are the frames of a segment: the stop frame belongs to it in EPIC-KITCHENS-100."""
    out = tmp_path / "out"
    assert main(arguments(data, out, data=data / source, workers=2, crops=3)) == 0
    scores = read_scores(out / "rgb" / "scores.pt")
    # The left crop sees the lowest bits of the frames' numbers.
    predictor = Predictor(load_checkpoint(data / "rgb.pth.tar"), crop_count=3)
    segment = read_annotations(labelled(data))[1]
    start, stop = segment.frames or (0, 0)
    if source == "frames":
        clip, by_number = data / "frames" / "P01" / "P01_11", True
    else:
        clip, by_number, start = data / "videos" / "P01" / "videos" / "P01_11.MP4", False, start - 1
        stop -= 1
    frames = predictor.load(clip, start=start, stop=stop + 1, by_number=by_number)
    verbs, nouns = predictor.probabilities([frames])
    assert torch.from_numpy(scores["verb"][1]).softmax(0).equal(verbs[0])
    assert torch.from_numpy(scores["noun"][1]).softmax(0).equal(nouns[0])


def test_several_models_are_fused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(arguments(data, out, "rgb", annotations=labelled(data))) == 0
    written = (out / "rgb" / "batches" / "000000.safetensors").stat().st_mtime_ns
    command = arguments(data, out, "rgb", "flow", weights="1 1.5", limit=7)
    command += ["--annotations", str(labelled(data))]
    assert main(command) == 0
    assert (out / "rgb" / "batches" / "000000.safetensors").stat().st_mtime_ns == written
    models = [read_scores(out / name / "scores.pt") for name in ("rgb", "flow")]
    expected, fused = fuse_scores(models, [1, 1.5]), read_scores(out / "fusion" / "scores.pt")
    assert fused["ids"] == expected["ids"]
    assert np.array_equal(fused["verb"], expected["verb"])
    names = [each["name"] for each in json.loads((out / "metrics.json").read_text())]
    assert names == ["rgb", "flow", "fusion 1 : 1.5"]

    # The same from the files of scores, without models or clips.
    files = [str(out / name / "scores.pt") for name in ("rgb", "flow")]
    again = ["--scores", *files, "--weights", "1", "1.5", "--out", str(tmp_path / "again")]
    assert main([*again, "--annotations", str(labelled(data))]) == 0
    read = [(each / "metrics.json").read_text() for each in (out, tmp_path / "again")]
    assert read[0] == read[1]

    # Files of other programs do not say which videos they are of.
    del fused["video_ids"]
    alone = write_scores(tmp_path / "alone.pt", fused)
    again = ["--scores", str(alone), "--out", str(tmp_path / "alone")]
    assert main([*again, "--annotations", str(labelled(data))]) == 0


def test_score_files_have_the_segments_of_the_annotations(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, ids: list[str]) -> str:
        count = len(ids)
        scores = {"ids": ids, "verb": np.eye(count, 97), "noun": np.eye(count, 300)}
        return str(write_scores(tmp_path / f"{name}.pt", scores))

    def run(*files: str, **options: Any) -> int:
        extra = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = ["--annotations", str(labelled(data)), "--out", str(tmp_path / "out"), *extra]
        return main(["--scores", *files, *command])

    whole, part, other = write("a", IDS), write("b", IDS[:5]), write("c", [*IDS[:6], "x1"])
    assert run(whole, limit=2) == 0
    assert run(part) == 0
    (metrics,) = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["num_segments"], metrics["num_skipped"]) == (5, 2)
    assert run(other) == 1
    assert "c.pt: 1 of its segments are not in --annotations: x1" in capsys.readouterr().err
    assert run(write("d", ["x1", "x2"]), limit=2) == 1
    assert "d.pt: 2 of its segments are not in --annotations: x1, x2" in capsys.readouterr().err
    assert run(whole, part) == 1
    assert "b.pt: other segments than in a, 2 are in one alone: P02_101_0" in (
        capsys.readouterr().err
    )


def test_options_of_the_model_count(data: Path, tmp_path: Path) -> None:
    results: list[Any] = []
    options: list[dict[str, Any]] = [
        {}, {"precision": "bfloat16"}, {"num_segments": 4}, {"twice_sample": None}, {"crops": 10},
        {"crops": 3}, {"crops": 3, "no_include_stop": None},
    ]  # fmt: skip
    for number, each in enumerate(options):
        command = arguments(data, tmp_path / str(number), **each)
        assert main(command) == 0
        scores = read_scores(tmp_path / str(number) / "rgb" / "scores.pt")["verb"]
        assert not any(np.array_equal(scores, other) for other in results), each
        results.append(scores)
    np.testing.assert_allclose(results[1], results[0], atol=0.1 * np.abs(results[0]).max())
    assert main(arguments(data, tmp_path / "plain", no_optimize=None)) == 0
    plain = read_scores(tmp_path / "plain" / "rgb" / "scores.pt")["verb"]
    np.testing.assert_allclose(plain, results[0], atol=1e-5 * np.abs(results[0]).max())


def test_another_request_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(data, tmp_path / "out", limit=1)) == 0
    assert main(arguments(data, tmp_path / "out", limit=1, crops=10)) == 1
    assert "another request: crops was 1, now 10. Give another" in capsys.readouterr().err


def test_a_command_that_could_not_start_blocks_no_other(data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert main(arguments(data, tmp_path / "out", data=tmp_path / "elsewhere", limit=1)) == 1
    assert main(arguments(data, tmp_path / "out", limit=1)) == 0


def test_a_trial_is_part_of_the_run(data: Path, tmp_path: Path) -> None:
    assert main(arguments(data, tmp_path / "out", limit=3)) == 0
    assert main(arguments(data, tmp_path / "out")) == 0
    assert main(arguments(data, tmp_path / "whole")) == 0
    scores = [tmp_path / out / "rgb" / "scores.pt" for out in ("out", "whole")]
    assert scores[0].read_bytes() == scores[1].read_bytes()
    assert main(arguments(data, tmp_path / "out", limit=3)) == 0  # and after it
    assert read_scores(scores[0])["ids"] == IDS[:3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "0"}, "--weights must be 1 positive numbers"),
        ({"weights": "1 2"}, "--weights must be 1 positive numbers"),
        ({"weights": "nan"}, "--weights must be 1 positive numbers"),
        ({"weights": "inf"}, "--weights must be 1 positive numbers"),
        ({"limit": -1}, "--limit must be a positive integer, got -1"),
        ({"limit": 0}, "--limit must be a positive integer, got 0"),
        ({"training": "csv/EPIC_train_action_labels.csv"}, "--training: annotations of the wrong"),
    ],
)
def test_wrong_options_are_told_before_the_run(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, str],
    message: str,
) -> None:
    options = {name: str(data / v) if name == "training" else v for name, v in options.items()}
    assert main(arguments(data, tmp_path / "out", annotations=labelled(data), **options)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_without_logits_is_refused_before_the_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tiny_tsn((97, 300), before_softmax=False), tmp_path / "last.pth.tar")
    command = arguments(data, tmp_path / "out", "rgb", data=data / "frames")
    assert main([str(tmp_path / "last.pth.tar"), *command]) == 1
    assert "last.pth.tar: model must give logits" in capsys.readouterr().err
    assert main([command[0], str(tmp_path / "last.pth.tar"), *command[1:]]) == 1
    assert not (tmp_path / "out").exists()


def test_tail_classes_are_marked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = []
    monkeypatch.setattr(
        "tools.evaluation_results.draw_class_accuracies",
        lambda *_, tail, **options: marked.append(tail),
    )
    assert main(arguments(data, tmp_path / "out", annotations=labelled(data))) == 0
    assert [list(tail) for tail in marked] == [[2, 3], [4]]


def test_segments_without_labels_get_scores_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(arguments(data, out)) == 0
    assert "Scores without metrics" in capsys.readouterr().out
    assert read_scores(out / "rgb" / "scores.pt")["ids"] == IDS
    assert not (out / "metrics.json").exists()


def test_epic_kitchens_55(data: Path, tmp_path: Path) -> None:
    train = data / "csv" / "EPIC_train_action_labels.csv"
    assert main(arguments(data, tmp_path / "a", "rgb55", annotations=train)) == 0
    (metrics,) = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["metrics"]["precision"].keys() == {"verb", "noun", "action", "verb_per_class"}
    assert main(arguments(data, tmp_path / "b", "rgb55", annotations=train, training=train)) == 0


def test_epic_kitchens_55_on_segments_that_epic_kitchens_100_labels(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The class files have no such verbs unless they are told, as `label_common_segments` reads."""
    labels = {"verb": ["take", "open"], "noun": ["plate", "door"]}
    for task, words in labels.items():
        count = {"verb": 125, "noun": 352}[task]
        rows = [(index, f"{task}{index}", "[]") for index in range(count)]
        rows[:2] = [(index, word, f"['{word}']") for index, word in enumerate(words)]
        with open(tmp_path / f"{task}.csv", "w", newline="") as file:
            csv.writer(file).writerows([(f"{task}_id", "class_key", f"{task}s"), *rows])
    seen = tmp_path / "EPIC_test_s1_timestamps.csv"
    with open(data / "csv" / "EPIC_train_action_labels.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if not k.startswith(("verb", "noun", "all", "narr"))}
                for row in csv.DictReader(file)]  # fmt: skip
    with open(seen, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    options = {f"{task}_classes": tmp_path / f"{task}.csv" for task in labels}
    command = arguments(
        data,
        tmp_path / "out",
        "rgb55",
        annotations=labelled(data),
        epic_55_segments=seen,
        **options,
    )
    assert main(command) == 0
    report = capsys.readouterr().out
    assert "of 5 segments, EPIC-KITCHENS-100 labels 5, and 3 of these labels are known" in report
    assert read_scores(tmp_path / "out" / "rgb55" / "scores.pt")["ids"] == ["1924", "1926", "2100"]


def test_data_of_ones_own_with_one_task(data: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "path,start,stop,label_class\nP01/videos/P01_11.MP4,0.1,0.9,3\nP01/videos/P01_12.MP4,,,0\n"
    )
    out, own = tmp_path / "out", tmp_path / "own.csv"
    assert main(arguments(data, out, "one_task", annotations=own, data=data / "videos")) == 0
    (metrics,) = json.loads((out / "metrics.json").read_text())
    assert metrics["metrics"].keys() == {"label"}
    assert read_scores(out / "one_task" / "scores.pt")["label"].shape == (2, 4)


def test_labels_that_are_names_are_those_of_the_models_classes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_checkpoint(data / "one_task.pth.tar")
    model.class_names = ["cut", "fry", "peel", "stir"]
    for name in ("named", "other"):
        save_checkpoint(model, data / f"{name}.pth.tar")
        model.class_names = ["cut", "fry", "stir", "peel"]
    rows = "path,start,stop,{0}\nP01/videos/P01_11.MP4,0.1,0.9,{1}\nP01/videos/P01_12.MP4,,,{2}\n"
    results = []
    for name, labels in {"ids": ("label_class", 3, 0), "names": ("label", "stir", "cut")}.items():
        (tmp_path / f"{name}.csv").write_text(rows.format(*labels))
        own = {"annotations": tmp_path / f"{name}.csv", "data": data / "videos"}
        assert main(arguments(data, tmp_path / name, "named", **own)) == 0
        results.append(json.loads((tmp_path / name / "metrics.json").read_text())[0]["metrics"])
    assert results[0] == results[1]
    capsys.readouterr()
    assert main(arguments(data, tmp_path / "fused", "named", "other", **own)) == 1
    assert "class names that the checkpoints hold differ" in capsys.readouterr().err
    (tmp_path / "names.csv").write_text(rows.format("label", "stir", "wash"))
    assert main(arguments(data, tmp_path / "unknown", "named", **own)) == 1
    assert "label must be one of cut, fry, peel, stir, got wash" in capsys.readouterr().err


def test_missing_frames_are_listed_and_skipped_on_request(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rgb(tmp_path / "part", videos={"P01_11": 120})
    command = arguments(data, tmp_path / "out", data=tmp_path / "part")
    assert main(command) == 1
    message = capsys.readouterr().err
    assert "P01_12: no RGB frames" in message
    assert "P02_101: no RGB frames" in message
    assert "--skip-missing" in message
    assert main([*command, "--skip-missing"]) == 0
    assert read_scores(tmp_path / "out" / "rgb" / "scores.pt")["ids"] == IDS[:3]
    write_rgb(tmp_path / "part")  # and later there are more
    assert main(command) == 0
    assert read_scores(tmp_path / "out" / "rgb" / "scores.pt")["ids"] == IDS


@pytest.mark.parametrize(
    ("checkpoints", "options", "message"),
    [
        (("flow",), {"data": "videos"}, "no Flow frames"),
        (("rgb",), {"annotations": "csv/EPIC_train_action_labels.csv"}, "of the wrong dataset"),
        (("rgb", "rgb55"), {}, "what is fused must have the same classes"),
        (("rgb", "rgb"), {}, "must have names that differ"),
        (("rgb", "flow"), {"weights": "1"}, "--weights must be 2 positive numbers"),
        (("none",), {}, "there is no such file, and no published weights"),
        (("rgb",), {"data": "nowhere"}, "nowhere is no folder"),
        (("rgb",), {"device": "cuda:99"}, "device must be one of this machine"),
        (("rgb",), {"batch_size": 0}, "batch_size must be"),
        (("rgb",), {"workers": -1}, "--workers must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    checkpoints: tuple[str, ...],
    options: dict[str, Any],
    message: str,
) -> None:
    for name in options.keys() & {"data", "annotations"}:
        options = {**options, name: data / options[name]}
    assert main(arguments(data, tmp_path / "out", *checkpoints, **options)) == 1
    assert message in capsys.readouterr().err


def overwrite_pictures(video: Path) -> None:
    """Damage all pictures of a video, but not the index of its packets."""
    content = bytearray(video.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[start:end] = bytes(end - start)
    video.write_bytes(content)


def cut(video: Path) -> None:
    video.write_bytes(video.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [overwrite_pictures, cut])
def test_a_damaged_video_costs_its_segments_until_it_is_mended(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    shutil.copytree(data / "videos", tmp_path / "videos")
    video = tmp_path / "videos" / "P01" / "videos" / "P01_12.MP4"
    damage(video)
    command = arguments(data, tmp_path / "out", data=tmp_path / "videos", workers=1)
    assert main(command) == 1
    lines = capsys.readouterr().err.splitlines()
    heading = lines.index("rgb: 2 segments could not be read:")
    assert lines[heading + 1].startswith("  P01_12_0, P01_12_1: ")
    scores = tmp_path / "out" / "rgb" / "scores.pt"
    assert read_scores(scores)["ids"] == [name for name in IDS if "P01_12" not in name]
    shutil.copy(data / "videos" / "P01" / "videos" / "P01_12.MP4", video)
    assert main(command) == 0
    assert read_scores(scores)["ids"] == IDS
    assert main(arguments(data, tmp_path / "whole", data=tmp_path / "videos")) == 0
    assert scores.read_bytes() == (tmp_path / "whole" / "rgb" / "scores.pt").read_bytes()


def test_videos_that_are_all_damaged_are_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "videos", tmp_path / "videos")
    own = tmp_path / "own.csv"
    own.write_text("video_id,start_frame,stop_frame\nP01_12,9,60\n")
    cut(tmp_path / "videos" / "P01" / "videos" / "P01_12.MP4")
    assert main(arguments(data, tmp_path, annotations=own, data=tmp_path / "videos")) == 1
    message = capsys.readouterr().err
    assert "P01_12.MP4" in message
    assert "Traceback" not in message
