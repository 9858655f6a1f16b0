"""A shuffled order in which data that lies in shards can still be read in long runs.

    records  0 1 2 3 | 4 5 6 7 | 8 9 10 11 | 12 13 14 15      blocks of 4
    blocks   8 9 10 11, 0 1 2 3 | 12 13 14 15, 4 5 6 7         shuffled; windows of 8
    order    1 10 8 3 9 2 0 11  | 4 13 7 12 15 6 5 14          shuffled inside each window

It takes the place of a shuffle buffer: the order is a function of (seed, epoch) alone, so that a
loader's state is two numbers, resuming reads nothing twice, and an epoch holds every record once.
What a buffer would hold in memory is held by the system's file cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError

T = TypeVar("T")

_BLOCKS = 2
"""Spawn key, apart from those of a loader's own order and samples."""


class InWindows(Sequence[T], Generic[T]):
    """A sequence that a `Loader` shuffles in windows of blocks.

    Args:
        dataset: anything with a length and an index, such as `open_shards(...)`.
        block: neighbours that are read together; about a megabyte of them keeps disks busy.
        window: records that are shuffled together, from `window / block` places of the data.

    Raises:
        ConfigError: a block below 1, or a window smaller than a block.
    """

    def __init__(self, dataset: Sequence[T], block: int = 256, window: int = 8192) -> None:
        if block < 1 or window < block:
            raise ConfigError(
                f"block {block}, window {window}: a block has at least one record, and a window at "
                "least one block"
            )
        self.dataset = dataset
        self.block = block
        self.window = window

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name in ("fingerprint", "note_broken", "broken", "damage"):
            return getattr(self.dataset, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def epoch_order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """int64[len]: every index once."""
        return window_order(len(self), self.block, self.window, seed, epoch)


def window_order(count: int, block: int, window: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """int64[count]: every index below `count` once, blocks shuffled, then records in windows.

    The blocks begin at another place in each epoch, so that neighbours are not always the same.
    """
    key = np.random.SeedSequence(seed, spawn_key=(_BLOCKS, epoch))
    generator = np.random.default_rng(key)
    shift = int(generator.integers(block))
    starts = np.arange(shift - block, count, block)
    generator.shuffle(starts)
    order = (starts[:, None] + np.arange(block)).reshape(-1)
    order = order[(order >= 0) & (order < count)]
    for first in range(0, count, window):
        generator.shuffle(order[first : first + window])
    return order
