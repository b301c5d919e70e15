"""Segments are read from official and other files, and malformed rows are listed."""

import csv
import pickle
import re
import sys
import types
from pathlib import Path

import pytest

from data.segments import Segment
from data.timestamps import nominal_rate, parse_timestamp, seconds_to_frame
from epic.annotations import read_annotations

TRAIN_55 = """\
uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,stop_frame,\
verb,verb_class,noun,noun_class,all_nouns,all_noun_classes
0,P01,P01_01,open door,00:00:00.14,00:00:03.37,8,202,open,2,door,8,['door'],[8]
4042,P02,P02_01,"no, the pot",00:01:50.50,00:01:51.00,6630,6660,do,92,mug,23,"['mug', 'x']",[23]
"""
TEST_55 = """\
uid,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame
1924,P01,P01_11,00:00:00.00,00:00:01.89,1,113
"""
VALIDATION_100 = """\
narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,\
start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes
P01_11_0,P01,P01_11,,00:00:00.00,00:00:01.89,1,113,take plate,take,0,plate,2,['plate'],[2]
"""
TEST_100 = """\
narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,\
start_frame,stop_frame
P01_101_0,P01,P01_101,00:00:02.851,00:00:02.86,00:00:03.87,143,193
"""


@pytest.fixture
def write(tmp_path: Path):
    """Write a file and give its path."""

    def write(content: str | bytes, name: str = "segments.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.essential
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            TRAIN_55,
            [
                Segment(
                    "0", "P01_01", "P01", (8, 202), (0.14, 3.37), "open door",
                    "open", 2, "door", 8,
                ),
                Segment(
                    "4042", "P02_01", "P02", (6630, 6660), (110.5, 111.0), "no, the pot",
                    "do", 92, "mug", 23,
                ),
            ],
        ),
        (TEST_55, [Segment("1924", "P01_11", "P01", (1, 113), (0.0, 1.89))]),
        (
            VALIDATION_100,
            [
                Segment(
                    "P01_11_0", "P01_11", "P01", (1, 113), (0.0, 1.89), "take plate",
                    "take", 0, "plate", 2,
                )
            ],
        ),
        (TEST_100, [Segment("P01_101_0", "P01_101", "P01", (143, 193), (2.86, 3.87))]),
    ],
    ids=["55 train", "55 test", "100 validation", "100 test"],
)  # fmt: skip
def test_official_columns(write, content: str, expected: list[Segment]) -> None:
    assert read_annotations(str(write(content))) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "path\na.mp4\nb.mp4\na.mp4\n",
            [("a.mp4#0", "a.mp4"), ("b.mp4#1", "b.mp4"), ("a.mp4#2", "a.mp4")],
        ),
        ("path,video_id,id\na.mp4,v,7\n", [("7", "a.mp4")]),
        ("video_id,start,stop\nv,1.5,00:01:02.5\n", [("v#0", "v", None, None, (1.5, 62.5))]),
        ("path,start_frame,stop_frame\nv,0,9\n", [("v#0", "v", None, (0, 9))]),
        ("path,start_frame,stop_frame\nv,9,9.0\n", [("v#0", "v", None, (9, 9))]),
        ("path,start,stop,start_frame,stop_frame\nv,,,,\n", [("v#0", "v")]),
        ("path,participant\nv,Ann\nw,\n", [("v#0", "v", "Ann"), ("w#1", "w")]),
    ],
)
def test_other_data(write, content: str, expected: list[tuple]) -> None:
    assert read_annotations(write(content)) == [Segment(*values) for values in expected]


@pytest.mark.parametrize(
    ("content", "video", "frames", "seconds"),
    [
        ("start,stop\nP01_11,16.4,20\n", "P01_11", (983, 1200), (16.4, 20.0)),
        ("start,stop\nP02_101,0,00:00:02\n", "P02_101", (1, 100), (0.0, 2.0)),
        ("start,stop,start_frame,stop_frame\nP01_11,1,2,7,9\n", "P01_11", (7, 9), (1.0, 2.0)),
        ("start_frame,stop_frame\nP01_11,7,9\n", "P01_11", (7, 9), None),
    ],
)
def test_frames_are_computed_where_they_are_missing(write, content, video, frames, seconds) -> None:
    (segment,) = read_annotations(write(f"video_id,{content}"))
    assert segment == Segment(f"{video}#0", video, video[:3], frames, seconds)


def test_labels_of_other_data(write) -> None:
    both = read_annotations(write("label,path,label_class\nrunning,a.mp4,3.0\n"))
    assert both == [Segment("a.mp4#0", "a.mp4", label="running", label_class=3)]
    names = read_annotations(write("noun,verb,path\ncup,take,a.mp4\n"))
    assert names == [Segment("a.mp4#0", "a.mp4", verb="take", noun="cup")]


def test_what_spreadsheets_and_windows_do_to_files(write) -> None:
    rows = [" Path , START,stop,,id", "", "jalapeño.mp4, 1 ,2,,x", ",,,,", "b.mp4,,,,y", ""]
    segments = read_annotations(write(b"\xef\xbb\xbf" + "\r\n".join(rows).encode()))
    assert segments == [
        Segment("x", "jalapeño.mp4", seconds=(1.0, 2.0)),
        Segment("y", "b.mp4"),
    ]


def test_columns_and_rows_in_any_order(write) -> None:
    rows = list(csv.reader(TRAIN_55.splitlines()))
    shuffled = [[*reversed(row), "more"] for row in (rows[0], rows[2], rows[1])]
    path = write("")
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(shuffled)
    assert read_annotations(path) == read_annotations(write(TRAIN_55, "other.csv"))[::-1]


def test_times_that_may_have_been_meant_are_told(write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("path,t_start,t_stop\na.mp4,1,2\n")
    assert read_annotations(path) == [Segment("a.mp4#0", "a.mp4")]
    assert caplog.messages == [f"{path}: whole clips; ignored columns: t_start, t_stop"]
    caplog.clear()
    for silent in ("path,label,\na.mp4,x,1\n", "path,start,stop,note\na.mp4,1,2,x\n", TRAIN_55):
        read_annotations(write(silent))
    assert not caplog.messages


COLUMNS = "id,path,start,stop,start_frame,stop_frame,verb,verb_class"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (",a.mp4,1,2,1,2,take,0", "id is empty"),
        ("1,,1,2,1,2,take,0", "path is empty"),
        ("1,a.mp4,1,2,1,2,,0", "verb is empty"),
        ("1,a.mp4,1,2,1,2,take,", "verb_class is empty"),
        ("1,a.mp4,1,2,1,2,take,-1", "verb_class: '-1' is no integer of at least 0"),
        ("1,a.mp4,1,2,1,2,take,1.5", "verb_class: '1.5' is no integer of at least 0"),
        ("1,a.mp4,1,2,1,2,take,nan", "verb_class: 'nan' is no integer of at least 0"),
        ("1,a.mp4,1,2,x,2,take,0", "start_frame: 'x' is no integer of at least 0"),
        ("1,a.mp4,x,2,1,2,take,0", "start: 'x' is neither a number of seconds nor HH:MM:SS.ss"),
        ("1,a.mp4,-1,2,1,2,take,0", "start: '-1' is neither a number of seconds nor HH:MM:SS.ss"),
        ("1,a.mp4,2,1,1,2,take,0", "stop 1.0 is before start 2.0"),
        ("1,a.mp4,2,2,1,2,take,0", "starts and stops at 2.0 seconds"),
        ("1,a.mp4,1,2,2,1,take,0", "stop_frame 1 is before start_frame 2"),
        ("1,a.mp4,1,,1,2,take,0", "start and stop must both be given, or neither"),
        ("1,a.mp4,1,2,,2,take,0", "start_frame and stop_frame must both be given, or neither"),
        ("1,a.mp4,1,2,1,2,take", "has 7 cells, but 8 columns"),
        ("1,a.mp4,1,2,1,2,take,0,0", "has 9 cells, but 8 columns"),
        ("first,a.mp4,1,2,1,2,take,0", "the id first is that of line 2 too"),
    ],
)
def test_malformed_rows(write, row: str, fault: str) -> None:
    good = "first,a.mp4,1,2,1,2,take,0"
    path = write(f"{COLUMNS}\n{good}\n\n{row}\n")
    with pytest.raises(ValueError, match="malformed") as error:
        read_annotations(path)
    assert str(error.value) == f"{path}: 1 of 2 rows are malformed:\n  line 4: {fault}"


def test_malformed_rows_are_listed_together(write) -> None:
    rows = ["a.mp4,5,4", "a.mp4,0,1"] + ["a.mp4,x,1"] * 1200
    with pytest.raises(ValueError, match=r"1,201 of 1,202 rows are malformed") as error:
        read_annotations(write("\n".join(["path,start,stop", *rows])))
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 11
    assert lines[0] == "  line 2: stop 4.0 is before start 5.0"
    assert lines[1].startswith("  line 4: start: 'x' is neither")
    assert lines[-1] == "  and 1,191 more"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found: none$"),
        ("path,start\n\n", "has no rows below the names of its columns"),
        ("a.mp4,0,1\n", "column path or video_id, found: a.mp4, 0, 1$"),
        ("path;start;stop\na.mp4;0;1\n", "separated by commas, not by ';'"),
        ("path\tstart\na.mp4\t0\n", r"separated by commas, not by '\\t'"),
        ("verb_id,class_key,verbs\n0,take,['take']\n", "looks like the names of classes"),
        ("id,key,instances,category\n0,tap,['tap'],x\n", "looks like the names of classes"),
        ("verb\n10\n", "looks like a list of classes or participants"),
        ("action_class,noun,noun_class,verb,verb_class\n", "looks like a list of classes"),
        ("participant_id\nP18\n", "looks like a list of classes or participants"),
        ("video_id,duration,fps,resolution\nP01_01,1,2,3\n", "looks like a list of videos"),
        ("noun_class,noun,participant_id,video_id,frame,bounding_boxes\n", "list of objects"),
        ("path,start,start\n", "several columns start: remove all but one"),
        ('path\n"a.mp4\nb.mp4\n', "not a UTF-8 CSV file: unexpected end of data, line 3"),
        (b"path\n\xff\xfe\n", "not a UTF-8 CSV file"),
        (b"PK\x03\x04\x00\xff", "not a UTF-8 CSV file"),
    ],
)
def test_files_that_list_no_segments(write, content: str | bytes, message: str) -> None:
    path = write(content)
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("name", ["missing.csv", "missing.pkl", "."])
def test_files_that_do_not_exist(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file") as error:
        read_annotations(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))


class FileWriter:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_not_read_untrusted(write, tmp_path: Path) -> None:
    path = write(pickle.dumps(FileWriter(tmp_path / "ran")), "EPIC_100_train.pkl")
    with pytest.raises(ValueError, match=r"use EPIC_100_train\.csv, .* or pass trust=True"):
        read_annotations(path)
    assert not (tmp_path / "ran").exists()


def test_pandas_is_asked_for(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install pandas, or use a\.csv"):
        read_annotations(write(b"", "a.PKL"), trust=True)


def test_a_pickle_is_read_as_its_csv(write, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for pandas, of which two functions are used."""
    table = types.SimpleNamespace(to_csv=lambda: VALIDATION_100)
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(read_pickle=lambda _: table))
    path = write(b"", "a.pkl")
    assert read_annotations(path, trust=True) == read_annotations(write(VALIDATION_100))


@pytest.mark.parametrize("index", ["uid", "narration_id"])
def test_pickles_of_pandas(write, index: str) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    path = write({"uid": TRAIN_55, "narration_id": VALIDATION_100}[index])
    frame = pandas.read_csv(path, index_col=index)
    frame["all_nouns"] = frame["all_nouns"].map(lambda _: ["a list"])
    frame.to_pickle(path.with_suffix(".pkl"))
    assert read_annotations(path.with_suffix(".pkl"), trust=True) == read_annotations(path)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1])])
def test_other_pickles(write, content: bytes) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    with pytest.raises(ValueError, match=r"no table that pandas .* reads, use a\.csv"):
        read_annotations(write(content, "a.pkl"), trust=True)


OFFICIAL = {
    "EPIC_train_action_labels.csv": 28_472,
    "EPIC_test_s1_timestamps.csv": 8_047,
    "EPIC_100_validation.csv": 9_668,
    "EPIC_100_test_timestamps.csv": 13_092,
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files(epic_test_data: Path, name: str) -> None:
    path = epic_test_data / "annotations" / name
    segments = read_annotations(path)
    assert len(segments) == OFFICIAL[name]
    with open(path, encoding="utf-8", newline="") as file:
        for segment, row in zip(segments, csv.DictReader(file), strict=True):
            assert segment.id == row.get("narration_id", row.get("uid"))
            assert (segment.video, segment.participant) == (row["video_id"], row["participant_id"])
            assert segment.frames == (int(row["start_frame"]), int(row["stop_frame"]))
            # The format's rounding, in every row.
            times = (row["start_timestamp"], row["stop_timestamp"])
            assert segment.seconds == tuple(map(parse_timestamp, times))
            rate = nominal_rate(segment.video)
            assert segment.frames == tuple(seconds_to_frame(s, rate) for s in segment.seconds)
            for field in ("verb", "noun", "narration"):
                assert getattr(segment, field) == row.get(field)
                classes = getattr(segment, f"{field}_class", None)
                assert classes == (int(row[f"{field}_class"]) if f"{field}_class" in row else None)


def test_split_by_participants(epic_test_data: Path) -> None:
    """As the docstring has it."""
    path = epic_test_data / "annotations" / "EPIC_train_action_labels.csv"
    segments = read_annotations(path)
    assert sum(segment.participant <= "P25" for segment in segments) == 23_191
    assert sum(segment.participant > "P25" for segment in segments) == 5_281


@pytest.mark.parametrize(
    "name",
    [
        "EPIC_verb_classes.csv",
        "EPIC_100_noun_classes.csv",
        "EPIC_many_shot_actions.csv",
        "EPIC_100_tail_verbs.csv",
        "EPIC_100_unseen_participant_ids_validation.csv",
        "EPIC_100_video_info.csv",
    ],
)
def test_other_official_files(epic_test_data: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(name)} must .* this looks like"):
        read_annotations(epic_test_data / "annotations" / name)
