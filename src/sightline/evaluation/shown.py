"""Pictures shown to a model that finds places, and a grey one of the same size beside each.

What a model finds before grey it did not see; a score means little without that one beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sightline.data.records import Record
from sightline.data.regions import Region
from sightline.evaluation import results
from sightline.evaluation.compare import compare_blind
from sightline.evaluation.judged import verdict_of
from sightline.evaluation.records import UNREADABLE, data_sha256
from sightline.evaluation.results import Sample
from sightline.tasks.batching import read_named

BASELINE = "grey-same-size"
"""In a signature: what stands beside a score as `blind`, where it was asked for."""
_GREY = 127


class FindingModel(Protocol):
    """The part of a loaded model that finds what it is told."""

    def detect(self, image: Any, queries: Iterable[str] | None = None) -> Any: ...


class CuttingModel(Protocol):
    """The part of a loaded model that cuts out what it is told."""

    def segment(self, image: Any, queries: Iterable[str] | None = None) -> Any: ...


class Shown(NamedTuple):
    """A decoded picture, or why there is none."""

    pixels: NDArray[np.uint8] | None
    """uint8[H, W, 3]"""
    reason: str | None = None

    @property
    def grey(self) -> NDArray[np.uint8] | None:
        """The baseline's picture."""
        return None if self.pixels is None else np.full_like(self.pixels, _GREY)


def show(record: Record, place: int) -> Shown:
    """The picture of a record.

    Args:
        place: of the record, for the message where it cannot be read.
    """
    try:
        return Shown(read_named(record.image, place))
    except UNREADABLE as error:
        return Shown(None, str(error))


def picture_of(record: Record) -> str:
    """The same for records of one file, as RefCOCO has one for each expression."""
    image = record.image
    return results.short_hash([str(image)]) if isinstance(image, Path) else record.id


def places_sha(records: Sequence[Record]) -> str:
    """Hash of pictures and everything that is marked in them, in any order of records."""
    marked = sorted(
        str([record.id, [region.to_json() for region in record.regions]]) for record in records
    )
    return results.short_hash([data_sha256(records), *marked])


def truth_line(region: Region) -> str:
    """A region as the target of a sample."""
    return f"{region.label} {list(region.box)}"


def against_grey(samples: Sequence[Sample], seed: int) -> dict[str, Any]:
    """The fields `tests` and `verdict` of a result; none without a baseline or a sample."""
    if not samples or any(sample.blind_score is None for sample in samples):
        return {}
    test = compare_blind(samples, seed)
    return {"tests": {"blind": test}, "verdict": verdict_of(test)}
