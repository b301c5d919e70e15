"""Requests: what results depend on."""

import hashlib
import json
from pathlib import Path

import torch
from helpers.repository import REPOSITORY
from helpers.synthetic_clips import tiny_tsn

from engine.processes import Processes
from engine.request import describe_run, file_sha256
from ops.inference import optimize_for_inference


def test_a_run_is_described_by_what_results_depend_on(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"weights")
    model = optimize_for_inference(tiny_tsn(), dtype=torch.bfloat16)
    alone, third = (Processes(r, n, torch.device("cpu"), 4) for r, n in ((0, 1), (2, 3)))
    description = describe_run(model, checkpoint, alone)
    assert description == describe_run(model, checkpoint, third)
    assert json.loads(json.dumps(description))["preprocessing"]["input_size"] == 32
    assert description["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert file_sha256(checkpoint) == description["checkpoint_sha256"]
    assert (description["precision"], description["optimized"]) == ("bfloat16", True)
    assert (description["device"], description["threads"]) == ("cpu", 4)
    assert f'version = "{description["version"]}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_threads_matter_on_the_cpu_alone(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pth"
    checkpoint.touch()
    processes = Processes(0, 1, torch.device("cuda", 1), 4)
    description = describe_run(tiny_tsn(), checkpoint, processes)
    assert (description["device"], description["threads"]) == ("cuda", None)
