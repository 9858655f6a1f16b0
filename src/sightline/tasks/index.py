"""An index of pictures on disk: add folders, search by words or pictures, keep it up to date.

A row is a picture: its vector, its path, and what its file said when it was read. The row's key
comes from the path, so that adding the same folder again changes nothing: files of the same size
and time are passed over, changed ones are embedded again in their place, and those that are gone
stay, marked as missing, until they are removed. No picture is copied.

Searching many pictures this way is not `visual_search`, which looks around inside a single one.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sightline.core.errors import ConfigError, DataError, InputError
from sightline.search.conditions import Among, Compare, Condition, both, fields_of
from sightline.search.filters import parse_filter
from sightline.search.lance import LanceStore
from sightline.search.opening import store_exists
from sightline.search.store import VectorStore
from sightline.tasks.batching import is_single
from sightline.tasks.embeddings import Embeddings, of_images
from sightline.tasks.index_answers import Added, Alike, Found, IndexInfo
from sightline.tasks.index_update import COMMIT_ROWS, COMMIT_SECONDS, Update
from sightline.tasks.indexed import FIELDS, SHOWN, picture_id
from sightline.tasks.model import Model, load
from sightline.tasks.retrieve import embed_queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sightline.tasks.embeddings import Kind

_PRESENT = Compare("missing", "=", False)


class Index:
    """Pictures that can be searched, in a folder; made by `Index.open`.

    Methods raise `StoreError` where the disk is full or the index cannot be read.
    """

    def __init__(self, folder: Path, store: VectorStore) -> None:
        self.folder = folder
        self.store = store
        self._model: Model | None = None

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        model: Model | str | os.PathLike[str] | None = None,
    ) -> Index:
        """The index in a folder; with a model, a new one where there is none.

        Args:
            folder: where it is, or shall be.
            model: what embeds pictures and queries, loaded or by name; by default the one that the
                index was made with, loaded when it is first needed.

        Raises:
            DataError: no index is there and no model is given, or it was made by another model.
            StoreError: it cannot be opened.
            MissingDependencyError: LanceDB is not installed.
        """
        where = Path(folder)
        if isinstance(model, (str, os.PathLike)):
            model = load(model)
        if store_exists(where):
            index = cls(where, LanceStore.open(where))
            if model is not None:
                index.use(model)
            return index
        if model is None:
            raise DataError(
                f"{where}: there is no index in this folder: make one with sightline index add "
                "PICTURES --index FOLDER, or Index.open(folder, model)"
            )
        _check_place(where)
        index = cls(where, LanceStore.create(where, *_description(model)))
        index.use(model)  # another process may have been quicker, with another model
        return index

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self.store.close()

    @property
    def model(self) -> Model:
        """The model of the index, loaded on first use.

        Raises:
            DataError: the model of that name gives other vectors than the index holds.
        """
        if self._model is None:
            name, revision = self.model_name
            self.use(load(name, revision=revision))
        assert self._model is not None
        return self._model

    def use(self, model: Model) -> None:
        """Embed with this model from now on.

        Raises:
            DataError: it gives other vectors than the index holds.
        """
        _made_with(self.store).check_model(model)
        self._model = model

    @property
    def model_name(self) -> tuple[str, str | None]:
        """Name and revision of the model that the index was made with, as `load` takes them."""
        about = self.store.about
        return about["model"], None if os.path.isdir(about["model"]) else about["revision"]

    # Filling

    def add(
        self,
        images: Any,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
        note: Callable[[str], None] | None = None,
        commit_rows: int = COMMIT_ROWS,
        commit_seconds: float = COMMIT_SECONDS,
    ) -> Added:
        """Add pictures, or look again at those that are there.

        What was committed survives whatever happens to the process; calling it again goes on.

        Args:
            images: a folder (at any depth), files, addresses, or pictures in memory.
            batch_size: pictures through the network at once.
            progress: called with (done, all) pictures that had to be embedded.
            note: called with a sentence when the index is tidied up.
            commit_rows, commit_seconds: a commit happens after so many pictures or so long.

        Raises:
            DataError: a folder that does not exist or holds no picture.
            DamagedStoreError: the index has to be repaired first.
        """
        update = Update(self.store, images)
        report = update.run(lambda: self.model, batch_size, (commit_rows, commit_seconds), progress)
        if update.wrote:
            self.store.tidy(note)
        return report

    def remove(self, ids: str | Iterable[str]) -> int:
        """Remove pictures by id or path; files are not touched. How many there were."""
        listed = [ids] if isinstance(ids, str) else list(ids)
        return self.store.remove(sorted({self._id(name) for name in listed}))

    # Asking

    def search(
        self,
        query: Any,
        k: int = 10,
        where: str | None = None,
        kind: Kind | None = None,
        exact: bool = False,
    ) -> Any:
        """The k pictures that fit best, best first: [Found]; a list of them for a list of queries.

        Args:
            query: a string is a text unless `kind` says that it is a picture's path; a `Path`,
                bytes, PIL image or array is a picture.
            k: how many; fewer where fewer fit.
            where: a filter such as `width>=640 and folder="holiday"` (see `search.filters`).
                Missing pictures are left out unless the filter mentions them.
            kind: "text" or "image".
            exact: compare every vector, also where there is an approximate index.

        Raises:
            ConfigError: a filter that cannot be read, or a k below one.
            UnsupportedTaskError: words asked of a model that reads none.
        """
        condition = self._condition(where)
        single = is_single(query)
        vectors = embed_queries(self.model, query, kind).numpy()
        answers = [self._nearest(vector, k, condition, exact) for vector in vectors]
        return answers[0] if single else answers

    def like(self, name: str, k: int = 10, where: str | None = None) -> list[Found]:
        """The k pictures most like one of the index, which is named by id or path.

        Raises:
            InputError: the index has no such picture.
        """
        own = self._id(name)
        rows = next(self.store.scan(where=Among("id", (own,)), vectors=True), None)
        if rows is None or not rows.ids:
            raise InputError(f"the index has no picture {name!r}: give an id or a path it shows")
        found = self._nearest(rows.vectors[0], k + 1, self._condition(where), False)
        return [hit for hit in found if hit.id != own][:k]

    def duplicates(
        self,
        threshold: float = 0.97,
        where: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Alike]:
        """Pairs of pictures with a cosine of at least the threshold, closest first.

        Every pair is compared: twice as many pictures take four times as long.

        Raises:
            ConfigError: a threshold outside -1 to 1.
        """
        from sightline.search.pairs import near_pairs

        if not -1 <= threshold <= 1:
            raise ConfigError(f"the threshold is a cosine, -1 to 1, not {threshold!r}")
        vectors, paths = self._all(self._condition(where))
        alike = [
            Alike(paths[left], paths[right], float(score))
            for block in near_pairs(vectors, threshold, progress)
            for left, right, score in zip(*block, strict=True)
        ]
        return sorted(alike, key=lambda pair: (-pair.score, pair.left, pair.right))

    def info(self) -> IndexInfo:
        """Counts, the model, size and damage."""
        about = self.store.about
        state = self.store.info()
        present = self.store.count(_PRESENT)
        return IndexInfo(
            str(self.folder), present, state.rows - present, about["model"], about["revision"],
            about["preprocessing"], state,
        )  # fmt: skip

    # Inside

    def _condition(self, where: str | None) -> Condition | None:
        condition = parse_filter(where, self.store.fields) if where and where.strip() else None
        if condition is not None and "missing" in fields_of(condition):
            return condition
        return both(condition, _PRESENT)

    def _nearest(
        self, vector: NDArray[np.float32], k: int, condition: Condition | None, exact: bool
    ) -> list[Found]:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(f"k must be a whole number of at least 1, not {k!r}")
        found = []
        for match in self.store.search(vector, k, condition, exact):
            path = os.fsdecode(match.fields["file"])
            shown = {name: match.fields[name] for name in SHOWN}
            found.append(Found(match.id, match.score, path, shown))
        return found

    def _all(self, condition: Condition | None) -> tuple[NDArray[np.float32], list[str]]:
        """Every vector and path that fits, the first added first."""
        blocks, files, added = [], [], []
        for rows in self.store.scan(("file", "added"), condition, vectors=True):
            blocks.append(rows.vectors)
            files += rows.fields["file"]
            added += rows.fields["added"]
        order = sorted(range(len(files)), key=lambda place: (added[place], files[place]))
        vectors = np.concatenate(blocks) if blocks else np.empty((0, 1), np.float32)
        return vectors[order], [os.fsdecode(files[place]) for place in order]

    def _id(self, name: str) -> str:
        """The id of a picture that is named by its id or its path."""
        if len(name) == 20 and set(name) <= set("0123456789abcdef"):
            return name
        if name.startswith("memory:"):
            return name.removeprefix("memory:")
        return picture_id(name if "://" in name else os.path.abspath(name))


def _description(model: Model) -> tuple[int, Any, dict[str, Any]]:
    """Width, fields and origin of a new store for this model."""
    made, _ = of_images(model, [])
    origin = model.origin
    lasting = origin.base if origin is not None and " + " not in made.model else None
    about = {
        "format": "sightline.index",
        "version": 1,
        "model": lasting or made.model,
        "revision": made.revision,
        "dim": made.dim,
        "preprocessing": made.preprocessing,
        "probe": base64.b64encode(made.probe.numpy().astype("<f4").tobytes()).decode(),
    }
    return made.dim, FIELDS, about


def _made_with(store: VectorStore) -> Embeddings:
    """Who made the vectors of a store, as an empty collection that can be compared with a model.

    Raises:
        DataError: a newer index than this program reads.
    """
    about = store.about
    if about.get("format") != "sightline.index":
        raise DataError("this store holds no index of pictures that Sightline wrote")
    if about["version"] != 1:
        raise DataError(
            f"an index of version {about['version']}, this program reads 1: update Sightline"
        )
    dim = about["dim"]
    numbers = np.frombuffer(base64.b64decode(about["probe"]), "<f4").reshape(-1, dim).copy()
    return Embeddings(
        ids=(), vectors=torch.empty(0, dim), kind="image", model=about["model"],
        revision=about["revision"], preprocessing=about["preprocessing"],
        probe=torch.from_numpy(numbers),
    )  # fmt: skip


def _check_place(folder: Path) -> None:
    if folder.is_file():
        raise DataError(f"{folder} is a file: give a folder for the index")
