"""Files are read as what they are, and written at once or not at all."""

import io
import os
import random
import stat
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from helpers.original_format import (
    is_legacy,
    training_options,
    write,
)
from helpers.other_projects import packages

from checkpoints.errors import CheckpointError
from checkpoints.files import read_file, write_file

CONTENTS = {"epoch": 3, "state_dict": OrderedDict(weight=torch.arange(6.0).reshape(2, 3))}

both_serialisations = pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])


@both_serialisations
@pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda:7", "mps"])
def test_weights_arrive_on_the_cpu(tmp_path: Path, legacy: bool, device: str) -> None:
    path = write(CONTENTS, tmp_path / "model.pth.tar", legacy=legacy, device=device)
    assert (device.encode() in path.read_bytes()) or device == "cpu", "the file claims otherwise"
    contents = read_file(str(path))
    assert contents["epoch"] == 3
    assert contents["state_dict"]["weight"].device == torch.device("cpu")
    torch.testing.assert_close(contents["state_dict"], CONTENTS["state_dict"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(0 bytes\) is not a checkpoint, or is damaged"),
        (b"epoch, loss\n1, 0.5\n", "is not a checkpoint"),
        (b"<!DOCTYPE html>\n<html>404</html>\n", "is not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a checkpoint"),
        (b"PK\x03\x04" + bytes(1000), "is not a checkpoint"),
        (b"\x80\x04\x95", "is not a checkpoint"),
    ],
    ids=["empty", "text", "HTML", "PNG", "zip in name only", "pickle of another protocol"],
)
@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_of_another_kind(tmp_path: Path, content: bytes, message: str, trust: bool) -> None:
    path = tmp_path / "model.pth.tar"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_file(path, trust=trust)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value), "that is torch's option, not ours"


def test_archives_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        read_file(path)


@pytest.mark.essential
def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no such checkpoint file: {tmp_path / 'none'}"):
        read_file(tmp_path / "none")
    with pytest.raises(CheckpointError, match=f"{tmp_path} is not a file"):
        read_file(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(CONTENTS, tmp_path / "model.pth")
    path.chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        read_file(path)


@both_serialisations
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, legacy: bool) -> None:
    whole = write({**CONTENTS, "args": training_options()}, tmp_path / "whole", legacy=legacy)
    content = whole.read_bytes()
    path = tmp_path / "damaged"
    generator = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            read_file(path)
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_a_deflated_archive_holds_the_same_weights(tmp_path: Path) -> None:
    """Repacked by an archiver; torch stores without compression, and maps files on that ground."""
    plain = write(CONTENTS, tmp_path / "plain", legacy=False)
    path = tmp_path / "deflated"
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    torch.testing.assert_close(read_file(path)["state_dict"], CONTENTS["state_dict"])


def test_a_legacy_file_that_ends_like_an_archive(tmp_path: Path) -> None:
    path = write(CONTENTS, tmp_path / "file")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "appended")
    assert zipfile.is_zipfile(path)
    assert is_legacy(path)
    assert read_file(path)["epoch"] == 3


@both_serialisations
def test_the_file_may_change_while_the_weights_live(tmp_path: Path, legacy: bool) -> None:
    """Mapped into memory they would follow the file, or take the process with them."""
    weight = torch.arange(2.0**16)
    path = write({"weight": weight}, tmp_path / "file", legacy=legacy)
    loaded = read_file(path)["weight"]
    path.write_bytes(b"")
    assert torch.equal(loaded, weight)


@pytest.mark.essential
@both_serialisations
def test_what_is_written_is_read(tmp_path: Path, legacy: bool) -> None:
    path = write_file(CONTENTS, str(tmp_path / "model.pth.tar"), legacy=legacy)
    assert path == tmp_path / "model.pth.tar"
    assert is_legacy(path) == legacy
    torch.testing.assert_close(read_file(path)["state_dict"], CONTENTS["state_dict"])
    assert os.listdir(tmp_path) == ["model.pth.tar"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch, error) -> None:
    path = write_file(CONTENTS, tmp_path / "model.pth")
    old = path.read_bytes()

    def save(contents: object, file: io.BufferedWriter, **_: object) -> None:
        file.write(b"half a file")
        raise error

    monkeypatch.setattr(torch, "save", save)
    for name in ("model.pth", "new.pth"):
        with pytest.raises(type(error) if isinstance(error, OSError) else error):
            write_file({"epoch": 4}, tmp_path / name)
    assert os.listdir(tmp_path) == ["model.pth"]
    assert path.read_bytes() == old


def test_what_cannot_be_pickled_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_file(CONTENTS, tmp_path / "model.pth")
    for legacy in (False, True):
        with pytest.raises(Exception, match=r"(?i)pickle"):
            write_file({**CONTENTS, "evil": lambda: None}, path, legacy=legacy)
    assert os.listdir(tmp_path) == ["model.pth"]
    assert read_file(path)["epoch"] == 3


@both_serialisations
def test_what_is_nested_too_deeply_leaves_the_old_file(tmp_path: Path, legacy: bool) -> None:
    path = write_file(CONTENTS, tmp_path / "model.pth")
    deep: list[object] = []
    for _ in range(10**5):
        deep = [deep]
    with pytest.raises(CheckpointError, match="nested too deeply"):
        write_file({"deep": deep}, path, legacy=legacy)
    assert os.listdir(tmp_path) == ["model.pth"]
    assert read_file(path)["epoch"] == 3


def test_a_failing_rename_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = write_file(CONTENTS, tmp_path / "model.pth")

    def replace(*_: object) -> None:
        raise PermissionError("the file is in use")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError):
        write_file({"epoch": 4}, path)
    assert os.listdir(tmp_path) == ["model.pth"]
    assert read_file(path)["epoch"] == 3


def test_destinations_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no such folder: {tmp_path / 'none'}"):
        write_file(CONTENTS, tmp_path / "none" / "model.pth")
    with pytest.raises(IsADirectoryError, match=f"got a folder: {tmp_path}"):
        write_file(CONTENTS, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = write_file(CONTENTS, tmp_path / "model.pth")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    contents = [{"number": i, "weight": torch.full((1000,), float(i))} for i in range(6)]
    threads = [threading.Thread(target=write_file, args=(c, path)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == ["model.pth"]
    loaded = read_file(path)
    assert loaded["weight"].unique().item() == loaded["number"]


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>", "a web page, not the file"),
        (b"\xff\xd8\xff\xe0", "neither a file of torch.save nor of safetensors"),
        (b"PK\x03\x04" + bytes(100), "cut short or damaged: copy or fetch it again"),
    ],
)
def test_what_a_wrong_file_is(tmp_path: Path, content: bytes, hint: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=hint):
        read_file(path)


def test_trusted_files_with_modules_that_are_missing(tmp_path: Path) -> None:
    with packages({"missing.module.Thing": object}) as classes:
        path = write({"thing": classes["Thing"]()}, tmp_path / "file")
    with pytest.raises(CheckpointError, match="of the module 'missing', which cannot be imported"):
        read_file(path, trust=True)


def test_a_damaged_pickle_is_refused(tmp_path: Path) -> None:
    """A bit that flipped would make another model of the file; torch compares no check sums."""
    path = write({"segment_count": 4}, tmp_path / "file", legacy=False)
    content = path.read_bytes()
    assert content.count(b"K\x04") == 1
    path.write_bytes(content.replace(b"K\x04", b"K\x07"))
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        read_file(path)


@pytest.mark.parametrize("legacy", [True, False])
def test_what_is_refused_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    path = write({"evil": eval}, tmp_path / "file", legacy=legacy)
    load, calls = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **k: [calls.append(a), load(*a, **k)][1])
    with pytest.raises(CheckpointError, match="holds 'eval'"):
        read_file(path)
    assert len(calls) == 1


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """torch.save fails with an error of its own when it cannot finish its archive."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*a\.pth\.tar"):
            write_file({"weights": torch.zeros(2**18)}, tmp_path / "a.pth.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
