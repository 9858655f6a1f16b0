"""Pairs of bit strings that differ in few places, found without comparing all pairs.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index
Hashing", CVPR 2012): cut the hash into bands of 16 bits. Two hashes within distance d agree in at
least one of m bands up to floor(d / m) flipped bits, so looking up every band with so many flips
finds every pair, and hash tables of 65,536 cells keep the candidates few: about
N^2 m / 65,536 of them times the flips, 100,000 hashes in seconds. No pair within d is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError

BAND_BITS = 16
PAIRS_AT_ONCE = 1 << 20
MAX_FLIPS = 2
"""Beyond, a table of 65,536 cells is visited a thousand times a hash and more."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
Known = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]

_ONES = np.array([value.bit_count() for value in range(1 << BAND_BITS)], np.uint8)


def distances(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Differing bits int64[N] of hashes uint8[N, bytes], row by row."""
    if hasattr(np, "bitwise_count") and left.shape[1] % 8 == 0:  # numpy 2
        words = np.ascontiguousarray(left).view(np.uint64) ^ np.ascontiguousarray(right).view(
            np.uint64
        )
        counted: NDArray[np.int64] = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
        return counted
    differing = np.ascontiguousarray(left ^ right).view(np.uint16)
    return _ONES[differing].sum(axis=1, dtype=np.int64)


def near_pairs(
    left: NDArray[np.uint8],
    right: NDArray[np.uint8] | None,
    distance: int,
    known: Known | None = None,
) -> Iterator[Pairs]:
    """Index pairs (i, j) of hashes at most `distance` bits apart, in chunks; a pair may recur.

    Args:
        left: uint8[N, bytes], an even number of bytes.
        right: uint8[M, bytes] to compare with, or None for pairs i < j within `left`.
        known: True for candidates that need no look any more; asked before each comparison, so
            that a thousand copies of one picture do not cost half a million comparisons.

    Raises:
        ConfigError: a distance too large for the length of the hash.
    """
    bands = left.shape[1] * 8 // BAND_BITS
    flips = distance // bands
    if distance < 0 or flips > MAX_FLIPS:
        limit = bands * (MAX_FLIPS + 1) - 1
        raise ConfigError(
            f"distance {distance}: a hash of {bands * BAND_BITS} bits takes 0 to {limit}"
        )
    other = left if right is None else right
    for band, (mine, theirs) in enumerate(zip(_bands(left), _bands(other), strict=True)):
        # With d = m * flips + rest, only rest + 1 bands need as many flips; others one fewer.
        most = flips if band <= distance - bands * flips else flips - 1
        table = _Table.of(theirs)
        for mask in _masks(most):
            for i, j in _equal_keys(mine ^ mask, table, within=right is None):
                if known is not None:
                    new = ~known(i, j)
                    i, j = i[new], j[new]
                close = distances(left[i], other[j]) <= distance
                if close.any():
                    yield i[close], j[close]


class _Table(NamedTuple):
    """Which rows have each key of one band."""

    order: NDArray[np.int64]
    """Rows, sorted by key."""
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, keys: NDArray[np.uint16]) -> _Table:
        counts = np.bincount(keys, minlength=1 << BAND_BITS)
        return cls(np.argsort(keys, kind="stable"), np.cumsum(counts) - counts, counts)


def _bands(hashes: NDArray[np.uint8]) -> list[NDArray[np.uint16]]:
    """Sixteen bits each from all over the hash: neighbours in a picture are alike, and a band of
    sky only would put half of all photographs into one cell."""
    bits = np.unpackbits(hashes, axis=1)
    count = bits.shape[1] // BAND_BITS
    return [
        np.packbits(bits[:, band::count], axis=1).view(np.uint16).ravel() for band in range(count)
    ]


def _masks(flips: int) -> Iterator[np.uint16]:
    for count in range(flips + 1):
        for places in combinations(range(BAND_BITS), count):
            yield np.uint16(sum(1 << place for place in places))


def probes(bits: int, distance: int) -> int:
    """Table look-ups for one hash: what the search costs beside the size of the data."""
    bands = bits // BAND_BITS
    flips, rest = divmod(distance, bands)

    def cost(most: int) -> int:
        return sum(comb(BAND_BITS, count) for count in range(most + 1))

    return (rest + 1) * cost(flips) + (bands - rest - 1) * cost(flips - 1)


def _equal_keys(keys: NDArray[np.uint16], table: _Table, within: bool) -> Iterator[Pairs]:
    """(i, j) where row j of the table has key i, some `PAIRS_AT_ONCE` or one i at a time."""
    counts = table.counts[keys]
    ends = np.cumsum(counts)
    start = 0
    while start < len(keys):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + PAIRS_AT_ONCE, "right")), start + 1)
        part = counts[start:stop]
        i = np.repeat(np.arange(start, stop), part)
        # the places 0, 1, ... within each run of equal i
        shift = table.starts[keys[start:stop]] - (ends[start:stop] - part - done)
        j = table.order[np.repeat(shift, part) + np.arange(len(i))]
        if within:
            ordered = i < j
            i, j = i[ordered], j[ordered]
        if len(i):
            yield i, j
        start = stop
