"""Random choices that stay the same on every machine and in every release.

NumPy promises the raw stream of a bit generator for ever, but not how `Generator` turns it into
integers and choices; so those few steps are written out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from numpy.random import PCG64, SeedSequence

T = TypeVar("T")


class Dice:
    """One stream of choices, from a PCG64 seeded by non-negative integers (the seed last)."""

    def __init__(self, *entropy: int) -> None:
        self._bits = PCG64(SeedSequence(entropy))
        self._pool: list[int] = []

    def word(self) -> int:
        """The upper 32 bits of the next raw number."""
        if not self._pool:
            self._pool = self._bits.random_raw(48).tolist()
        return self._pool.pop() >> 32

    def below(self, limit: int) -> int:
        """An integer in 0 .. limit - 1."""
        return self.word() * limit >> 32

    def between(self, first: int, last: int) -> int:
        """An integer in first .. last; `first` where the range is empty."""
        return first + self.below(last - first + 1) if last > first else first

    def fraction(self) -> float:
        """A float in [0, 1)."""
        return self.word() * 2.0**-32

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.fraction() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each equally likely."""
        return items[self.below(len(items))]

    def weighted(self, weights: Sequence[float]) -> int:
        """An index, drawn in proportion to the weights."""
        point = self.fraction() * sum(weights)
        for index, weight in enumerate(weights):
            point -= weight
            if point < 0:
                return index
        return max(index for index, weight in enumerate(weights) if weight > 0)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher and Yates)."""
        result = list(items)
        for index in range(len(result) - 1, 0, -1):
            other = self.below(index + 1)
            result[index], result[other] = result[other], result[index]
        return result
