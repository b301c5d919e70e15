"""The processes of one run: what torchrun started, or a single one."""

import pickle
import signal
import socket
import subprocess
import sys
import threading
from datetime import timedelta
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


def test_a_process_that_waits_for_others_hears_ctrl_c() -> None:
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    other = torch.distributed.TCPStore("127.0.0.1", store.port, wait_for_workers=False)
    processes = Processes(0, 2, torch.device("cpu"), 1, store)
    timers = [
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]),
        threading.Timer(3, other.set, ["1 of 1", pickle.dumps([])]),  # the other comes, too late
    ]
    for timer in timers:
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        processes.gather([])
    assert timers[1].is_alive()
    timers[1].cancel()


def test_a_process_whose_torchrun_was_killed_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    for name, value in {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("engine.processes._START", timedelta(seconds=1))
    threads = torch.get_num_threads()
    try:
        with pytest.raises(RuntimeError), join_processes("cpu", 1):
            pass
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
