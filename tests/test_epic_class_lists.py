"""The official lists are read as the metrics want them, and fetched once."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.hub
from helpers.http_server import HttpServer, http_server_fixture  # noqa: F401 -- a fixture

from data.segments import Segment
from epic.annotations import read_annotations
from epic.class_lists import CLASS_LISTS, count_actions, fetch_class_lists, read_class_list

FILES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "many_shot_verbs": ("verb_class,verb\n1,put\n0,take\n", (1, 0)),
    "many_shot_nouns": ("noun_class,noun\n3,tap\n4,plate\n", (3, 4)),
    "many_shot_actions": (
        'action_class,noun,noun_class,verb,verb_class\n"(12, 78)",top,78,turn-on,12\n',
        ((12, 78),),
    ),
    "tail_verbs": ("verb\n10\n12\n", (10, 12)),
    "tail_nouns": ("noun\n56\n", (56,)),
    "unseen_participants": ("participant_id\nP18\nP32\n", ("P18", "P32")),
}


@pytest.mark.essential
@pytest.mark.parametrize("name", FILES)
def test_official_layouts(tmp_path: Path, name: str) -> None:
    content, expected = FILES[name]
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    assert read_class_list(name, path) == expected
    assert read_class_list(name, str(path)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tail_verbs", "noun\n1\n", "must have the column verb, found: noun$"),
        ("tail_verbs", "", "must have the column verb, found: none$"),
        ("tail_verbs", "<html>Log in</html>\n", "must have the column verb, found: <html>"),
        ("tail_verbs", "verb\n", "a class such as 3 in each row of verb, but there are no rows$"),
        ("tail_verbs", "verb\n1\nput\n-2\n1.0\n", "line 3 has 'put'; line 4 has '-2'; line 5 has"),
        ("tail_verbs", "verb\n" + "x\n" * 9, "; line 6 has 'x'; and 4 more$"),
        ("many_shot_verbs", "verb,verb_class\nput\n", "line 2 has ''"),
        ("many_shot_actions", "action_class\n3\n", r"a pair such as \(12, 78\) .* line 2 has '3'"),
        ("unseen_participants", "participant_id,x\n,1\n", "an id such as P18 .* line 2 has ''"),
        ("tails", "verb\n1\n", "name must be one of many_shot_verbs, .*, got 'tails'"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_class_list(name, path)


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tail_verbs: .*nowhere\.csv: there is no "):
        read_class_list("tail_verbs", tmp_path / "nowhere.csv")


@pytest.fixture
def served(http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HttpServer:
    """Short lists on the local server, under the official files' names, and an empty cache."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    for dataset, lists in CLASS_LISTS.items():
        local = {}
        for name, official in lists.items():
            path = "/" + official.url.rsplit("/", 1)[1]
            http_server.replies[path] = FILES[name][0].encode()
            local[name] = replace(official, url=http_server.url(path))
        monkeypatch.setitem(CLASS_LISTS, dataset, local)
    return http_server


def test_lists_are_fetched_once(served: HttpServer, tmp_path: Path) -> None:
    for dataset in ("epic-kitchens-55", "EPIC-Kitchens", "epic-kitchens-100"):
        lists = fetch_class_lists(dataset)
        names = [name for name in FILES if ("many_shot" in name) != ("100" in dataset)]
        assert lists == {name: FILES[name][1] for name in names}
    assert len(served.requests) == 6
    folder = tmp_path / "hub" / "epic_kitchens_annotations"
    assert "EPIC_100_unseen_participant_ids_validation.csv" in os.listdir(folder)
    assert len(os.listdir(folder)) == 6, "all have names of their own"


def test_a_log_in_page_instead_of_a_list(served: HttpServer, tmp_path: Path) -> None:
    served.replies["/EPIC_100_tail_nouns.csv"] = b"<html>Log in to use this network</html>"
    with pytest.raises(ValueError, match=r"EPIC_100_tail_nouns.csv must .*; delete the file to"):
        fetch_class_lists("epic-kitchens-100")
    with pytest.raises(ValueError, match="dataset must be one of epic-kitchens-55, epic-k"):
        fetch_class_lists("kinetics")


def segments(*classes: tuple[int | None, int | None]) -> list[Segment]:
    return [
        Segment(str(row), "v", verb_class=verb, noun_class=noun)
        for row, (verb, noun) in enumerate(classes)
    ]


def test_counts_of_actions() -> None:
    counts = count_actions(segments((0, 2), (1, 0), (0, 2)), (2, 3))
    assert counts.tolist() == [[0, 0, 2], [1, 0, 0]]
    assert counts.dtype == np.int64


@pytest.mark.parametrize("classes", [(None, 1), (1, None), (2, 0), (0, 3), (-1, 0)])
def test_segments_that_cannot_be_counted(classes: tuple[int | None, int | None]) -> None:
    with pytest.raises(ValueError, match=rf"below \(2, 3\), 1 have {classes[0]} and {classes[1]}"):
        count_actions(segments((0, 0), classes), (2, 3))


def test_official_files(epic_test_data: Path) -> None:
    """Many-shot classes have more than 100 training instances, and their actions at least one."""
    folder = epic_test_data / "annotations"
    lists = {
        name: read_class_list(name, folder / official.url.rsplit("/", 1)[1])
        for of_dataset in CLASS_LISTS.values()
        for name, official in of_dataset.items()
    }
    assert [len(values) for values in lists.values()] == [26, 71, 819, 86, 228, 2]
    training = read_annotations(folder / "EPIC_train_action_labels.csv")
    counts = count_actions(training, (125, 352))
    verbs, nouns = (np.flatnonzero(counts.sum(axis) > 100).tolist() for axis in (1, 0))
    assert verbs == sorted(lists["many_shot_verbs"])
    assert nouns == sorted(lists["many_shot_nouns"])
    assert set(lists["many_shot_actions"]) == {
        (verb, noun) for verb in verbs for noun in nouns if counts[verb, noun]
    }
