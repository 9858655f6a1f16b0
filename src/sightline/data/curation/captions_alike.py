"""Captions that say the same: equal after normalisation, or with nearly the same letters.

Near ones are found by MinHash (Broder, "On the resemblance and containment of documents", 1997)
over runs of five characters, cut into bands (locality-sensitive hashing), and each candidate is
then measured exactly, so that a reported pair is always as alike as asked. With 20 bands of 6 a
pair of Jaccard index s becomes a candidate with probability 1 - (1 - s^6)^20: 0.998 at 0.8,
0.92 at 0.7 and 0.27 at 0.5.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.data.curation.groups import DisjointSets, row_kinds

RUN = 5
"""Characters in a run."""
BANDS, BAND_ROWS = 20, 6
_SEED = 0x5EED
_BASE = np.uint64(0x100000001B3)
_PAIRS_AT_ONCE = 1 << 12

Numbers = NDArray[np.int64]


class Texts(NamedTuple):
    """Different normalised captions, and which records say them."""

    texts: tuple[str, ...]
    text_of: Numbers
    """int64[M]: for each caption of a record, the number of its text."""
    owners: Numbers
    """int64[M]: and the number of the record."""


def normalised(caption: str) -> str:
    """Lower case (Unicode case folding), compatibility forms joined, only letters and digits.

    A caption without letters or digits stays itself, so that two emoji do not become equal.
    """
    folded = unicodedata.normalize("NFKC", caption).casefold()
    words = " ".join(re.findall(r"\w+", folded.replace("_", " ")))
    return words or " ".join(folded.split())


def caption_keys(captions: Sequence[Sequence[str]]) -> tuple[NDArray[np.uint8], Numbers]:
    """Hashes uint8[M, 16] of all normalised captions, and int64[M] whose they are."""
    owners = [number for number, own in enumerate(captions) for _ in own]
    digests = [
        hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for own in captions
        for text in own
    ]
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    return rows, np.asarray(owners, np.int64)


def collect(captions: Sequence[Sequence[str]]) -> Texts:
    """The different normalised captions of the records."""
    numbers: dict[str, int] = {}
    text_of, owners = [], []
    for owner, own in enumerate(captions):
        for caption in own:
            text_of.append(numbers.setdefault(normalised(caption), len(numbers)))
            owners.append(owner)
    return Texts(tuple(numbers), np.asarray(text_of, np.int64), np.asarray(owners, np.int64))


def similar_texts(
    texts: Sequence[str], jaccard: float, chained: bool = False
) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs i < j of texts whose runs of characters have at least this Jaccard index.

    Args:
        chained: leave out pairs that earlier ones connect already. A gallery of ten thousand
            "photo 1 of 9" then costs ten thousand measurements instead of fifty million.
    """
    runs = [_runs(text) for text in texts]
    keys = _band_keys(runs)
    sets = DisjointSets(len(texts))
    for band in range(BANDS):
        for i, j in _same_cell(row_kinds(keys[:, band])):
            if chained:
                new = ~sets.together(i, j)
                i, j = i[new], j[new]
            indices = (jaccard_index(runs[a], runs[b]) for a, b in zip(i, j, strict=True))
            close = np.fromiter(indices, np.float64, len(i)) >= jaccard
            if close.any():
                sets.join(i[close], j[close])
                yield i[close], j[close]


def jaccard_index(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """Share of common members of two sets, given as sorted arrays without repeats."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


def _runs(text: str) -> NDArray[np.uint64]:
    """The different runs of characters as hashes; a text shorter than a run is one."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    width = min(RUN, len(letters))
    hashes = np.zeros(len(letters) - width + 1, np.uint64)
    for place in range(width):  # wraps around 2^64, as hashes may
        hashes = hashes * _BASE + letters[place : place + len(hashes)] + np.uint64(1)
    return np.unique(hashes)


def _band_keys(runs: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint8]:
    """uint8[N, bands, bytes]: the MinHash values of each band."""
    random = np.random.default_rng(_SEED)
    high = 2**64 - 1
    count = BANDS * BAND_ROWS
    factors = random.integers(0, high, count, np.uint64, endpoint=True) | np.uint64(1)
    shifts = random.integers(0, high, count, np.uint64, endpoint=True)
    keys = np.empty((len(runs), count), np.uint32)
    for row, hashes in zip(keys, runs, strict=True):
        values = (hashes[:, None] * factors + shifts) >> np.uint64(32)
        row[:] = values.min(axis=0)
    return keys.view(np.uint8).reshape(len(runs), BANDS, BAND_ROWS * 4)


def _same_cell(kinds: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """All pairs i < j of equal kind, a bounded number at a time."""
    order = np.argsort(kinds, kind="stable")
    # the k-th neighbour in sorted order, while any text still has so many of its kind
    for step in range(1, len(order)):
        same = kinds[order[step:]] == kinds[order[:-step]]
        if not same.any():
            return
        i, j = order[:-step][same], order[step:][same]
        for start in range(0, len(i), _PAIRS_AT_ONCE):
            yield i[start : start + _PAIRS_AT_ONCE], j[start : start + _PAIRS_AT_ONCE]
