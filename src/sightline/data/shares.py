"""One data set for several processes: each takes its share of every batch.

The batches are those of a single process, cut into equal parts in the order of the ranks. So the
number of processes changes neither what a step sees nor where the data stand, and a state taken by
any number of processes leads any other number on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.core.errors import ConfigError, ImageError
from sightline.data.workers import Decoders, Drawn

Exchange = Callable[[Any], list[Any]]
"""What this process has to say, in JSON's terms, to what all say, in the order of their ranks."""


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several processes takes.

    Args:
        exchange: tells the others which pictures cannot be read; called once a batch, in every
            process, from the thread that iterates.
    """

    rank: int
    ranks: int
    exchange: Exchange

    def check(self, batch_size: int, drop_last: bool) -> None:
        """
        Raises:
            ConfigError: batches that cannot be cut into equal parts.
        """
        if not 0 <= self.rank < self.ranks:
            raise ConfigError(f"rank {self.rank} is not one of {self.ranks} processes")
        if batch_size % self.ranks:
            below = batch_size - batch_size % self.ranks
            near = [size for size in (below, below + self.ranks) if size]
            raise ConfigError(
                f"a batch of {batch_size} cannot be shared equally by {self.ranks} processes: use "
                f"batch_size={' or '.join(map(str, near))}; it counts the batch of all processes"
            )
        if not drop_last:
            raise ConfigError(
                "the last batch of an epoch may not be shared equally: use drop_last with several "
                "processes"
            )

    def rows(self, batch_size: int) -> slice:
        """Which rows of a batch are this process's."""
        own = batch_size // self.ranks
        return slice(self.rank * own, (self.rank + 1) * own)


@dataclass(frozen=True)
class Draws:
    """One epoch of a data set, as the processes that share it draw from it."""

    share: Share
    batch_size: int
    epoch: int
    order: np.ndarray
    """int64[length]"""
    draw: Callable[[int, int], Drawn]
    """Epoch and number of a sample to the sample; for those that take a broken one's place."""
    skip: Callable[[int, ImageError], None]
    """Is told of every broken sample, in every process alike."""

    def ahead(self, decoders: Decoders, position: int) -> Callable[[int], Drawn]:
        """What this process will need from a place on, decoded ahead, if nothing is broken."""
        starts = range(position, len(self.order) - self.batch_size + 1, self.batch_size)
        rows = self.share.rows(self.batch_size)
        own = [self.order[start : start + self.batch_size][rows] for start in starts]
        numbers = np.concatenate([np.empty(0, np.int64), *own])
        return decoders.results(self.epoch, numbers, self.batch_size // self.share.ranks)

    def next(self, results: Callable[[int], Drawn], position: int) -> tuple[list[Any], int] | None:
        """This process's rows of the batch at a place, and the place behind the batch.

        The batch holds the first readable samples from the place on, as in a single process; None
        where too few are left. A broken sample of any process moves the rows of all.
        """
        rows, size = self.share.rows(self.batch_size), self.batch_size
        needed = rows.stop - rows.start
        drawn = {d.number: d for d in (results(needed - i) for i in range(needed))}
        broken: dict[int, str] = {}
        places = list(range(position, position + size))
        while new := self._told(drawn, broken):
            broken |= new
            left = range(position, len(self.order))
            places = [place for place in left if int(self.order[place]) not in broken][:size]
            if len(places) < size:
                return None
            for number in map(int, self.order[places[rows]]):
                if number not in drawn:
                    drawn[number] = self.draw(self.epoch, number)
        own = [drawn[int(number)].value for number in self.order[places[rows]]]
        return own, places[-1] + 1

    def _told(self, drawn: dict[int, Drawn], known: dict[int, str]) -> dict[int, str]:
        """Broken samples that the processes found since they last spoke."""
        own = [
            (d.number, str(d.error), d.error.code)
            for d in drawn.values()
            if d.error is not None and d.number not in known
        ]
        told = {}
        for number, text, code in (entry for part in self.share.exchange(own) for entry in part):
            self.skip(number, ImageError(text, code))
            told[number] = text
        return told
