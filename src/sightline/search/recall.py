"""How much of the truth an approximate search finds, measured against exact search."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from sightline.core.errors import StoreError
from sightline.search.conditions import Among
from sightline.search.store import Match, VectorStore

_SAME = 1e-6
"""Two products of the same vectors differ by less."""


@dataclass(frozen=True)
class Recall:
    """The answers of a store beside the exact ones."""

    k: int
    sampled: int
    """Rows whose neighbours were looked for."""
    mean: float
    """Share of the true k nearest that were found, over all of them."""
    worst: float
    approximate: bool
    """Whether the store searched by an approximate index at all."""


def measure_recall(
    store: VectorStore,
    count: int = 100,
    k: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Recall:
    """Look for the neighbours of rows of the store itself, with and without its index.

    Args:
        store: what is measured.
        count: rows to draw.
        k: neighbours of each; the row itself does not count.
        seed: of the draw.
        progress: called with (done, all).

    Raises:
        StoreError: fewer than two rows.
    """
    ids = sorted(name for rows in store.scan() for name in rows.ids)
    if len(ids) < 2:
        raise StoreError(f"recall needs at least two rows, the index has {len(ids)}")
    drawn = random.Random(seed).sample(ids, min(count, len(ids)))
    shares = []
    for rows in store.scan(where=Among("id", tuple(drawn)), vectors=True):
        for name, vector in zip(rows.ids, rows.vectors, strict=True):
            found = store.search(vector, k + 1)
            truth = store.search(vector, k + 1, exact=True)
            shares.append(share_found(others(found, name, k), others(truth, name, k)))
            if progress is not None:
                progress(len(shares), len(drawn))
    tuned = store.info().approximation
    approximate = tuned is not None and tuned.probes > 0
    return Recall(k, len(shares), mean(shares), min(shares), approximate)


def share_found(found: Sequence[Match], truth: Sequence[Match]) -> float:
    """The share of the true answers that were found, 0 to 1.

    A row that is as near as the last of the truth is as good: equal ones have no order.
    """
    if not truth:
        return 1.0
    least = truth[-1].score - _SAME
    return min(1.0, sum(match.score >= least for match in found) / len(truth))


def others(matches: Sequence[Match], name: str, k: int) -> list[Match]:
    """The first k matches without the row that was searched for, which is no find."""
    return [match for match in matches if match.id != name][:k]
