"""Rows that are nearly the same: every pair whose cosine reaches a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2048


class Pairs(NamedTuple):
    """Some of the pairs, by place in the array that was given."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    """Always larger than the left one."""
    scores: NDArray[np.float32]


def near_pairs(
    vectors: NDArray[np.float32],
    threshold: float,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Pairs]:
    """Every pair of unit vectors float32[N, D] with a cosine of at least the threshold.

    Exact: N * N / 2 products in blocks, 16 MB of them at a time.
    """
    for start in range(0, len(vectors), _BLOCK):
        rows = vectors[start : start + _BLOCK]
        for other in range(start, len(vectors), _BLOCK):
            scores = rows @ vectors[other : other + _BLOCK].T
            left, right = np.nonzero(scores >= threshold)
            upper = left + start < right + other
            left, right = left[upper], right[upper]
            if len(left):
                yield Pairs(left + start, right + other, scores[left, right])
        if progress is not None:
            progress(min(start + _BLOCK, len(vectors)), len(vectors))
