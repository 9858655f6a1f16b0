"""A store in one folder, on LanceDB.

    DIR/vectors.lance   the table: id, vector, fields; what the creator says about it in its schema
    DIR/seals           what the manifest of each version must look like (see `manifests`)
    DIR/approximate.json   how the approximate index was tuned, once there is one
    DIR/lock            held for the time of a commit

One commit at a time, each followed by an fsync of what it wrote and by a seal. Small tables are
searched exactly; from 100,000 rows on, an index of 8-bit vectors in partitions is built, and a
search looks into as many of them as it takes to find 95 % of the true neighbours on a sample.
"""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sightline.core.errors import DamagedStoreError, StoreError
from sightline.search.approximate import REFINE, build, read_tuning, rows_outside
from sightline.search.conditions import Among, Condition
from sightline.search.lance_rows import arrow_of, schema_of, told_about, vectors_of
from sightline.search.lance_sql import sql
from sightline.search.locks import writing
from sightline.search.manifests import TABLE, drop_seals, is_sealed, manifests, seal
from sightline.search.opening import (
    BLOCK,
    Opened,
    lancedb,
    open_newest,
    store_exists,
    told,
)
from sightline.search.store import (
    APPROXIMATE_FROM,
    Fields,
    Match,
    Progress,
    Rows,
    StoreInfo,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Answer = TypeVar("Answer")

MANY_FRAGMENTS, MANY_VERSIONS = 8, 50
"""Tables of more are joined; fewer cost a search less than joining them would."""
KEPT, MARGIN = timedelta(minutes=10), timedelta(hours=1)
"""How long an old version stays for those who read it; and how much is added to the age of the one
that was newest, which must stay: Lance asks for the time only after it has joined the files."""


class LanceStore:
    """`VectorStore` on LanceDB embedded; see there for the methods."""

    def __init__(self, folder: Path, opened: Opened) -> None:
        self.folder = folder
        self._table, self._damage, self._view = opened
        if self._view is not None:
            self._drop_view = weakref.finalize(self, shutil.rmtree, self._view, True)
        told = told_about(self._table.schema)
        if told is None:
            raise StoreError(f"{folder}: this index was not written by Sightline")
        self._fields, self._about = told
        self._dim = int(self._table.schema.field("vector").type.list_size)
        self._synced: set[Path] = set()
        self._ids: set[str] = set()
        self._ids_of = -1
        """The version whose ids are known."""

    @classmethod
    def create(cls, folder: Path, dim: int, fields: Fields, about: Mapping[str, Any]) -> LanceStore:
        """An empty store; what is there already is opened instead.

        Args:
            folder: where; made if it is not there.
            dim: D, the length of a vector.
            fields: name and kind of each field.
            about: JSON that `about` returns from then on.

        Raises:
            StoreError: the folder holds something else, or cannot be written.
            MissingDependencyError: LanceDB is not installed.
        """
        database = lancedb()
        with told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with writing(folder):
                if not store_exists(folder):
                    schema = schema_of(dim, fields, about)
                    database.connect(str(folder)).create_table(TABLE, schema=schema)
                    seal(folder, set())
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> LanceStore:
        """The newest state that is whole; a broken newer one is stepped back from with a warning.

        Raises:
            StoreError: there is no store, or none of its versions can be opened.
            MissingDependencyError: LanceDB is not installed.
        """
        lancedb()
        return cls(folder, open_newest(folder))

    @property
    def about(self) -> Mapping[str, Any]:
        """What the creator wrote beside the rows."""
        return self._about

    @property
    def fields(self) -> Fields:
        """Name and kind of each field."""
        return self._fields

    # Writing

    def upsert(self, rows: Rows) -> None:
        """Add rows, or replace those of the same id."""
        with self._commit() as table:
            if not rows.ids:
                return
            known = self._known_ids(table)
            new = [place for place, name in enumerate(rows.ids) if name not in known]
            old = [place for place, name in enumerate(rows.ids) if name in known]
            data = arrow_of(rows, table.schema)
            if new:
                table.add(data if not old else data.take(new))
            if old:
                merge = table.merge_insert("id").when_matched_update_all()
                merge.when_not_matched_insert_all().execute(data if not new else data.take(old))
            known.update(rows.ids)
            self._ids_of = table.version

    def update(self, ids: Sequence[str], values: Mapping[str, Any]) -> int:
        """Set fields of these rows; how many there were."""
        with self._commit() as table:
            return sum(
                table.update(where=sql(Among("id", part)), values=dict(values)).rows_updated
                for part in _blocks(ids)
            )

    def remove(self, ids: Sequence[str]) -> int:
        """Remove rows; how many there were."""
        with self._commit() as table:
            before = table.count_rows()
            for part in _blocks(ids):
                table.delete(sql(Among("id", part)))
            return int(before - table.count_rows())

    def tidy(self, progress: Progress | None = None) -> None:
        """Join small files, bring the approximate index up to date, drop old versions."""
        with self._commit() as table:
            rows = table.count_rows()
            tuned = read_tuning(self.folder)
            grown = tuned is None or rows >= 2 * tuned.rows
            fragments = table.stats()["fragment_stats"]["num_fragments"]
            late = rows_outside(table) > APPROXIMATE_FROM // 10
            if fragments > MANY_FRAGMENTS or len(manifests(self.folder)) > MANY_VERSIONS or late:
                _say(progress, f"joining {fragments:,} files")
                newest = manifests(self.folder)[0].path.stat().st_mtime
                age = timedelta(seconds=time.time() - newest)
                # What is newest now is the state to step back to: it must not be dropped.
                table.optimize(cleanup_older_than=max(KEPT, age + MARGIN))
            if rows >= APPROXIMATE_FROM and grown:
                _say(progress, f"building the approximate index of {rows:,} rows")
                build(table, self.folder, self._nearest)
        drop_seals(self.folder)

    # Reading

    def search(
        self, vector: NDArray[np.float32], k: int, where: Condition | None = None,
        exact: bool = False,
    ) -> list[Match]:  # fmt: skip
        """The k rows with the largest cosine, best first; equal ones by id."""
        tuning = None if exact else read_tuning(self.folder)
        probes = None if tuning is None else tuning.probes or None
        return self._read(lambda: self._nearest(vector, k, probes, where))

    def scan(
        self, names: Iterable[str] = (), where: Condition | None = None, vectors: bool = False
    ) -> Iterator[Rows]:
        """Rows that fit, in blocks, with the fields that are named."""
        listed = list(names)
        columns = ["id", *(["vector"] if vectors else []), *listed]
        with told(self.folder):
            query = self._table.search().select(columns).limit(None)
            if where is not None:
                query = query.where(sql(where))
            for batch in query.to_batches(BLOCK):
                found = vectors_of(batch["vector"]) if vectors else np.empty((0, 0), np.float32)
                fields = {name: batch[name].to_pylist() for name in listed}
                yield Rows(batch["id"].to_pylist(), found, fields)

    def count(self, where: Condition | None = None) -> int:
        """How many rows fit."""
        text = None if where is None else sql(where)
        return self._read(lambda: int(self._table.count_rows(text)))

    def info(self) -> StoreInfo:
        """Counts, size and damage."""
        return StoreInfo(
            rows=self.count(),
            dim=self._dim,
            version=self._read(lambda: int(self._table.version)),
            bytes=sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()),
            approximation=read_tuning(self.folder),
            damage=tuple(str(one) for one in self._damage),
        )

    def close(self) -> None:
        """Let go of the table."""
        self._table = None
        if self._view is not None:
            self._drop_view()

    # Inside

    @contextmanager
    def _commit(self) -> Iterator[Any]:
        """The newest state, held for one writer; what was written is sealed at the end."""
        if self._damage:
            raise DamagedStoreError(
                f"{self.folder}: {self._damage[0]}: run sightline index repair {self.folder}, "
                "then the same command again"
            )
        with told(self.folder), writing(self.folder):
            self._table.checkout_latest()
            yield self._table
            # Also where a killed process came no further than its commit.
            if not is_sealed(self.folder, manifests(self.folder)[0]):
                seal(self.folder, self._synced)

    def _read(self, ask: Callable[[], Answer]) -> Answer:
        """An answer; asked twice, as a version may have been dropped since it was opened."""
        with told(self.folder):
            try:
                return ask()
            except (OSError, RuntimeError, ValueError):
                self._table.checkout_latest()
                return ask()

    def _known_ids(self, table: Any) -> set[str]:
        """The ids of the newest state; read again only where another writer came between."""
        if self._ids_of != table.version:
            self._ids = {name for rows in self.scan() for name in rows.ids}
        return self._ids

    def _nearest(
        self, vector: NDArray[np.float32], k: int, probes: int | None,
        where: Condition | None = None,
    ) -> list[Match]:  # fmt: skip
        names = list(self._fields)
        query = self._table.search(vector, vector_column_name="vector").distance_type("l2")
        query = query.select(["id", *names, "_distance"]).limit(k)
        if where is not None:
            query = query.where(sql(where), prefilter=True)
        if probes is None:
            query = query.bypass_vector_index()
        else:
            query = query.nprobes(probes).refine_factor(REFINE)
        found = [
            # Of unit vectors the squared distance is two less twice the cosine.
            Match(row["id"], 1 - row["_distance"] / 2, {name: row[name] for name in names})
            for row in query.to_arrow().to_pylist()
        ]
        return sorted(found, key=lambda match: (-match.score, match.id))


def _blocks(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(ids), 1000):
        yield tuple(ids[start : start + 1000])


def _say(progress: Progress | None, text: str) -> None:
    if progress is not None:
        progress(text)
