"""Files that would hurt whoever trusts them: none runs code, none exhausts memory or the stack."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_bombs import BOMBS
from hostile_payloads import PAYLOADS, PLACES
from original_format import write
from pickles_by_hand import archive, dictionary, old_file, tensor

from model_loader import load_checkpoint
from tools.print_checkpoint_details import describe
from tools.update_checkpoints import update
from weights.files import CheckpointError, read_file

REPOSITORY = Path(__file__).resolve().parent.parent
MEMORY = 512 * 2**20
"""Bytes that a hostile file may cost its reader."""


def load_through_hub(path: Path) -> Any:
    return torch.hub.load(str(REPOSITORY), "load_checkpoint", path, source="local")


READERS: dict[str, Callable[[Path], Any]] = {
    "load_checkpoint": load_checkpoint,
    "print_checkpoint_details": describe,
    "update_checkpoints": update,
    "hub": load_through_hub,
}


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.skipif(os.name == "nt", reason="the payloads are for POSIX")
def test_nothing_runs(tmp_path: Path, name: str, legacy: bool) -> None:
    marker = tmp_path / "executed"
    for place, wrap in PLACES.items():
        path = write(wrap(PAYLOADS[name](marker)), tmp_path / "evil", legacy=legacy)
        # What all readers share first, and all of them once.
        for reader in READERS if place == "args" else ["load_checkpoint"]:
            with pytest.raises(Exception, match=r"holds '[\w.]+', .* trust=True") as error:
                READERS[reader](path)
            assert type(error.value).__name__ == "CheckpointError", (place, reader)
            assert str(error.value).startswith(str(path))
            assert "\n" not in str(error.value)
            assert not marker.exists(), (place, reader)


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
    for index, (make, _) in enumerate(BOMBS.values()):
        paths.append(str(folder / f"{index}.pth"))
        make(Path(paths[-1]))
    result = subprocess.run(
        [
            sys.executable,
            str(REPOSITORY / "tests/load_in_little_memory.py"),
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


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_is_exhausted(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    outcome = outcomes[name]
    assert outcome["error"] in ("CheckpointError", "UnknownSegmentsError"), outcome
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
