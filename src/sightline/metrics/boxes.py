"""How well boxes fit: areas, overlaps, and precision and recall at one overlap.

A box is (x1, y1, x2, y2), x2 and y2 exclusive. One that is turned over is empty, and two empty
boxes do not overlap, so that nonsense is never in the model's favour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.core.errors import InputError
from sightline.core.outputs import Detection


class Counts(NamedTuple):
    """What was right among what was found and what there was to find; of one picture or many."""

    hits: int
    found: int
    truth: int

    @property
    def precision(self) -> float:
        """Share of what was found that is right; 0 for nothing found, NaN with nothing to find."""
        return self._share(self.found)

    @property
    def recall(self) -> float:
        """Share of what there was that was found; 0 where there was nothing, NaN with both none."""
        return self._share(self.truth)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN for nothing found and nothing to find."""
        return 2 * self.hits / (self.found + self.truth) if self.found + self.truth else math.nan

    def _share(self, whole: int) -> float:
        if not self.found + self.truth:
            return math.nan
        return self.hits / whole if whole else 0.0


def areas(boxes: ArrayLike) -> NDArray[np.float64]:
    """Areas float64[...] of boxes [..., 4]; 0 for one that is turned over.

    Raises:
        InputError: no boxes.
    """
    corners = _boxes(boxes)
    sides = (corners[..., 2:] - corners[..., :2]).clip(min=0)
    return np.asarray(sides.prod(axis=-1))


def iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union float64[...] of boxes [..., 4] and [..., 4], 0 where both are empty.

    Shapes broadcast: `iou(a[:, None], b)` is that of each of a with each of b. What is not finite
    overlaps nothing.

    Raises:
        InputError: no boxes.
    """
    one, other = _boxes(first), _boxes(second)
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.maximum(one[..., :2], other[..., :2])
        high = np.minimum(one[..., 2:], other[..., 2:])
        shared = (high - low).clip(min=0).prod(axis=-1)
        union = areas(one) + areas(other) - shared
    valid = np.isfinite(union) & (union > 0)
    return np.where(valid, shared / np.where(valid, union, 1), 0.0)


def match(
    truth: Sequence[Detection], found: Sequence[Detection], threshold: float = 0.5
) -> list[int | None]:
    """Which box of the truth each found box is, in one picture; None for none.

    One to one and within a label: from the highest score down (equal and missing scores in the
    order given), each takes the box that it overlaps most among those still free, if by at least
    `threshold`. A score that is not finite comes last.

    Raises:
        InputError: a threshold that is none.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"an overlap to be reached is above 0 and at most 1: {threshold}")
    matches: list[int | None] = [None] * len(found)
    free = set(range(len(truth)))
    overlaps = iou(
        np.reshape([each.box for each in found], (-1, 1, 4)),
        np.reshape([each.box for each in truth], (1, -1, 4)),
    )  # [found truth]
    for place in sorted(range(len(found)), key=lambda place: -_confidence(found[place])):
        same = [other for other in free if truth[other].label == found[place].label]
        best = max(same, key=lambda other: (overlaps[place, other], -other), default=None)
        if best is not None and overlaps[place, best] >= threshold:
            matches[place] = best
            free.remove(best)
    return matches


def count(truth: Sequence[Detection], found: Sequence[Detection], threshold: float = 0.5) -> Counts:
    """What `match` finds in one picture, as numbers. Errors as there."""
    hits = sum(each is not None for each in match(truth, found, threshold))
    return Counts(hits, len(found), len(truth))


def total(counts: Iterable[Counts]) -> Counts:
    """The counts of several pictures together: their precision and recall are micro averages."""
    hits, found, truth = np.array([(0, 0, 0), *counts], np.int64).sum(axis=0).tolist()
    return Counts(hits, found, truth)


def _confidence(found: Detection) -> float:
    if found.score is None:
        return 0.0
    return found.score if math.isfinite(found.score) else -math.inf


def _boxes(values: ArrayLike) -> NDArray[np.float64]:
    boxes: NDArray[Any] = np.asarray(values)
    if boxes.ndim < 1 or boxes.shape[-1] != 4 or boxes.dtype.kind not in "iuf":
        raise InputError(f"boxes are numbers [..., 4], {boxes.dtype}{list(boxes.shape)} arrived")
    return boxes.astype(np.float64)
