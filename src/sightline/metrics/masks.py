"""How well masks fit: one a sample, where two numbers go by the name of IoU, or classes of pixels.

mIoU (gIoU) is the mean over samples of each one's overlap; oIoU (cIoU) is the sum of all shared
pixels over the sum of all covered ones, in which large things weigh more. Both are always returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import InputError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
IGNORED = 255
"""The class of pixels that nobody labelled, in most published data."""


class Overlap(NamedTuple):
    """Pixels of one sample: what a bootstrap draws from."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """0 where both masks are empty."""
        return self.intersection / self.union if self.union else 0.0


class MaskScores(NamedTuple):
    """Scores over all samples; NaN for none."""

    mean_iou: float
    overall_iou: float
    precision: dict[float, float]
    """P@: share of samples whose overlap reaches each threshold."""


class SemanticScores(NamedTuple):
    """Scores of classes of pixels; NaN without any pixel."""

    mean_iou: float
    """Over the classes that occur in the truth or in what was found."""
    pixel_accuracy: float
    mean_accuracy: float
    """Over the classes that occur in the truth."""
    per_class: NDArray[np.float64]
    """IoU of each class; NaN for one that occurs nowhere."""


def overlap(predicted: NDArray[np.bool_] | None, truth: NDArray[np.bool_]) -> Overlap:
    """Shared and covered pixels of two masks bool[H, W]; None, an answer without a mask, is empty.

    Raises:
        InputError: masks of different shapes, or numbers that are no masks.
    """
    if predicted is None:
        predicted = np.zeros_like(truth)
    if predicted.shape != truth.shape or {predicted.dtype, truth.dtype} != {np.dtype(bool)}:
        raise InputError(
            "two masks are bool[H, W] of the same picture, "
            f"{predicted.dtype}{list(predicted.shape)} and {truth.dtype}{list(truth.shape)} arrived"
        )
    return Overlap(int((predicted & truth).sum()), int((predicted | truth).sum()))


def mask_scores(
    overlaps: Sequence[Overlap], thresholds: Sequence[float] = THRESHOLDS
) -> MaskScores:
    """The scores of all samples together."""
    ious = np.array([each.iou for each in overlaps])
    shared, covered = (sum(each[part] for each in overlaps) for part in (0, 1))
    if not len(ious):
        return MaskScores(math.nan, math.nan, dict.fromkeys(thresholds, math.nan))
    overall = shared / covered if covered else 0.0
    reached = {each: float((ious >= each).mean()) for each in thresholds}
    return MaskScores(float(ious.mean()), overall, reached)


def confusion(
    predicted: NDArray[Any], truth: NDArray[Any], classes: int, ignored: int | None = IGNORED
) -> NDArray[np.int64]:
    """Pixels of one picture by class: int64[C, C + 1], a row a true class.

    Of pictures together it is the sum. The last column holds pixels where something was found that
    is no class: they are wrong for the true one and count for no other.

    Args:
        predicted: whole numbers [H, W].
        truth: the same, from 0 to `classes` - 1, or `ignored`.
        classes: C.
        ignored: what marks pixels that do not count; None if all do.

    Raises:
        InputError: shapes that differ, numbers that are not whole, or a true class that is none.
    """
    if predicted.shape != truth.shape or not {predicted.dtype.kind, truth.dtype.kind} <= set("iu"):
        raise InputError(
            "two maps of classes are whole numbers [H, W] of the same picture, "
            f"{predicted.dtype}{list(predicted.shape)} and {truth.dtype}{list(truth.shape)} arrived"
        )
    counts = np.ones(truth.shape, bool) if ignored is None else truth != ignored
    rows, columns = truth[counts].astype(np.int64), predicted[counts].astype(np.int64)
    if len(rows) and not (0 <= rows.min() and rows.max() < classes):
        wrong = rows[(rows < 0) | (rows >= classes)][0]
        raise InputError(f"the truth has a class {wrong}; there are {classes}, counted from 0")
    columns = np.where((columns < 0) | (columns >= classes), classes, columns)
    flat = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1)


def semantic_scores(confusions: NDArray[np.int64]) -> SemanticScores:
    """Scores of the sum of `confusion` over pictures, int64[C, C + 1]."""
    hits = confusions.diagonal().astype(np.float64)  # of the square part: [C]
    true = confusions.sum(axis=1)
    union = true + confusions[:, :-1].sum(axis=0) - hits
    with np.errstate(invalid="ignore"):
        ious, recalls = hits / union, hits / true  # NaN where a class does not occur
    return SemanticScores(
        _mean(ious),
        float(hits.sum() / true.sum()) if true.any() else math.nan,
        _mean(recalls),
        ious,
    )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
