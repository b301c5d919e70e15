"""The lock is had by one, given back whatever happens, and taken from the dead."""

import os
import threading
import time
from pathlib import Path

import pytest

from weights import lock as lock_module
from weights.lock import LockFile


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(lock_module, "_LOOKS_UNTIL_DEAD", 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.bin.lock"


def test_one_has_it_until_it_is_given_back(path: Path) -> None:
    with LockFile(path) as first, LockFile(path) as second:
        assert first.acquire()
        assert first.is_ours()
        assert not second.acquire()
        assert not second.is_ours()
        assert second.holder().startswith(f"process {os.getpid()} on ")
        first.__exit__()
        assert not path.exists()
        assert second.acquire()
    assert not path.exists()


def test_leaving_without_the_lock_leaves_it_to_its_owner(path: Path) -> None:
    with LockFile(path) as owner:
        assert owner.acquire()
        with LockFile(path) as other:
            assert not other.acquire()
        assert owner.is_ours()


@pytest.mark.parametrize("left", ["0123 process 4711 on node12\n....", ""])
def test_a_lock_without_signs_of_life_is_taken_away(path: Path, left: str) -> None:
    path.write_text(left)
    with LockFile(path) as lock:
        assert lock.holder() == ("process 4711 on node12" if left else "another process")
        looks = 0
        while not lock.acquire():
            lock.wait()
            looks += 1
        assert looks == 21, "one to see it, and twenty without a change"
    assert not path.exists()


def test_a_lock_with_signs_of_life_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_BEAT_SECONDS", 0.001)
    with LockFile(path) as owner, LockFile(path) as waiting:
        assert owner.acquire()
        for _ in range(3):  # in all, far more looks than show that an owner is dead
            for _ in range(15):
                waiting.wait()
            wait_for_a_sign_of_life(path)
        assert owner.is_ours()
        assert not waiting.acquire()


def wait_for_a_sign_of_life(path: Path) -> None:
    before = path.read_text()
    for _ in range(10_000):
        if path.read_text() != before:
            return
        time.sleep(0.001)
    pytest.fail("no sign of life for ten seconds")


def test_signs_of_life_keep_no_others_lock_alive(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_BEAT_SECONDS", 0.001)
    before = threading.active_count()
    with LockFile(path) as overtaken:
        assert overtaken.acquire()
        path.unlink()
        path.write_text("somebody else's")
        assert not overtaken.is_ours()
        while threading.active_count() > before:
            overtaken.wait()
        assert path.read_text() == "somebody else's"
    assert path.read_text() == "somebody else's"


def test_waiting_for_a_lock_that_is_gone_is_no_error(path: Path) -> None:
    with LockFile(path) as lock:
        for _ in range(30):
            lock.wait()
        assert lock.holder() == "another process"
        assert lock.acquire()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["before it is created", "created", "written"])
def test_nothing_is_left_when_taking_it_is_interrupted(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, when: str
) -> None:
    def interrupted(file: Path, mode: str, **options: object) -> object:
        if when != "before it is created":
            with open(file, mode, **options) as opened:
                if when == "written":
                    opened.write(lock._mark)
        raise error

    monkeypatch.setattr(lock_module, "open", interrupted, raising=False)
    with LockFile(path) as lock, pytest.raises(type(error)):
        lock.acquire()
    assert os.listdir(path.parent) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with LockFile(tmp_path / "none" / "a.lock") as lock, pytest.raises(FileNotFoundError):
        lock.acquire()


def test_many_threads_have_it_one_after_the_other(path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with LockFile(path) as lock:
            while not lock.acquire():
                lock.wait()
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert not path.exists()
