"""What a store of vectors can do, whatever stands behind it, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sightline.search.conditions import Condition

FieldKind = Literal["text", "whole", "time", "flag", "raw"]
"""text; int64; nanoseconds since 1970 in UTC as int64; true or false; bytes, never filtered."""
Fields = Mapping[str, FieldKind]
Progress = Callable[[str], None]

APPROXIMATE_FROM = 100_000
"""Rows; below it every vector is compared, which is quick enough and never wrong."""


class Rows(NamedTuple):
    """Some rows, by column."""

    ids: list[str]
    vectors: NDArray[np.float32]
    """float32[N, D], unit length; [0, 0] where they were not asked for."""
    fields: dict[str, list[Any]]
    """N values for each field of the store, or for those asked for."""


class Match(NamedTuple):
    """One answer of a search."""

    id: str
    score: float
    """Cosine with the query."""
    fields: dict[str, Any]


@dataclass(frozen=True)
class Approximation:
    """The approximate index of a store, as it was tuned."""

    probes: int
    """Partitions that a search looks into; 0 where no number of them found enough, and every
    vector is compared after all."""
    partitions: int
    rows: int
    """Rows when it was tuned."""
    recall: float
    """Share of the true ten nearest that a search with so many probes found, on a sample."""


@dataclass(frozen=True)
class StoreInfo:
    """The state of a store."""

    rows: int
    dim: int
    version: int
    bytes: int
    """On disk, kept versions included."""
    approximation: Approximation | None
    """None: every search compares every vector."""
    damage: tuple[str, ...]
    """Sentences about newer states that could not be opened."""


class VectorStore(Protocol):
    """Rows of (id, vector, fields) that survive whatever happens to the process.

    At most twelve members, so that another engine can stand behind them. A method that writes
    returns when the rows are on the disk; two processes may write at the same time, and a reader
    never sees half of a write. Opening and creating belong to the class.

    Raises, from every method:
        StoreError: the disk is full, or rows cannot be read.
        DamagedStoreError: writing to a store whose newest state is broken.
    """

    @property
    def about(self) -> Mapping[str, Any]:
        """What the creator wrote beside the rows, unchanged since."""
        ...

    @property
    def fields(self) -> Fields:
        """Name and kind of each field."""
        ...

    def upsert(self, rows: Rows) -> None:
        """Add rows of different ids; those whose id is there already are replaced.

        Without rows nothing happens but the check that the store can be written.
        """
        ...

    def update(self, ids: Sequence[str], values: Mapping[str, Any]) -> int:
        """Set fields of these rows; how many there were."""
        ...

    def remove(self, ids: Sequence[str]) -> int:
        """Remove rows; how many there were."""
        ...

    def search(
        self, vector: NDArray[np.float32], k: int, where: Condition | None = None,
        exact: bool = False,
    ) -> list[Match]:  # fmt: skip
        """The k rows with the largest cosine among those that fit the condition, best first."""
        ...

    def scan(
        self, names: Iterable[str] = (), where: Condition | None = None, vectors: bool = False
    ) -> Iterator[Rows]:
        """Every row that fits, in blocks and in no particular order, with these fields."""
        ...

    def count(self, where: Condition | None = None) -> int:
        """How many rows fit."""
        ...

    def tidy(self, progress: Progress | None = None) -> None:
        """Join small files, bring the approximate index up to date, drop old versions."""
        ...

    def info(self) -> StoreInfo:
        """Counts, size and damage."""
        ...

    def close(self) -> None:
        """Let go of files; the store cannot be used afterwards."""
        ...
