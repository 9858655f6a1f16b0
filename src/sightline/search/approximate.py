"""The approximate index of a LanceDB table: when it pays, how it is built, how far it has to look.

Vectors are kept a second time in 8 bits a number, in partitions around centres. How many partitions
a search must look into depends on the data, so it is tried out: the number is doubled until a
sample finds 95 % of its true neighbours. Where even all of them do not reach that, every vector is
compared as before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from sightline.core.files import write_json
from sightline.search.lance_rows import vectors_of
from sightline.search.recall import others, share_found
from sightline.search.store import Approximation, Match

TUNING = "approximate.json"
WANTED_RECALL, SAMPLE, NEAREST = 0.95, 32, 10
REFINE = 3
"""Times k answers in 8 bits are compared again by their full vectors."""

Nearest = Callable[[Any, int, int | None], list[Match]]
"""Vector, k, and partitions to look into (None: compare everything)."""


def read_tuning(folder: Path) -> Approximation | None:
    """How the index of a store was tuned; None where there is none, or nobody knows."""
    try:
        fields = json.loads((folder / TUNING).read_bytes())
        return Approximation(**{name: fields[name] for name in Approximation.__annotations__})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def config_of(rows: int) -> Any:
    """What LanceDB is told to build for so many rows."""
    from lancedb.index import IvfSq

    # A tenth of the products that the defaults (256 rows a centre, 50 rounds) take: coarser centres
    # only mean that the tuning looks into more partitions.
    return IvfSq(
        distance_type="l2", num_partitions=max(1, round(rows**0.5)), sample_rate=64,
        max_iterations=20,
    )  # fmt: skip


def build(table: Any, folder: Path, nearest: Nearest) -> Approximation:
    """Build the index of a table, and find how many partitions a search has to look into."""
    rows = int(table.count_rows())
    config = config_of(rows)
    partitions = config.num_partitions
    table.create_index("vector", config=config)
    probes, recall = _tuned(table, rows, partitions, nearest)
    tuned = Approximation(probes, partitions, rows, recall)
    write_json(folder / TUNING, {"format": "sightline.approximate", "version": 1, **asdict(tuned)})
    return tuned


def rows_outside(table: Any) -> int:
    """Rows that came after the index was built, and are compared one by one."""
    stats = [table.index_stats(index.name) for index in table.list_indices()]
    return sum(int(found.num_unindexed_rows) for found in stats if found is not None)


def _tuned(table: Any, rows: int, partitions: int, nearest: Nearest) -> tuple[int, float]:
    """The smallest doubled number of partitions that finds enough, and the recall there."""
    places = np.random.default_rng(0).choice(rows, min(SAMPLE, rows), replace=False)
    sample = table.take_offsets(sorted(places.tolist())).select(["id", "vector"]).to_arrow()
    queries = vectors_of(sample["vector"].combine_chunks())
    names = sample["id"].to_pylist()

    def answers(probes: int | None) -> list[list[Match]]:
        return [
            others(nearest(query, NEAREST + 1, probes), name, NEAREST)
            for name, query in zip(names, queries, strict=True)
        ]

    truth = answers(None)
    probes = max(1, partitions // 64)
    while True:
        recall = mean(map(share_found, answers(probes), truth))
        if recall >= WANTED_RECALL:
            return probes, recall
        if probes == partitions:
            return 0, recall
        probes = min(partitions, 2 * probes)
