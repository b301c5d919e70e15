"""Class names are read from both official layouts, by id, and fetched once."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch.hub
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from epic.classes import (
    ClassNames,
    fetch_class_names,
    read_class_instances,
    read_class_names,
)
from epic.datasets import DATASETS
from weights.download import DownloadError

VERBS_55 = "verb_id,class_key,verbs\n0,take,\"['take', 'grab']\"\n1,put,['put']\n"
NOUNS_55 = "noun_id,class_key,nouns\n0,Nothing,['Nothing']\n1,pan,['pan']\n2,pan:dust,['d']\n"
VERBS_100 = "id,key,instances,category\n0,take,\"['take', 'get']\",retrieve\n1,put,['put'],leave\n"
NOUNS_100 = "id,key,instances,category\n0,tap,\"['tap', 'tap:hot']\",appliances\n"


@pytest.fixture
def write(tmp_path: Path):
    """Write a file and give its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.essential
@pytest.mark.parametrize(
    ("verbs", "nouns", "expected"),
    [
        (VERBS_55, NOUNS_55, ClassNames(("take", "put"), ("Nothing", "pan", "pan:dust"))),
        (VERBS_100, NOUNS_100, ClassNames(("take", "put"), ("tap",))),
    ],
    ids=["EPIC-KITCHENS-55", "EPIC-KITCHENS-100"],
)
def test_official_layouts(write, verbs: str, nouns: str, expected: ClassNames) -> None:
    names = read_class_names(write("verbs.csv", verbs), str(write("nouns.csv", nouns)))
    assert names == expected
    assert names.num_class == (len(expected.verbs), len(expected.nouns))


def test_the_id_counts_and_not_the_row(write) -> None:
    shuffled = "key,category,id\nput,leave,1\nwash,clean,2\ntake,retrieve,0\n"
    names = read_class_names(write("verbs.csv", shuffled), write("nouns.csv", NOUNS_100))
    assert names.verbs == ("take", "put", "wash")


def test_what_spreadsheets_and_windows_do_to_files(write) -> None:
    content = b"\xef\xbb\xbf" + VERBS_55.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    nouns = "noun_id,class_key,nouns\n0,jalapeño,['jalapeño']"  # and no newline at the end
    names = read_class_names(write("verbs.csv", content), write("nouns.csv", nouns))
    assert names == ClassNames(("take", "put"), ("jalapeño",))


HEADER = "verb_id,class_key,verbs\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found: none"),
        (
            NOUNS_55,
            "columns verb_id and class_key or id and key, found: noun_id, class_key, nouns",
        ),
        ("verb_id;class_key\n0;take\n", "found: verb_id;class_key$"),
        ("0,take\n1,put\n", "found: 0, take$"),
        ("<!DOCTYPE html><html>\n", "found: <!doctype html><html>$"),
        ("x" * 10_000, "found: x{200}$"),
        (HEADER + '0,"take,x\n1,put,x\n', "not a UTF-8 CSV file: unexpected end of data, line 3"),
        ("verb_id,class_key,Class_Key\n", "several columns class_key: remove all but one"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not a UTF-8 CSV file"),
        (HEADER.encode() + "0,jalapeño,x\n".encode("latin-1"), "not a UTF-8 CSV file"),
        (HEADER + '0,"' + "x" * 200_000 + '",\n', "not a UTF-8 CSV file: field larger"),
        (HEADER, "0 classes, .*without gaps, but 0 is missing"),
        (HEADER + "0,take,x\n0,put,x\n", "line 3: verb_id 0 occurs twice"),
        (HEADER + "0,take,x\n2,put,x\n", "2 classes, .*without gaps, but 1 is missing"),
        (HEADER + "1,take,x\n2,put,x\n", "without gaps, but 0 is missing"),
        (HEADER + "0,take,x\n-1,put,x\n", "line 3: verb_id must be a number .*got '-1' and 'put'"),
        (HEADER + "0,take,x\nput,1,x\n", "line 3: .*got 'put' and '1'"),
        (HEADER + "0,,x\n", "line 2: .*got '0' and ''"),
        (HEADER + "0\n", "line 2: .*got '0' and ''"),
    ],
)
def test_bad_files_are_named(write, content: str | bytes, message: str) -> None:
    verbs, nouns = write("verbs.csv", content), write("nouns.csv", NOUNS_55)
    with pytest.raises(ValueError, match=message) as error:
        read_class_names(verbs, nouns)
    assert str(error.value).startswith(f"verb_csv: {verbs}")


def test_the_wrong_one_of_two_files_is_named(write) -> None:
    verbs = write("verbs.csv", VERBS_55)
    with pytest.raises(ValueError, match=r"noun_csv: .*noun_id and class_key or id and key, found"):
        read_class_names(verbs, verbs)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_files_that_do_not_exist(write, tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file") as error:
        read_class_names(write("verbs.csv", VERBS_55), tmp_path / name)
    assert str(error.value).startswith(f"noun_csv: {tmp_path / name}")


def test_verbs_and_nouns_of_each_class(write) -> None:
    verbs = (
        "verb_id,class_key,verbs\n1,finish,\"['end', 'do', 'end']\"\n2,stir,['mix']\n0,do,['do']\n"
    )
    instances = read_class_instances(write("verbs.csv", verbs), write("nouns.csv", NOUNS_55))
    assert instances[0] == {"do": 0, "finish": 1, "end": 1, "stir": 2, "mix": 2}
    assert instances[1] == {"Nothing": 0, "pan": 1, "pan:dust": 2, "d": 2}


@pytest.mark.parametrize(
    ("nouns", "got"),
    [
        (NOUNS_100, ""),
        ("noun_id,class_key\n0,tap\n", ""),
        ("noun_id,class_key,nouns\n0,tap,tap\n", "tap"),
        ("noun_id,class_key,nouns\n0,tap,[1]\n", "[1]"),
        ("noun_id,class_key,nouns\n0,tap,['tap'\n", "['tap'"),
        ("noun_id,class_key,nouns\n0,tap,[{[]}]\n", "[{[]}]"),
    ],
)
def test_classes_without_lists(write, nouns: str, got: str) -> None:
    with pytest.raises(ValueError, match="class 0: the column nouns of EPIC-KITCHENS-55") as error:
        read_class_instances(write("verbs.csv", VERBS_55), write("nouns.csv", nouns))
    assert str(error.value).startswith("noun_csv: ")
    assert str(error.value).endswith(f"got {got!r}")


def test_datasets() -> None:
    assert DATASETS["epic-kitchens-55"].num_class == (125, 352)
    assert DATASETS["epic-kitchens-100"].num_class == (97, 300)
    urls = [url for d in DATASETS.values() for url in (d.verb_url, d.noun_url)]
    assert len({url.rsplit("/", 1)[1] for url in urls}) == 4, "they share one folder"


@pytest.fixture
def toy_dataset(
    http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> HttpServer:
    """EPIC-KITCHENS-55 with two verbs and three nouns, on the local server, and an empty cache."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    http_server.replies = {"/v.csv": VERBS_55.encode(), "/n.csv": NOUNS_55.encode()}
    toy = replace(
        DATASETS["epic-kitchens-55"],
        num_class=(2, 3),
        verb_url=http_server.url("/v.csv"),
        noun_url=http_server.url("/n.csv"),
    )
    monkeypatch.setitem(DATASETS, "epic-kitchens-55", toy)
    return http_server


def test_names_are_fetched_once(
    toy_dataset: HttpServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = ClassNames(("take", "put"), ("Nothing", "pan", "pan:dust"))
    assert fetch_class_names() == expected
    assert fetch_class_names("EPIC-Kitchens-55") == fetch_class_names("epic-kitchens") == expected
    assert toy_dataset.requests == ["/v.csv", "/n.csv"]
    assert sorted(os.listdir(tmp_path / "hub" / "epic_kitchens_annotations")) == ["n.csv", "v.csv"]
    assert capfd.readouterr() == ("", "")


def test_files_beside_the_annotations_are_not_fetched(
    toy_dataset: HttpServer, tmp_path: Path
) -> None:
    (tmp_path / "v.csv").write_text(VERBS_55.replace("take", "own"))
    folders = [tmp_path / "none", tmp_path]
    assert fetch_class_names(folders=folders).verbs == ("own", "put")
    assert toy_dataset.requests == ["/n.csv"]


def test_names_that_cannot_be_fetched(toy_dataset: HttpServer, tmp_path: Path) -> None:
    del toy_dataset.replies["/n.csv"]
    wanted = tmp_path / "hub" / "epic_kitchens_annotations" / "n.csv"
    with pytest.raises(DownloadError, match="404") as error:
        fetch_class_names()
    assert str(wanted) in str(error.value)
    wanted.write_text(NOUNS_55)
    assert fetch_class_names().nouns == ("Nothing", "pan", "pan:dust")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>Log in to use this network</html>", "n.csv must have the columns noun_id"),
        (NOUNS_55.encode()[: NOUNS_55.index("2,")], r"hold \(2, 2\) .* has \(2, 3\)"),
    ],
    ids=["a log-in page", "fewer classes"],
)
def test_fetched_files_that_are_something_else(
    toy_dataset: HttpServer, tmp_path: Path, body: bytes, message: str
) -> None:
    toy_dataset.replies["/n.csv"] = body
    folder = tmp_path / "hub" / "epic_kitchens_annotations"
    with pytest.raises(ValueError, match=f"{folder.name}.*{message}.*; delete what is wrong to"):
        fetch_class_names()
    toy_dataset.replies["/n.csv"] = NOUNS_55.encode()
    (folder / "n.csv").unlink()  # as advised
    assert len(fetch_class_names().nouns) == 3


def test_an_unknown_dataset_is_not_fetched() -> None:
    known = "epic-kitchens-55, epic-kitchens-100"
    with pytest.raises(ValueError, match=f"dataset must be one of {known}, got 'kinetics'"):
        fetch_class_names("kinetics")


@pytest.mark.parametrize(
    ("dataset", "files", "verbs", "nouns"),
    [
        ("epic-kitchens-55", "EPIC", ["take", "put"], ["Nothing", "pan"]),
        ("epic-kitchens-100", "EPIC_100", ["take", "put"], ["tap", "spoon"]),
    ],
)
def test_official_files(
    epic_test_data: Path, dataset: str, files: str, verbs: list[str], nouns: list[str]
) -> None:
    folder = epic_test_data / "annotations"
    names = read_class_names(
        folder / f"{files}_verb_classes.csv", folder / f"{files}_noun_classes.csv"
    )
    assert names.num_class == DATASETS[dataset].num_class
    assert list(names.verbs[:2]) == verbs
    assert list(names.nouns[:2]) == nouns


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_official_servers_files(
    epic_test_data: Path, dataset: str, http_server: HttpServer, monkeypatch, tmp_path: Path
) -> None:
    """The last parts of the URLs are the official files' names."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    official = DATASETS[dataset]
    urls = {}
    for field in ("verb_url", "noun_url"):
        name = "/" + getattr(official, field).rsplit("/", 1)[1]
        http_server.replies[name] = (epic_test_data / "annotations" / name[1:]).read_bytes()
        urls[field] = http_server.url(name)
    monkeypatch.setitem(DATASETS, dataset, replace(official, **urls))
    assert fetch_class_names(dataset).num_class == official.num_class
