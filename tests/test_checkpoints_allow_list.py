"""What a file may name: plain values and stand-ins, and nothing that runs code."""

import argparse
import builtins
import copyreg
import io
import os
import subprocess
import threading
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from helpers.original_format import (
    WINDOWS_PATH,
    Global,
    training_options,
    write,
    write_renamed,
)

from checkpoints import files
from checkpoints.errors import CheckpointError
from checkpoints.files import read_file

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
        ("O", "no attribute 'code'"),
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
