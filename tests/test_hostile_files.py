"""Files that would hurt whoever trusts them: none runs code, none exhausts memory or the stack."""

import contextlib
import copy
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hostile_bombs import BOMBS
from helpers.hostile_payloads import PAYLOADS, PLACES
from helpers.original_format import make, write
from helpers.other_projects import lightning, release
from helpers.pickles_by_hand import archive, dictionary, old_file, tensor

from checkpoints.config import Checkpoint
from checkpoints.documented import to_dictionary
from checkpoints.errors import CheckpointError
from checkpoints.files import read_file
from model_loader import get_config, load_checkpoint
from tools.convert_checkpoint import convert
from tools.print_checkpoint_details import describe
from tsn import TSN

REPOSITORY = Path(__file__).resolve().parent.parent
MEMORY = 512 * 2**20
"""Bytes that a hostile file may cost its reader."""


def load_through_hub(path: Path) -> Any:
    return torch.hub.load(str(REPOSITORY), "load_checkpoint", path, source="local")


READERS: dict[str, Callable[[Path], Any]] = {
    "load_checkpoint": load_checkpoint,
    "print_checkpoint_details": describe,
    "convert_checkpoint": convert,
    "hub": load_through_hub,
}


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.skipif(os.name == "nt", reason="the payloads are for POSIX")
def test_nothing_runs(tmp_path: Path, name: str, place: str, legacy: bool) -> None:
    marker = tmp_path / "executed"
    path = write(PLACES[place](PAYLOADS[name](marker)), tmp_path / "evil", legacy=legacy)
    # What all readers share first, and all of them once.
    for reader in READERS if place == "args" else ["load_checkpoint"]:
        with pytest.raises(Exception, match=r"holds '[\w.]+', .* trust=True") as error:
            READERS[reader](path)
        assert type(error.value).__name__ == "CheckpointError", reader
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)
        assert not marker.exists(), reader


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.skipif(os.name == "nt", reason="the payloads are for POSIX")
def test_the_payloads_are_real(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "executed"
    path = write(PAYLOADS[name](marker), tmp_path / "evil")
    with contextlib.suppress(CheckpointError):  # of what it left when it had run
        read_file(path, trust=True)
    assert marker.exists()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of a process that loaded each of `BOMBS`."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the limit on memory is Linux's")
    folder = tmp_path_factory.mktemp("hostile")
    paths = []
    for index, (write_bomb, _) in enumerate(BOMBS.values()):
        paths.append(str(folder / f"{index}.pth"))
        write_bomb(Path(paths[-1]))
    result = subprocess.run(
        [
            sys.executable,
            str(REPOSITORY / "tests/helpers/load_in_little_memory.py"),
            str(2 * MEMORY),
            *paths,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    lines = map(json.loads, result.stdout.splitlines())
    return {
        name: {**outcome, "path": path}
        for name, path, outcome in zip(BOMBS, paths, lines, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_nothing_is_exhausted(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    outcome = outcomes[name]
    assert outcome["error"] in ("CheckpointError", "UnknownSegmentsError"), outcome
    assert outcome["described"] in ("CheckpointError", None), outcome
    assert outcome["path"] in outcome["message"]
    assert len(outcome["message"]) < 1000
    assert outcome["message"].isprintable()
    assert outcome["growth"] < MEMORY
    with pytest.raises(CheckpointError, match=BOMBS[name][1]):
        raise CheckpointError(outcome["message"])


@pytest.mark.parametrize("make", [archive, old_file])
def test_the_files_by_hand_are_good_but_for_what_is_bad_in_them(
    tmp_path: Path, make: Callable[[Path, bytes], None]
) -> None:
    make(tmp_path / "file", dictionary(weight=tensor(2, 2, legacy=make is old_file)))
    assert torch.equal(read_file(tmp_path / "file")["weight"], torch.zeros(2, 2))


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _twice(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value


ODD = [
    None, True, -1, 0, 3, 2**31, 10**30, 2**40000, 0.5, float("nan"), float("inf"), 1j, "", "tsn",
    "x" * 10**6, "\x1b[2J", "9" * 5000, b"RGB", [], {}, set(), (1, 2), ("a",), _nested(10**5),
    _twice(100), {1: 2, "a": _twice(100)}, Namespace(), torch.ones(()), torch.ones(2),
    torch.zeros(0), torch.ones(1).expand(2**40), torch.Size([1]), torch.float16, object,
    {"a": torch.ones(1)}, OrderedDict(a=torch.ones(1)), np.float64(8.0), PurePosixPath("a"),
]  # fmt: skip
"""What may stand in the place of any entry."""


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["mtrn", "tsm", "lightning", "release"])
def test_anything_in_the_place_of_an_entry(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model, or the one kind of error: never another, a hang or a long message."""
    base: dict[str, Any]
    if model_type == "lightning":
        base = lightning(make("tsm", shift_place="blockres", num_class=(97, 300)), "TSM")
    elif model_type == "release":
        base = release(make("tsn", num_class=5))
    else:
        base = as_dictionary(make(model_type, "RGBDiff"))
    messages = Counter[str]()
    for place in _places(base):
        for odd in ODD:
            contents = _replaced(base, place, odd)
            monkeypatch.setattr("checkpoints.checkpoint.read_file", lambda *_, c=contents, **__: c)
            try:
                load_checkpoint("file", num_segments=4 if model_type == "release" else None)
            except CheckpointError as error:
                messages[str(error)] += 1
    assert len(messages) > 20
    assert all(len(message) < 1500 and message.isprintable() for message in messages)


def _places(base: dict[str, Any]) -> list[tuple[str, ...]]:
    """Ways to all entries, and to those of the dictionaries that are read."""
    places: list[tuple[str, ...]] = [(name,) for name in base]
    for outer in ("args", "preprocessing", "hyper_parameters"):
        places += [(outer, name) for name in _entries(base.get(outer))]
    for outer in _entries(base.get("hyper_parameters")):
        inner = base["hyper_parameters"][outer]
        places += [("hyper_parameters", outer, name) for name in _entries(inner)]
    return places


def _entries(value: Any) -> list[str]:
    if isinstance(value, Namespace):
        value = vars(value)
    return list(value) if isinstance(value, dict) else []


def _replaced(base: Any, place: tuple[str, ...], value: Any) -> Any:
    if not place:
        return value
    changed = copy.copy(base)
    entries = vars(changed) if isinstance(changed, Namespace) else changed
    entries[place[0]] = _replaced(entries[place[0]], place[1:], value)
    return changed


def as_dictionary(model: TSN) -> dict[str, Any]:
    return to_dictionary(
        Checkpoint(config=get_config(model), state_dict=model.state_dict(), args={"lr": 0.1})
    )
