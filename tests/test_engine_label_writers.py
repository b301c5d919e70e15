"""Labels on their way out: rows of text, ActivityNet's JSON, neighbours merged."""

import csv
import json
from pathlib import Path

import pytest

from engine.label_writers import ActivityNetWriter, LabelWriter, MergedRows, RowWriter, TablePrinter
from predictor import Label, Prediction, TimedPrediction


def row(start: float, verb: str, probability: float) -> TimedPrediction:
    number = {"take": 0, "put": 1}[verb]
    return TimedPrediction(
        start,
        start + 1.00049,
        Prediction(
            verbs=(Label(verb, (number,), probability), Label("cut", (2,), 0.01)),
            nouns=(Label('"pan", big', (4,), 1.0),),
            actions=(Label(f'{verb} "pan", big', (number, 4), probability),),
        ),
    )


ROWS = [row(0, "take", 0.5), row(1, "take", 0.25), row(2, "put", 0.75)]


def write(writer: LabelWriter, rows: list[TimedPrediction] = ROWS) -> None:
    for each in rows:
        writer.add(each)
    writer.finish()


def test_csv_and_json_lines_have_the_same_fields(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.JSONL"):
        write(RowWriter(tmp_path / name))
    with open(tmp_path / "rows.csv", newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    lines = (tmp_path / "rows.JSONL").read_text("utf-8").splitlines()
    assert found == [
        {name: str(value) for name, value in json.loads(line).items()} for line in lines
    ]
    assert json.loads(lines[0]) == {
        "start": 0, "stop": 1.0, "verb": "take", "verb_probability": 0.5, "noun": '"pan", big',
        "noun_probability": 1, "action": 'take "pan", big', "action_probability": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_rows_can_be_followed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    writer = RowWriter(path)
    assert not path.exists()
    for count, each in enumerate(ROWS, start=1):
        writer.add(each)
        assert len(path.read_text().splitlines()) == count + name.endswith("csv")
    with pytest.raises(FileExistsError):
        RowWriter(path).add(ROWS[0])
    assert len(path.read_text().splitlines()) == 3 + name.endswith("csv")


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    write(TablePrinter(), ROWS[:1])
    line = '     0.00      1.00 s  take "pan", big 50.0%, "pan", big 100.0%, take 50.0%\n'
    assert capsys.readouterr().out == line


def test_one_task(tmp_path: Path) -> None:
    one = TimedPrediction(0, 2, Prediction(classes=(Label("wave", (3,), 0.5),)))
    write(RowWriter(tmp_path / "rows.csv"), [one])
    expected = "start,stop,class,class_probability\n0,2,wave,0.5\n"
    assert (tmp_path / "rows.csv").read_text() == expected
    write(ActivityNetWriter(tmp_path / "a.json", "v"), [one])
    results = json.loads((tmp_path / "a.json").read_text())["results"]
    assert results == {"v": [{"label": "wave", "score": 0.5, "segment": [0, 2]}]}


def test_activity_net_gets_merged_actions(tmp_path: Path) -> None:
    writer = MergedRows(ActivityNetWriter(tmp_path / "a.json", "P01_01"))
    for each in ROWS:
        writer.add(each)
        assert not list(tmp_path.iterdir())
    writer.finish()
    contents = json.loads((tmp_path / "a.json").read_text())
    assert contents.keys() == {"version", "external_data", "results"}
    assert contents["results"] == {
        "P01_01": [
            {"label": 'take "pan", big', "score": 0.375, "segment": [0, 2.0]},
            {"label": 'put "pan", big', "score": 0.75, "segment": [2, 3.0]},
        ]
    }


def test_rows_are_merged_when_the_label_changes(tmp_path: Path) -> None:
    writer = MergedRows(RowWriter(tmp_path / "rows.jsonl"))
    counts = []
    for each in [*ROWS, row(3, "take", 0.5), row(5, "take", 0.25)]:
        writer.add(each)
        path = tmp_path / "rows.jsonl"
        counts.append(len(path.read_text().splitlines()) if path.exists() else 0)
    writer.finish()
    assert counts == [0, 0, 1, 2, 3]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(each["start"], each["stop"], each["verb_probability"]) for each in rows] == [
        (0, 2.0, 0.375), (2, 3.0, 0.75), (3, 4.0, 0.5), (5, 6.0, 0.25)
    ]  # fmt: skip


def test_no_rows_are_no_file_of_rows(tmp_path: Path) -> None:
    write(MergedRows(RowWriter(tmp_path / "rows.csv")), [])
    assert not list(tmp_path.iterdir())
