"""The processes of one run: what torchrun started, or a single one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.repository import REPOSITORY

from engine.processes import Processes, join_processes

PROGRAM = """
import sys, time
from pathlib import Path
from engine.processes import join_processes
with join_processes("cpu", 1) as processes:
    mine = processes.share(list("abcde"))
    all_of_them = processes.gather(mine)
    if processes.rank == 0:
        time.sleep(3)  # the others have failed meanwhile
    Path(sys.argv[1], str(processes.rank)).write_text("".join(mine) + " " + "".join(all_of_them))
sys.exit(1)
"""


def test_items_are_dealt_out_without_gaps_or_repetition() -> None:
    cpu = torch.device("cpu")
    shares = [Processes(rank, 3, cpu, 1).share(range(10)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert list(shares[1]) == [1, 4, 7]


def test_a_process_alone_needs_no_torchrun() -> None:
    threads = torch.get_num_threads()
    try:
        with join_processes("cpu", 1) as processes:
            assert (processes.rank, processes.count, torch.get_num_threads()) == (0, 1, 1)
            assert processes.gather("ab") == ["a", "b"]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu"])
def test_devices_that_are_not_there_are_refused(device: str) -> None:
    wrong = pytest.raises(ValueError, match=f"device must be one of this machine, got '{device}")
    with wrong, join_processes(device):
        pass


def test_processes_of_torchrun_share_and_wait_for_one_another(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n{PROGRAM}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    assert subprocess.run([*command, program, tmp_path], timeout=120).returncode == 1
    texts = [(tmp_path / str(rank)).read_text() for rank in range(3)]
    assert texts == ["ad adbec", "be adbec", "c adbec"]
