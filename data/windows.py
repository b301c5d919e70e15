"""Windows over a long sequence whose entries come in blocks, such as the frames of a video."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Windows"]


@dataclass(frozen=True)
class Windows:
    """Windows of K entries: window r holds the entries `items[starts[r] + offsets]`.

    A matrix of all of them would take K times the memory where windows overlap.

    Attributes:
        items: indices of entries, int64 (any,).
        starts: where in `items` each window begins, int64 (R,).
        offsets: where in `items` its entries are, counted from there, int64 (K,). The first entry
            of a window is its lowest.
    """

    items: NDArray[np.int64]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def over(
        cls, count: int, starts: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], "Windows"]:
        """Return which entries windows need, and the windows over these alone.

        Args:
            count: entries that there are.
            starts: index of an entry for each window, int64 (R,), ascending.
            offsets: the entries of a window, counted from there, int64 (K,), the lowest first.

        Returns:
            The indices of the needed entries, ascending, each once, int64; and the windows.
        """
        needed = np.zeros(count, dtype=bool)
        for offset in offsets:
            needed[starts + offset] = True
        return np.flatnonzero(needed), cls(np.cumsum(needed) - 1, starts, offsets)

    def gather(self, blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
        """Yield the windows in order, while their entries come.

        Args:
            blocks: the entries in order, each tensor (any, ...).
            size: windows that are yielded together.

        Yields:
            (at most `size`, K, ...). Entries are held as long as a later window needs them.
        """
        lowest = self.items[self.starts + self.offsets[0]]
        needed_from = np.minimum.accumulate(lowest[::-1])[::-1]
        blocks, held, come = iter(blocks), dict[int, Tensor](), 0
        for first in range(0, len(self.starts), size):
            entries = self.items[self.starts[first : first + size, None] + self.offsets]
            for entry in [entry for entry in held if entry < needed_from[first]]:
                del held[entry]
            while come <= entries.max():
                block = next(blocks)
                held.update(enumerate(block, start=come))
                come += len(block)
            windows = torch.stack([held[entry] for entry in entries.ravel().tolist()])
            yield windows.unflatten(0, entries.shape)
