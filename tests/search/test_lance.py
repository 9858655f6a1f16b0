"""The store on LanceDB: rows in and out, search against plain products, filters, two writers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core import lazy
from sightline.core.errors import MissingDependencyError, StoreError
from sightline.search import approximate, lance
from sightline.search.conditions import Among, Both, Compare, Condition, Like, Not
from sightline.search.lance import LanceStore
from sightline.search.manifests import manifests
from sightline.search.pairs import near_pairs
from sightline.search.recall import measure_recall, share_found
from sightline.search.store import Match, Rows, VectorStore
from tests.search.stores import DIM, FIELDS, PATHS, contents, expected, holds, rows, store

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> LanceStore:
    return store(tmp_path_factory.mktemp("store"), rows(40), rows(30, seed=1, first=40))


def test_the_interface_stays_small() -> None:
    members = {name for name in vars(VectorStore) if not name.startswith("_")}
    assert len(members) <= 12
    assert members <= set(dir(LanceStore))


def test_what_goes_in_comes_out_also_after_opening_again(tmp_path: Path) -> None:
    parts = [rows(20), rows(10, seed=5, first=15)]  # five of them replace earlier ones
    with_parts = store(tmp_path, *parts)
    assert contents(with_parts) == expected(*parts)
    again = LanceStore.open(tmp_path)
    assert contents(again) == expected(*parts)
    assert again.about == {"made": "by a test"} and again.fields == FIELDS
    assert again.count() == 25 and again.info().rows == 25 and again.info().dim == DIM


def test_adding_the_same_again_changes_nothing(tmp_path: Path) -> None:
    made = store(tmp_path, rows(20), rows(20))
    LanceStore.open(tmp_path).upsert(rows(20))
    assert contents(made) == expected(rows(20))


def test_search_is_the_products_in_order(filled: LanceStore) -> None:
    all_rows = next(iter([*filled.scan(vectors=True)]))
    query = rows(1, seed=9).vectors[0]
    scores = {}
    for part in filled.scan(vectors=True):
        scores.update(zip(part.ids, (part.vectors @ query).tolist(), strict=True))
    best = sorted(scores, key=lambda name: -scores[name])[:7]
    found = filled.search(query, 7)
    assert [match.id for match in found] == best
    for match in found:
        assert match.score == pytest.approx(scores[match.id], abs=1e-5)
    assert set(found[0].fields) == set(FIELDS)
    assert len(filled.search(all_rows.vectors[0], 1000)) == 70


def conditions() -> st.SearchStrategy[Condition]:
    operators = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
    texts = st.sampled_from(PATHS) | st.text(max_size=8)
    # Rust and Python agree on the case of these.
    patterns = (
        st.sampled_from(PATHS)
        | st.text("abPNG%_'\"\\\n .*?ü", max_size=6)
        | st.sampled_from(["*png", "?.png", "*", "%", "_", "(", ".", "[a]"])
    )
    leaves = (
        st.builds(Compare, st.just("width"), operators, st.integers(-2, 9))
        | st.builds(Compare, st.just("path"), st.sampled_from(["=", "!="]), texts)
        | st.builds(Compare, st.just("missing"), st.sampled_from(["=", "!="]), st.booleans())
        | st.builds(Among, st.just("path"), st.lists(texts, min_size=1, max_size=4).map(tuple))
        | st.builds(Like, st.just("path"), patterns)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(Not, inner) | st.builds(Both, st.sampled_from(["and", "or"]), inner, inner)
        ),
        max_leaves=5,
    )


@settings(max_examples=150, deadline=None)
@given(conditions())
def test_a_condition_means_what_python_says(filled: LanceStore, condition: Condition) -> None:
    every = expected(rows(40), rows(30, seed=1, first=40))
    names = list(FIELDS)
    wanted = {
        name
        for name, (_, *values) in every.items()
        if holds(condition, dict(zip(names, values, strict=True)))
    }
    assert {name for part in filled.scan(where=condition) for name in part.ids} == wanted
    assert filled.count(condition) == len(wanted)
    found = filled.search(rows(1, seed=9).vectors[0], 100, condition)
    assert {match.id for match in found} == wanted


def test_rows_are_updated_and_removed_by_id(tmp_path: Path) -> None:
    made = store(tmp_path, rows(20))
    assert made.update(["id00001", "id00002", "nobody"], {"missing": True}) == 2
    assert {m.id for m in made.search(rows(1).vectors[0], 50, Compare("missing", "=", True))} >= {
        "id00001",
        "id00002",
    }
    assert made.remove(["id00003", "id00004", "' or 1=1 --"]) == 2
    assert made.count() == 18 and made.remove([]) == 0


def test_many_small_commits_are_joined_and_old_versions_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "KEPT", lance.timedelta(0))
    monkeypatch.setattr(lance, "MARGIN", lance.timedelta(seconds=0.5))
    parts = [rows(3, seed=n, first=3 * n) for n in range(12)]
    made = store(tmp_path, *parts)
    time.sleep(1.2)
    made.update(["id00000"], {"missing": False})
    newest = manifests(tmp_path)[0].version
    said: list[str] = []
    made.tidy(said.append)
    assert said == ["joining 13 files"]
    whole = contents(made)
    assert set(whole) == set(expected(*parts))
    assert made._table.stats()["fragment_stats"]["num_fragments"] == 1
    # The state before is there to be stepped back to, and its seal; what was older is gone.
    versions = {manifest.version for manifest in manifests(tmp_path)}
    assert newest in versions and newest - 2 not in versions
    assert {int(path.stem) for path in (tmp_path / "seals").iterdir()} <= versions
    manifests(tmp_path)[0].path.write_bytes(b"")
    back = LanceStore.open(tmp_path)
    assert back.info().damage and contents(back) == whole
    back.close()


def test_an_approximate_index_is_built_tuned_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "APPROXIMATE_FROM", 600)
    made = store(tmp_path, rows(500))
    made.tidy()
    assert made.info().approximation is None
    made.upsert(rows(500, seed=1, first=500))
    made.tidy()
    tuned = made.info().approximation
    assert tuned is not None and tuned.rows == 1000 and tuned.recall >= 0.95
    found = measure_recall(made, 30)
    assert found.approximate and found.mean >= 0.9 and found.sampled == 30
    query = rows(1, seed=1).vectors[0]  # one of the rows
    assert made.search(query, 1)[0].score == pytest.approx(1, abs=1e-5)
    # Rows that came after the index are found as well, and so is everything without it.
    late = rows(100, seed=2, first=1000)
    made.upsert(late)
    assert made.search(late.vectors[3], 1)[0].id == late.ids[3]
    assert approximate.rows_outside(made._table) == 100
    made.tidy()
    assert approximate.rows_outside(made._table) == 0 and made.info().approximation == tuned
    assert made.search(late.vectors[3], 1)[0].id == late.ids[3]
    (tmp_path / "approximate.json").write_text("{")
    assert made.info().approximation is None
    assert made.search(query, 1)[0].score == pytest.approx(1, abs=1e-5)


def test_where_no_number_of_partitions_is_enough_everything_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "APPROXIMATE_FROM", 100)
    monkeypatch.setattr(approximate, "WANTED_RECALL", 2.0)
    made = store(tmp_path, rows(300))
    made.tidy()
    tuned = made.info().approximation
    assert tuned is not None and tuned.probes == 0 and not measure_recall(made, 5).approximate
    version = made.info().version
    made.tidy()  # and it is not built again for the same rows
    assert made.info().version == version


def test_recall_counts_equal_scores_as_found() -> None:
    def matches(*scores: float) -> list[Match]:
        return [Match(str(place), score, {}) for place, score in enumerate(scores)]

    truth = matches(0.9, 0.8, 0.7, 0.7)
    assert share_found(truth, truth) == 1
    assert share_found(matches(0.9, 0.7, 0.7, 0.7), truth) == 1
    assert share_found(matches(0.9, 0.8, 0.6, 0.5), truth) == 0.5
    assert share_found([], truth) == 0 and share_found([], []) == 1


def test_finding_oneself_is_no_find(filled: LanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    search = filled.search

    def only_itself(vector: Any, k: int, where: Any = None, exact: bool = False) -> list[Match]:
        return search(vector, k, where, exact=True)[: k if exact else 1]

    monkeypatch.setattr(filled, "search", only_itself)
    found = measure_recall(filled, 10, k=4)
    assert (found.mean, found.worst) == (0, 0)


def test_recall_of_an_exact_store_is_one(filled: LanceStore, tmp_path: Path) -> None:
    found = measure_recall(filled, 20, k=5)
    assert (found.mean, found.worst, found.approximate, found.sampled) == (1, 1, False, 20)
    with pytest.raises(StoreError, match="at least two rows, the index has 1"):
        measure_recall(store(tmp_path, rows(1)))


def test_near_pairs_are_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.search.pairs._BLOCK", 7)
    vectors = np.concatenate([rows(30).vectors, rows(4).vectors])
    scores = vectors @ vectors.T
    wanted = {(i, j) for i in range(34) for j in range(i + 1, 34) if scores[i, j] >= 0.4}
    seen: list[tuple[int, int]] = []
    found = set()
    for block in near_pairs(vectors, 0.4, lambda done, total: seen.append((done, total))):
        found |= set(zip(block.left.tolist(), block.right.tolist(), strict=True))
    assert found == wanted and {(0, 30), (3, 33)} <= found
    assert seen[-1] == (34, 34)


WRITER = """
import sys
from pathlib import Path
from sightline.search.lance import LanceStore
from tests.search.stores import rows
first = int(sys.argv[2])
store = LanceStore.open(Path(sys.argv[1]))
for number in range(12):
    store.upsert(rows(4, seed=number, first=first + 4 * number))
    store.upsert(rows(4, seed=number, first=1000 + 4 * number))   # both write these
"""


def test_two_writers_and_a_reader_lose_and_double_nothing(tmp_path: Path) -> None:
    made = store(tmp_path, rows(10))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(first)], cwd=ROOT)
        for first in (100, 200)
    ]
    counts = [made.count()]
    query = rows(1).vectors[0]
    while any(writer.poll() is None for writer in writers):
        made.tidy()  # joins files while the others write and this one reads
        counts.append(made.count())
        assert made.search(query, 1)[0].score == pytest.approx(1, abs=1e-5)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert counts == sorted(counts)
    shared = [rows(4, seed=number, first=1000 + 4 * number) for number in range(12)]
    own = [rows(4, seed=n, first=first + 4 * n) for first in (100, 200) for n in range(12)]
    assert contents(LanceStore.open(tmp_path)) == expected(rows(10), *own, *shared)


def test_searches_go_on_while_files_are_joined(tmp_path: Path) -> None:
    parts = [rows(20, seed=n, first=20 * n) for n in range(12)]
    made = store(tmp_path, *parts)
    reader = LanceStore.open(tmp_path)
    query = parts[3].vectors[7]
    wrong: list[Any] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            found = reader.search(query, 1)
            if not found or found[0].id != parts[3].ids[7]:
                wrong.append(found)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for number in range(3):
            for small in range(10):
                made.upsert(rows(1, seed=small, first=10_000 + 10 * number + small))
            made.tidy()
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_a_read_of_a_version_that_was_dropped_is_asked_again(tmp_path: Path) -> None:
    made = store(tmp_path, rows(5))
    asked = []

    def ask() -> int:
        asked.append(1)
        if len(asked) == 1:
            raise RuntimeError("Object at location data/1.lance not found")
        return 7

    assert made._read(ask) == 7 and len(asked) == 2


def test_a_foreign_table_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    import lancedb

    with pytest.raises(StoreError, match="there is no index in this folder"):
        LanceStore.open(tmp_path)
    lancedb.connect(str(tmp_path)).create_table("vectors", [{"vector": [0.6, 0.8], "id": "a"}])
    with pytest.raises(StoreError, match="not written by Sightline"):
        LanceStore.open(tmp_path)


def test_a_missing_lancedb_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(lazy.importlib, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sightline\[search\]'"):
        LanceStore.open(tmp_path)


def test_an_empty_store_answers(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.upsert(Rows([], np.empty((0, DIM), np.float32), {}))
    assert made.search(rows(1).vectors[0], 5) == [] and made.count() == 0
    assert list(near_pairs(np.empty((0, DIM), np.float32), 0.5)) == []
    made.tidy()
