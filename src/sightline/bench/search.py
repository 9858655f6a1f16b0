"""`sightline bench search`: building and searching a store of vectors, beside plain LanceDB.

The vectors are random directions, the worst case for an approximate index, or gather around random
centres. Every build has a process and a folder of its own; rounds alternate (A-B-A-B):

    sightline   `LanceStore`: keys looked up, commits one at a time, synced, sealed, and tuned
    lancedb     `table.add` of the same blocks, `optimize`, and the same index, which is searched
                with as many probes as Sightline's tuning chose

A build is the adding of all blocks; indexing is what follows. Both stores are then searched in one
process, every query by each of them in turn: exact, exact among a tenth of the rows, and
approximate where there is an index. Recall is counted against products computed here.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.bench.memory import in_a_process, peak_above
from sightline.core.devices import available_cores
from sightline.search.approximate import REFINE, config_of
from sightline.search.conditions import Compare
from sightline.search.lance import LanceStore
from sightline.search.opening import lancedb
from sightline.search.store import APPROXIMATE_FROM, Rows

OURS, PEER = "sightline", "lancedb"
BLOCK = 10_000
"""Rows of a commit."""
_NEAREST = 10

Progress = Callable[[int, int], None]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class SearchRow:
    """One contender; medians over the rounds. Milliseconds of a search: median and 95 %."""

    name: str
    build_seconds: float
    index_seconds: float
    peak_bytes: int
    """At most in any round: above what the process held before."""
    exact: tuple[float, float]
    filtered: tuple[float, float]
    approximate: tuple[float, float] | None
    exact_recall: float
    approximate_recall: float | None
    probes: int | None


@dataclass(frozen=True)
class SearchBench:
    """Everything that was measured."""

    vectors: int
    width: int
    clusters: int
    queries: int
    rounds: int
    cores: int
    rows: tuple[SearchRow, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {"bench": "search", **asdict(self)}


def bench_search(
    vectors: int = 100_000,
    width: int = 512,
    clusters: int = 0,
    queries: int = 200,
    rounds: int = 2,
    progress: Progress | None = None,
) -> SearchBench:
    """Measure both.

    Args:
        vectors: N, rows in the store.
        width: D, numbers in a vector.
        clusters: centres that the vectors gather around; 0 for none.
        queries: searches of each kind.
        rounds: passes of each contender.
        progress: called with (done, all) passes.

    Raises:
        MissingDependencyError: LanceDB is not installed.
    """
    lancedb()
    shared = {"vectors": vectors, "width": width, "clusters": clusters}
    built: dict[str, list[dict[str, Any]]] = {OURS: [], PEER: []}
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        for _ in range(rounds):
            for who, found in built.items():
                shutil.rmtree(Path(folder) / who, ignore_errors=True)
                found.append(_apart("build_pass", who=who, folder=folder, **shared))
                if progress is not None:
                    progress(sum(map(len, built.values())), 2 * rounds + 1)
        searched = _apart("search_pass", folder=folder, queries=queries, **shared)
    if progress is not None:
        progress(2 * rounds + 1, 2 * rounds + 1)
    rows = tuple(_row(who, built[who], searched[who]) for who in (OURS, PEER))
    return SearchBench(vectors, width, clusters, queries, rounds, available_cores(), rows)


def _apart(function: str, **options: Any) -> dict[str, Any]:
    return in_a_process("sightline.bench.search", function, **options)


def _row(who: str, built: list[dict[str, Any]], searched: dict[str, Any]) -> SearchRow:
    def middle(name: str) -> float:
        return median(one[name] for one in built)

    return SearchRow(
        name=who,
        build_seconds=middle("build"),
        index_seconds=middle("index"),
        peak_bytes=max(one["peak"] for one in built),
        **searched,
    )


# In a process of its own


def build_pass(who: str, folder: str, vectors: int, width: int, clusters: int) -> dict[str, Any]:
    """Build one store in a folder of its name; seconds and bytes."""
    found: dict[str, Any] = {}
    contender = _CONTENDERS[who](Path(folder) / who, width)

    def build() -> None:
        begun = time.perf_counter()
        for start, block in _blocks(vectors, width, clusters):
            contender.add(start, block)
        found["build"] = time.perf_counter() - begun
        begun = time.perf_counter()
        contender.index(vectors)
        found["index"] = time.perf_counter() - begun

    found["peak"] = peak_above(build)
    return found


def search_pass(
    folder: str, vectors: int, width: int, clusters: int, queries: int
) -> dict[str, Any]:
    """Search both stores, which are there; milliseconds and shares, by contender."""
    asked = _block(width, clusters, queries, seed=2**32 - 1)
    truth = _truth(vectors, width, clusters, asked)
    stores = {who: make(Path(folder) / who, width) for who, make in _CONTENDERS.items()}
    probes = stores[OURS].probes()
    found: dict[str, dict[str, Any]] = {who: {"probes": probes} for who in stores}
    for kind in ("exact", "filtered", "approximate"):
        if kind == "approximate" and probes is None:
            for own in found.values():
                own |= {kind: None, "approximate_recall": None}
            continue
        for who, (times, answers) in _searched(stores, asked, kind, probes).items():
            found[who][kind] = tuple(float(np.percentile(times, share)) for share in (50, 95))
            if kind != "filtered":
                found[who][f"{kind}_recall"] = _recall(answers, truth)
    return found


def _searched(
    stores: dict[str, Any], asked: Vectors, kind: str, probes: int | None
) -> dict[str, tuple[list[float], list[list[int]]]]:
    """Milliseconds and answers, every query by each store in turn."""
    found: dict[str, tuple[list[float], list[list[int]]]] = {who: ([], []) for who in stores}
    for store in stores.values():
        store.search(asked[0], kind, probes)  # what is loaded once is not a search's
    for vector in asked:
        for who, store in stores.items():
            begun = time.perf_counter()
            answer = store.search(vector, kind, probes)
            found[who][0].append(1000 * (time.perf_counter() - begun))
            found[who][1].append(answer)
    return found


class _Ours:
    """The store of this project."""

    def __init__(self, folder: Path, width: int) -> None:
        self.store = LanceStore.create(folder, width, {"tenth": "whole"}, {})

    def add(self, start: int, block: Vectors) -> None:
        numbers = range(start, start + len(block))
        tenth = {"tenth": [number % 10 for number in numbers]}
        self.store.upsert(Rows([f"{number:020d}" for number in numbers], block, tenth))

    def index(self, rows: int) -> None:
        self.store.tidy()

    def probes(self) -> int | None:
        """Partitions that its approximate search looks into."""
        tuned = self.store.info().approximation
        return None if tuned is None else tuned.probes

    def search(self, vector: Vectors, kind: str, probes: int | None) -> list[int]:
        where = Compare("tenth", "=", 3) if kind == "filtered" else None
        found = self.store.search(vector, _NEAREST, where, exact=kind != "approximate")
        return [int(match.id) for match in found]


class _Peer:
    """LanceDB as its guide uses it."""

    def __init__(self, folder: Path, width: int) -> None:
        import pyarrow as pa

        self.schema = pa.schema(
            {"id": pa.string(), "vector": pa.list_(pa.float32(), width), "tenth": pa.int64()}
        )
        database = lancedb().connect(str(folder))
        self.table = database.create_table("peer", schema=self.schema, exist_ok=True)

    def add(self, start: int, block: Vectors) -> None:
        import pyarrow as pa

        numbers = range(start, start + len(block))
        columns = {
            "id": [f"{number:020d}" for number in numbers],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1]),
            "tenth": [number % 10 for number in numbers],
        }
        self.table.add(pa.table(columns, schema=self.schema))

    def index(self, rows: int) -> None:
        self.table.optimize()
        if rows >= APPROXIMATE_FROM:
            self.table.create_index("vector", config=config_of(rows))

    def search(self, vector: Vectors, kind: str, probes: int | None) -> list[int]:
        query = self.table.search(vector).distance_type("l2").limit(_NEAREST)
        query = query.select(["id", "tenth", "_distance"])
        if kind == "filtered":
            query = query.where("tenth = 3", prefilter=True)
        if kind == "approximate":
            # no probes: Sightline's tuning gave the index up, and it compares every vector
            partitions = config_of(self.table.count_rows()).num_partitions
            query = query.nprobes(probes or partitions).refine_factor(REFINE)
        else:
            query = query.bypass_vector_index()
        return [int(row["id"]) for row in query.to_list()]


_CONTENDERS: dict[str, Any] = {OURS: _Ours, PEER: _Peer}


def _blocks(vectors: int, width: int, clusters: int) -> Iterator[tuple[int, Vectors]]:
    for start in range(0, vectors, BLOCK):
        yield start, _block(width, clusters, min(BLOCK, vectors - start), seed=start)


def _block(width: int, clusters: int, count: int, seed: int) -> Vectors:
    """float32[count, D], unit length."""
    dice = np.random.default_rng([seed, width])
    block = dice.standard_normal((count, width), np.float32)
    if clusters:
        centres = np.random.default_rng(7).standard_normal((clusters, width), np.float32)
        block += 2 * centres[dice.integers(clusters, size=count)]
    return block / np.linalg.norm(block, axis=1, keepdims=True)


def _truth(vectors: int, width: int, clusters: int, asked: Vectors) -> list[set[int]]:
    """Numbers of the nearest rows of each query."""
    scores = np.empty((len(asked), 0), np.float32)
    numbers = np.empty((len(asked), 0), np.int64)
    for start, block in _blocks(vectors, width, clusters):
        scores = np.concatenate([scores, asked @ block.T], axis=1)
        here = np.broadcast_to(np.arange(start, start + len(block)), (len(asked), len(block)))
        numbers = np.concatenate([numbers, here], axis=1)
        best = np.argsort(-scores, axis=1)[:, :_NEAREST]
        scores = np.take_along_axis(scores, best, axis=1)
        numbers = np.take_along_axis(numbers, best, axis=1)
    return [set(row) for row in numbers.tolist()]


def _recall(answers: list[list[int]], truth: list[set[int]]) -> float:
    pairs = zip(answers, truth, strict=True)
    return float(np.mean([len(true & set(found)) / len(true) for found, true in pairs]))
