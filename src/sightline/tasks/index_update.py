"""Bringing an index up to date with files: what is new, changed, touched, back, or gone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.core.errors import DataError
from sightline.search.conditions import Among
from sightline.search.store import Rows, VectorStore
from sightline.tasks.batching import Failed
from sightline.tasks.embed import embed_each
from sightline.tasks.index_answers import Added
from sightline.tasks.indexed import FIELDS, Picture, Seen, lies_below, pictures_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.tasks.model import Model

COMMIT_ROWS, COMMIT_SECONDS = 10_000, 30.0
"""A commit waits for so many pictures, or so long: each one is a version that later costs reads."""
_NOTHING = Rows([], np.empty((0, 0), np.float32), {})

Progress = Callable[[int, int], None]


class Update:
    """One call of `Index.add`: what the store knew before, and what is being done about it."""

    def __init__(self, store: VectorStore, images: Any) -> None:
        store.upsert(_NOTHING)  # a damaged index is refused before anything is embedded
        self.store = store
        self.report = Added()
        given, self.folders = pictures_of(images)
        self.known = self._known()
        self.fresh, self.again = self._sorted_out(given)
        below = any(lies_below(seen.file, self.folders) for seen in self.known.values())
        if not self.fresh and not self.report.unchanged and not below:
            raise DataError(f"{', '.join(self.folders) or 'nothing'}: no pictures to index")

    def run(
        self,
        model: Callable[[], Model],
        batch_size: int,
        commits: tuple[int, float],
        progress: Progress | None,
    ) -> Added:
        """Mark what is gone, embed what is new; the model is asked for only where it is needed."""
        self._refresh()
        self._mark_missing()
        if not self.fresh:
            return self.report
        vectors = embed_each(model(), self.fresh, batch_size, "collect")
        with _Writer(self.store, *commits) as writer:
            for place, (picture, vector) in enumerate(
                zip(self.fresh, vectors, strict=True), start=1
            ):
                if isinstance(vector, Failed):
                    self.report.failed.append(vector)
                else:
                    writer.write(picture, vector.numpy())
                    self.report.changed += picture.id in self.known
                    self.report.added += picture.id not in self.known
                if progress is not None:
                    progress(place, len(self.fresh))
        return self.report

    @property
    def wrote(self) -> bool:
        """Whether anything in the store is another now."""
        return bool(self.fresh or self.again or self.report.missing)

    def _known(self) -> dict[str, Seen]:
        """What the index holds; a few hundred bytes a picture."""
        names = ("bytes", "modified", "digest", "missing", "file")
        known: dict[str, Seen] = {}
        for rows in self.store.scan(names):
            values = zip(*(rows.fields[name] for name in names), strict=True)
            known.update(zip(rows.ids, (Seen(*row) for row in values), strict=True))
        return known

    def _sorted_out(self, given: Iterator[Picture]) -> tuple[list[Picture], list[Picture]]:
        """Pictures to embed, and known ones of which only the time or the mark is out of date."""
        fresh: dict[str, Picture] = {}
        again: list[Picture] = []
        for picture in given:
            picture.look()
            seen = self.known.get(picture.id)
            if seen is None or not picture.is_as(seen):
                fresh[picture.id] = picture
                continue
            self.report.unchanged += 1
            if seen.missing or (picture.is_file and picture.modified != seen.modified):
                again.append(picture)
        return list(fresh.values()), again

    def _refresh(self) -> None:
        for start in range(0, len(self.again), 1000):
            part = {picture.id: picture for picture in self.again[start : start + 1000]}
            for rows in self.store.scan(FIELDS, Among("id", tuple(part)), vectors=True):
                for row, name in enumerate(rows.ids):
                    rows.fields["missing"][row] = False
                    rows.fields["modified"][row] = part[name].modified
                self.store.upsert(rows)

    def _mark_missing(self) -> None:
        """Mark what lies below the folders and is gone."""
        gone = [
            name
            for name, seen in self.known.items()
            if not seen.missing
            and lies_below(seen.file, self.folders)
            and not os.path.exists(seen.file)
        ]
        self.report.missing = self.store.update(gone, {"missing": True}) if gone else 0


class _Writer:
    """Rows on their way into the store, committed in large parts."""

    def __init__(self, store: VectorStore, rows: int, seconds: float) -> None:
        self.store, self.rows, self.seconds = store, rows, seconds
        self.pictures: list[Picture] = []
        self.vectors: list[NDArray[np.float32]] = []
        self.last = time.monotonic()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # What was embedded is not lost when a person stops the work.
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.commit()

    def write(self, picture: Picture, vector: NDArray[np.float32]) -> None:
        self.pictures.append(picture)
        self.vectors.append(vector)
        late = time.monotonic() - self.last >= self.seconds
        if late or len(self.pictures) >= self.rows:
            self.commit()

    def commit(self) -> None:
        """Bring what has come together to the disk."""
        if self.pictures:
            each = [picture.fields() for picture in self.pictures]
            fields = {name: [row[name] for row in each] for name in FIELDS}
            ids = [picture.id for picture in self.pictures]
            self.store.upsert(Rows(ids, np.stack(self.vectors), fields))
        self.pictures, self.vectors, self.last = [], [], time.monotonic()
