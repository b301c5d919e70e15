"""Windows over entries that come in blocks: in order, and no entry held longer than needed."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.peak_memory import peak_memory
from torch import Tensor

from data.windows import Windows


def blocks_of(count: int, size: int, pulled: list[int] | None = None) -> Iterator[Tensor]:
    for block in torch.arange(count).view(-1, 1).split(size):
        if pulled is not None:
            pulled.append(len(block))
        yield block


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize(("count", "step", "offsets"), [(20, 1, [0, 1, 2]), (23, 5, [2, 2, 7])])
def test_windows_hold_their_entries(count: int, step: int, offsets: list[int], size: int) -> None:
    starts = np.arange(0, count - max(offsets), step)
    needed, windows = Windows.over(count, starts, np.array(offsets))
    expected = [[start + offset for offset in offsets] for start in starts.tolist()]
    assert needed.tolist() == sorted({index for window in expected for index in window})
    blocks = torch.from_numpy(needed).split(4)
    gathered = list(windows.gather(blocks, size))
    assert [len(part) for part in gathered[:-1]] == [size] * (len(gathered) - 1)
    assert torch.cat(gathered).tolist() == expected


def test_an_entry_is_held_for_later_windows_that_begin_before_others() -> None:
    windows = Windows(np.array([1, 2, 3, 4, 2, 5]), np.array([0, 2, 4]), np.arange(2))
    gathered = torch.cat(list(windows.gather(blocks_of(6, 2), 1)))
    assert gathered.squeeze(-1).tolist() == [[1, 2], [3, 4], [2, 5]]


def test_entries_are_let_go() -> None:
    size, count = 2**16, 256  # 64 MB in all
    _, windows = Windows.over(count, np.arange(count - 1), np.arange(2))

    def run() -> None:
        for _ in windows.gather((torch.ones(2, size) for _ in range(count // 2)), 2):
            pass

    peak = peak_memory(run)
    if peak is None:
        pytest.skip("this system does not tell the peak of memory")
    assert peak < 32 * 2**20


def test_no_more_is_read_than_the_next_windows_need() -> None:
    _, windows = Windows.over(40, np.arange(0, 36, 4), np.arange(4))
    pulled: list[int] = []
    gathered = windows.gather(blocks_of(40, 4, pulled), 2)
    next(gathered)
    assert len(pulled) == 2
