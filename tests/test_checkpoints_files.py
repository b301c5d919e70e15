"""Files of torch.save are read without running code, and written at once or not at all."""

import argparse
import builtins
import copyreg
import io
import os
import random
import stat
import subprocess
import threading
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from helpers.original_format import (
    WINDOWS_PATH,
    Global,
    is_legacy,
    training_options,
    write,
    write_renamed,
)
from helpers.other_projects import packages

from checkpoints import files
from checkpoints.errors import CheckpointError
from checkpoints.files import read_file, write_file

CONTENTS = {"epoch": 3, "state_dict": OrderedDict(weight=torch.arange(6.0).reshape(2, 3))}
NUMPY_SCALAR = np.float64(0).__reduce__()[0]
NUMPY_MODULE = NUMPY_SCALAR.__module__
# Where they say that they are from depends on the version of Python.
POSIX_PATH = f"{PosixPath.__module__}\nPosixPath"
OPEN = f"{open.__module__}.open"

both_serialisations = pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])


@pytest.fixture
def allow_list():
    """The process's allow-list, put back as it was."""
    before = torch.serialization.get_safe_globals()
    yield torch.serialization.get_safe_globals
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


@both_serialisations
@pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda:7", "mps"])
def test_weights_arrive_on_the_cpu(tmp_path: Path, legacy: bool, device: str) -> None:
    path = write(CONTENTS, tmp_path / "model.pth.tar", legacy=legacy, device=device)
    assert (device.encode() in path.read_bytes()) or device == "cpu", "the file claims otherwise"
    contents = read_file(str(path))
    assert contents["epoch"] == 3
    assert contents["state_dict"]["weight"].device == torch.device("cpu")
    torch.testing.assert_close(contents["state_dict"], CONTENTS["state_dict"])


@pytest.mark.essential
@both_serialisations
def test_training_options_of_published_files(tmp_path: Path, legacy: bool) -> None:
    contents = {"args": training_options(where=WINDOWS_PATH)}
    args = read_file(write(contents, tmp_path / "model.pth", legacy=legacy))["args"]
    assert type(args) is Namespace
    assert vars(args) == vars(
        training_options(
            train_list=PurePosixPath("/data/train.pkl"),
            crop=(224, PurePosixPath("crops")),
            where=PureWindowsPath("C:\\", "data"),
        )
    )
    assert type(args.learning_rate) is float
    assert type(args.batch_size) is int
    assert type(args.partial_bn) is bool
    assert type(args.run) is str


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (POSIX_PATH, "pathlib\nPosixPath"),
        (POSIX_PATH, "pathlib._local\nPosixPath"),  # Python 3.13
        (POSIX_PATH, "pathlib\nPurePosixPath"),
        (f"{NUMPY_MODULE}\nscalar", "numpy.core.multiarray\nscalar"),  # NumPy 1
        (f"{NUMPY_MODULE}\nscalar", "numpy._core.multiarray\nscalar"),  # NumPy 2
    ],
)
def test_names_of_other_versions(tmp_path: Path, old: str, new: str) -> None:
    contents = {"path": Path("a/b"), "number": np.float64(0.5)}
    loaded = read_file(write_renamed(contents, tmp_path / "model.pth", old, new))
    assert loaded == {"path": PurePosixPath("a/b"), "number": 0.5}


@pytest.mark.parametrize("code", "?bBhHiIlLqQefdFD")
def test_kinds_of_numpy_scalars(tmp_path: Path, code: str) -> None:
    value = np.dtype(code).type(1)
    loaded = read_file(write([value], tmp_path / "file"))[0]
    assert (loaded, type(loaded)) == (value.item(), type(value.item()))


@pytest.mark.parametrize("value", [np.str_("häuser"), np.bytes_(b"ab"), np.float64("nan")])
def test_other_numpy_scalars(tmp_path: Path, value: np.generic) -> None:
    loaded = read_file(write([value], tmp_path / "file"))[0]
    assert type(loaded) is type(value.item())
    assert str(loaded) == str(value.item())


def test_byte_order_of_numpy_scalars(tmp_path: Path) -> None:
    big = np.dtype(">i4")
    value = Global(NUMPY_SCALAR, big, np.array(77, big).tobytes())
    assert read_file(write([value], tmp_path / "file")) == [77]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        # A size that NumPy would believe, and then read or write anywhere in memory.
        (
            Global(np.dtype, "S5", False, True, state=(3, "|", None, None, None, -1, 1, 0)),
            "smaller",
        ),
        (Global(np.dtype, "S900000000"), "unknown kind"),
        (Global(np.dtype, "O"), "unknown kind"),
        (Global(np.dtype, "i8,O"), "unknown kind"),
        (Global(np.dtype, Namespace()), "string"),
        (
            Global(np.dtype, "f8", state=(3, "O,", None, None, None, -1, -1, 0)),
            "unknown byte order",
        ),
        ("O", "no attribute 'dtype'"),
    ],
)
def test_forged_numpy_types(tmp_path: Path, kind: Global, message: str) -> None:
    path = write({"args": Global(NUMPY_SCALAR, kind, b"abc")}, tmp_path / "file")
    with pytest.raises(CheckpointError, match=message):
        read_file(path)


PAYLOADS = {
    "posix.system": lambda marker: Global(os.system, f"touch '{marker}'"),
    "eval": lambda marker: Global(eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: Global(exec, f"open({str(marker)!r}, 'w')"),
    OPEN: lambda marker: Global(open, str(marker), "w"),
    "subprocess.Popen": lambda marker: Global(subprocess.Popen, ["touch", str(marker)]),
}
"""What creates the file `marker` when a reader that runs code reads it, by the name of it."""


PLACES = {
    "the whole file": lambda evil: evil,
    "an entry": lambda evil: {**CONTENTS, "epoch": evil},
    "args": lambda evil: {**CONTENTS, "args": Namespace(lr=[{"a": (evil,)}])},
    "the optimiser": lambda evil: {**CONTENTS, "optimizer": {"state": {0: {"m": evil}}}},
    "the weights": lambda evil: {"state_dict": OrderedDict(weight=evil)},
}


@both_serialisations
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.skipif(os.name == "nt", reason="the payloads are for POSIX")
def test_nothing_runs(tmp_path: Path, name: str, place: str, legacy: bool) -> None:
    marker = tmp_path / "executed"
    path = write(PLACES[place](PAYLOADS[name](marker)), tmp_path / "evil.pth", legacy=legacy)
    with pytest.raises(CheckpointError) as error:
        read_file(path)
    assert not marker.exists()
    message = str(error.value)
    name = name.replace("subprocess", "commands")  # as Python 2 has it, for old pickles
    assert message.startswith(f"{path} holds {name!r}")
    assert "trust=True" in message
    assert "\n" not in message


@pytest.mark.essential
@both_serialisations
@pytest.mark.skipif(os.name == "nt", reason="the payloads are for POSIX")
def test_trust_is_the_way_around(tmp_path: Path, legacy: bool) -> None:
    marker = tmp_path / "executed"
    contents = {"epoch": 4, "evil": PAYLOADS["posix.system"](marker), "path": Path("x")}
    path = write(contents, tmp_path / "evil.pth", legacy=legacy)
    contents = read_file(path, trust=True)
    assert marker.exists(), "the payload of the tests above is a real one"
    assert (contents["epoch"], contents["path"]) == (4, Path("x"))


class Custom:
    """A class that no allow-list knows."""


def module_level() -> None:
    """A function that no allow-list knows."""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Custom(), f"{__name__}.Custom"),
        (Custom, f"{__name__}.Custom"),
        (module_level, f"{__name__}.module_level"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (np.zeros(3), f"{NUMPY_MODULE}._reconstruct"),
        (Global(getattr, Namespace(), "a"), "getattr"),
        (Global(builtins.bytes, 10), "bytes"),
        (io.StringIO, "_io.StringIO"),
        (Global(torch.load, "/etc/passwd"), "torch.serialization.load"),
    ],
)
def test_the_type_that_is_refused_is_named(tmp_path: Path, value: object, name: str) -> None:
    path = write({"args": argparse.Namespace(value=value)}, tmp_path / "file")
    with pytest.raises(CheckpointError) as error:
        read_file(path)
    assert f"holds {name!r}" in str(error.value)


def test_copyreg_is_refused(tmp_path: Path) -> None:
    """`copyreg.__newobj__` would call whatever a forged object names `__new__`."""
    contents = Global(copyreg._reconstructor, Namespace, object, None)
    path = write_renamed(
        contents, tmp_path / "file", "copy_reg\n_reconstructor", "copy_reg\n__newobj__"
    )
    with pytest.raises(CheckpointError, match=r"holds 'copyreg\.__newobj__'"):
        read_file(path)


@both_serialisations
def test_the_allow_list_is_left_as_it_was(tmp_path: Path, legacy: bool, allow_list) -> None:
    good = write({"args": training_options()}, tmp_path / "good", legacy=legacy)
    bad = write({"args": eval}, tmp_path / "bad", legacy=legacy)
    own = [Namespace, (PurePosixPath, "pathlib.PosixPath"), Custom]
    for entries in ([], own):
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(entries)
        read_file(good)
        with pytest.raises(CheckpointError):
            read_file(bad)
        assert set(allow_list()) == set(entries)


def test_a_caller_who_allowed_numpy(tmp_path: Path, allow_list) -> None:
    """The usual recipe for files with NumPy scalars, which puts NumPy's own in our place."""
    dtypes = [type(np.dtype(kind)) for kind in "dlU?"]
    entries = [np.dtype, *dtypes, *((NUMPY_SCALAR, f"numpy.{m}.multiarray.scalar")
                                    for m in ("core", "_core"))]  # fmt: skip
    path = write({"args": training_options()}, tmp_path / "file")
    for chosen in (entries, [np.dtype, *dtypes]):
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(chosen)
        assert read_file(path)["args"].learning_rate == 1e-3
        assert set(allow_list()) == set(chosen)


def test_the_allow_list_with_threads(tmp_path: Path, allow_list) -> None:
    paths = [
        write({"args": training_options(number=i)}, tmp_path / str(i), legacy=bool(i % 2))
        for i in range(4)
    ]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([Namespace, Custom])
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def read(index: int) -> None:
        try:
            start.wait()
            for _ in range(25):
                assert read_file(paths[index % 4])["args"].number == index % 4
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(allow_list()) == {Namespace, Custom}


def test_one_reader_at_a_time(tmp_path: Path) -> None:
    """The one that ends first would take the allow-list away from the others."""
    path = write(CONTENTS, tmp_path / "file")
    thread = threading.Thread(target=read_file, args=(path,))
    with files._allow_listed():
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join()


def test_names_that_others_take_away_meanwhile(tmp_path: Path, monkeypatch, allow_list) -> None:
    """`safe_globals` of another thread, or of another copy of this library, ends at any time."""
    path = write({"args": training_options()}, tmp_path / "file")
    load, calls = torch.load, []

    def load_late(*arguments: object, **options: object) -> object:
        calls.append(len(calls))
        if len(calls) < 4:
            torch.serialization.clear_safe_globals()
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", load_late)
    assert read_file(path)["args"].learning_rate == 1e-3
    assert len(calls) == 4
    assert allow_list() == []


def test_an_entry_that_the_caller_adds_meanwhile_survives(tmp_path: Path, allow_list) -> None:
    torch.serialization.clear_safe_globals()
    path = write({"args": Namespace()}, tmp_path / "file")
    # As if another thread added it while a file is being read.
    with files._allow_listed():
        torch.serialization.add_safe_globals([Namespace])
        torch.load(path, weights_only=True)
    assert allow_list() == [Namespace]


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
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, legacy: bool) -> None:
    whole = write({**CONTENTS, "args": training_options()}, tmp_path / "whole", legacy=legacy)
    content = whole.read_bytes()
    path = tmp_path / "truncated"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        # Cut inside a name, the name looks like another, which is refused for what it is.
        with pytest.raises(CheckpointError, match=rf"\({length:,} bytes\) is not a .|holds '"):
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
