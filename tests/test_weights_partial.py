"""Partial files become the file or vanish; leftovers are used once and cleared away."""

import hashlib
import os
from pathlib import Path

import pytest

from weights.partial import PartialFile, find_partials

CONTENT = bytes(range(256))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "a[1].bin"


def leftover(destination: Path, content: bytes, version: str = "%22v1%22", number: int = 1) -> Path:
    path = destination.with_name(f"{destination.name}.{number:032x}.{version}.partial")
    path.write_bytes(content)
    return path


def test_what_was_written_is_published(destination: Path) -> None:
    with PartialFile(destination) as partial:
        partial.start('"v1"')
        partial.write(CONTENT[:100])
        assert not destination.exists()
        [found] = find_partials(destination)
        assert found.size == partial.received == 100
        assert found.version == partial.version == '"v1"'
        assert not partial.matches(SHA256)
        partial.write(CONTENT[100:])
        assert partial.sha256() == SHA256
        assert partial.matches(SHA256[:8].upper())
        partial.publish()
    assert destination.read_bytes() == CONTENT
    assert os.listdir(destination.parent) == [destination.name]


def test_what_was_not_published_vanishes(destination: Path) -> None:
    with PartialFile(destination) as partial:
        partial.start(None)
        partial.write(CONTENT)
        assert len(os.listdir(destination.parent)) == 1
    assert os.listdir(destination.parent) == []


def test_starting_anew_forgets_what_was_there(destination: Path) -> None:
    with PartialFile(destination) as partial:
        partial.start("one")
        partial.write(b"something else")
        partial.start("two")
        assert partial.received == 0
        assert len(find_partials(destination)) == 1
        partial.write(CONTENT)
        partial.publish()
    assert destination.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "version", ['"a/b.partial%20"', "Wed, 21 Oct 2015 07:28:00 GMT", '"\xe9\xff"', "..", "*"]
)
def test_any_version_survives_in_a_file_name(destination: Path, version: str) -> None:
    with PartialFile(destination) as partial:
        partial.start(version)
        [found] = find_partials(destination)
        assert found.version == partial.version == version
    assert os.listdir(destination.parent) == []


def test_a_version_too_long_for_a_file_name_is_left_out(destination: Path) -> None:
    with PartialFile(destination) as partial:
        partial.start('"' + 200 * "v" + '"')
        assert partial.version is None
        assert find_partials(destination)[0].version is None


def test_the_longest_leftover_is_continued_and_all_are_cleared_away(destination: Path) -> None:
    leftover(destination, CONTENT[:10], number=1)
    leftover(destination, CONTENT[:200], number=2)
    leftover(destination, b"another version", "v0", number=3)
    destination.with_name(f"{destination.name}.{4:032x}.partial").write_bytes(b"no version" * 100)
    with PartialFile(destination) as partial:
        partial.inherit(use=True)
        assert (partial.received, partial.version) == (200, '"v1"')
        assert len(find_partials(destination)) == 1
        partial.write(CONTENT[200:])
        assert partial.sha256() == SHA256
        partial.publish()
    assert destination.read_bytes() == CONTENT
    assert os.listdir(destination.parent) == [destination.name]


def test_leftovers_that_are_of_no_use_are_cleared_away(destination: Path) -> None:
    leftover(destination, CONTENT)
    with PartialFile(destination) as partial:
        partial.inherit(use=False)
        assert partial.received == 0
        assert partial.version is None
    assert os.listdir(destination.parent) == []


def test_other_files_are_left_alone(destination: Path) -> None:
    others = [
        destination,
        leftover(destination.with_name("a1.bin"), CONTENT),
        leftover(destination.with_name(f"{destination.name}.sig"), CONTENT),
        destination.with_name(f"{destination.name}.mine.partial"),
        destination.with_name(f"{destination.name}.lock"),
    ]
    for path in others:
        path.write_bytes(CONTENT)
    with PartialFile(destination) as partial:
        partial.inherit(use=True)
        assert partial.received == 0
    assert sorted(os.listdir(destination.parent)) == sorted(path.name for path in others)


def test_a_leftover_is_copied_since_its_writer_may_live(destination: Path) -> None:
    path = leftover(destination, CONTENT[:50])
    with open(path, "ab") as taken_for_dead, PartialFile(destination) as partial:
        partial.inherit(use=True)
        taken_for_dead.write(b"something else")
        taken_for_dead.flush()
        partial.write(CONTENT[50:])
        partial.publish()
    assert destination.read_bytes() == CONTENT


def test_a_leftover_that_cannot_be_read_is_no_error(destination: Path) -> None:
    path = destination.with_name(f"{destination.name}.{1:032x}.v1.partial")
    path.mkdir()
    with PartialFile(destination) as partial:
        partial.inherit(use=True)
        assert partial.received == 0
        assert partial.version is None
    assert os.listdir(destination.parent) == [path.name]
