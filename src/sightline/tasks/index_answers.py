"""What an index of pictures answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from sightline.search.store import StoreInfo
from sightline.tasks.batching import Failed


class Found(NamedTuple):
    """One answer of a search in an index."""

    id: str
    score: float
    """Cosine with the query."""
    path: str
    """The picture's file, as the system spells it."""
    fields: dict[str, Any]
    """What the index knows about it: see `tasks.indexed.FIELDS`."""


class Alike(NamedTuple):
    """Two pictures of an index that are nearly the same."""

    left: str
    right: str
    """Paths; the left one was added first."""
    score: float


@dataclass
class Added:
    """What `add` did."""

    added: int = 0
    changed: int = 0
    """Known pictures whose file is another one now, embedded again."""
    unchanged: int = 0
    missing: int = 0
    """Known pictures below the folders given whose file is gone; they were marked."""
    failed: list[Failed] = field(default_factory=list)

    @property
    def pictures(self) -> int:
        """Pictures that are in the index now, of those that were given."""
        return self.added + self.changed + self.unchanged


@dataclass(frozen=True)
class IndexInfo:
    """The state of an index."""

    folder: str
    pictures: int
    """Those whose file was there when it was last looked for."""
    missing: int
    model: str
    revision: str | None
    preprocessing: str
    """Digest of the picture preprocessing."""
    store: StoreInfo

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)
