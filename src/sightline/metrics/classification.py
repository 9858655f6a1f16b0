"""One label or several: accuracy, recall per class, average precision, F1, confusion matrix.

Ties and scores that are not finite count against the model, as in `metrics.retrieval`.
Letters: N samples, C classes.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.core.errors import InputError
from sightline.metrics.retrieval import best_ranks

UNDECIDED = -1
"""The class predicted where the best score is shared or a score is not finite."""


class F1(NamedTuple):
    """Harmonic mean of precision and recall for independent labels."""

    micro: float
    """Over all decisions together."""
    macro: float
    """Mean over the classes; a class with nothing to find and nothing found is 0, as in
    scikit-learn."""
    per_class: Float[Tensor, " C"]


def target_ranks(scores: Float[Tensor, "N C"], targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The rank of the true class of each sample, 1 for first.

    Raises:
        InputError: a target is not a column of `scores`.
    """
    _check_targets(targets, scores.shape[1])
    positives = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    positives.scatter_(1, targets[:, None].to(scores.device), True)
    return best_ranks(scores, positives)


def top_k_accuracy(scores: Float[Tensor, "N C"], targets: Int[Tensor, " N"], k: int = 1) -> float:
    """Share of samples whose true class is among the k best; NaN for no sample.

    Raises:
        InputError: a target is not a column of `scores`.
    """
    return (target_ranks(scores, targets) <= k).double().mean().item()


def predict(scores: Float[Tensor, "N C"]) -> Int[Tensor, " N"]:
    """The best class of each sample, or `UNDECIDED` where there is not exactly one.

    Equal to the true class exactly where `target_ranks` is 1.
    """
    if scores.shape[1] == 0:
        return torch.full((len(scores),), UNDECIDED, device=scores.device)
    best, index = scores.max(dim=1)
    shared = (scores == best[:, None]).sum(dim=1) != 1
    broken = ~torch.isfinite(scores).all(dim=1)
    return index.masked_fill(shared | broken, UNDECIDED)


def confusion_matrix(
    targets: Int[Tensor, " N"], predicted: Int[Tensor, " N"], classes: int
) -> Int[Tensor, "C C1"]:
    """Counts by true class (row) and predicted class (column); the last column is `UNDECIDED`.

    Raises:
        InputError: a class outside 0 .. classes - 1 (and, for predictions, not `UNDECIDED`).
    """
    _check_targets(targets, classes)
    if len(predicted) and (predicted.min() < UNDECIDED or predicted.max() >= classes):
        raise InputError(f"predicted classes must lie in -1 .. {classes - 1}")
    column = torch.where(predicted == UNDECIDED, classes, predicted)
    counts = torch.bincount(targets * (classes + 1) + column, minlength=classes * (classes + 1))
    return counts.view(classes, classes + 1)


def recall_per_class(
    targets: Int[Tensor, " N"], predicted: Int[Tensor, " N"], classes: int
) -> Float[Tensor, " C"]:
    """Share of each class's samples that were predicted right; NaN for a class without samples."""
    matrix = confusion_matrix(targets, predicted, classes)
    return matrix.diagonal().double() / matrix.sum(dim=1)


def mean_per_class_recall(
    targets: Int[Tensor, " N"], predicted: Int[Tensor, " N"], classes: int
) -> float:
    """Mean recall over the classes that have samples (balanced accuracy); NaN for no sample."""
    return recall_per_class(targets, predicted, classes).nanmean().item()


def average_precision(scores: Float[Tensor, " N"], relevant: Bool[Tensor, " N"]) -> float:
    """Sum over the relevant samples of the precision at their rank, divided by their number.

    Not interpolated. In a tie the irrelevant samples stand first, so the value is at most that of
    scikit-learn, which takes a tie as one step, and equal to it without ties. A relevant sample
    whose score is not finite is never found. NaN when nothing is relevant.
    """
    count = int(relevant.sum())
    if count == 0:
        return math.nan
    finite = torch.isfinite(scores)
    worst = torch.where(relevant, -math.inf, math.inf).to(scores.dtype)
    judged = torch.where(finite, scores, worst)
    irrelevant_first = relevant.long().argsort(stable=True)
    order = judged[irrelevant_first].argsort(descending=True, stable=True)
    found = (relevant & finite)[irrelevant_first][order].double()
    precision = found.cumsum(dim=0) / torch.arange(1, len(found) + 1, device=found.device)
    return (precision * found).sum().item() / count


def mean_average_precision(
    scores: Float[Tensor, "N C"],
    relevant: Bool[Tensor, "N C"],
    empty_classes: Literal["skip", "zero"] = "skip",
) -> float:
    """Mean of `average_precision` over the classes.

    Args:
        scores: one column for each class.
        relevant: True where the sample has the label.
        empty_classes: what a class without a relevant sample is: "skip" leaves it out, "zero"
            counts it as 0, as some published harnesses do.
    """
    values = torch.tensor(
        [average_precision(scores[:, c], relevant[:, c]) for c in range(scores.shape[1])],
        dtype=torch.float64,
    )
    if empty_classes == "zero":
        values = values.nan_to_num(0.0)
    return values.nanmean().item()


def f1(predicted: Bool[Tensor, "N C"], relevant: Bool[Tensor, "N C"]) -> F1:
    """Micro and macro F1 of independent yes-or-no labels; NaN for no sample.

    Raises:
        InputError: the two tensors differ in shape.
    """
    if predicted.shape != relevant.shape:
        raise InputError(
            f"predicted is {list(predicted.shape)} and relevant {list(relevant.shape)}: "
            "both must be [samples, classes]"
        )
    hits = (predicted & relevant).sum(dim=0).double()  # [C]
    decided = (predicted.sum(dim=0) + relevant.sum(dim=0)).double()  # [C]
    if len(predicted) == 0:
        return F1(math.nan, math.nan, torch.full_like(decided, math.nan))
    per_class = 2 * hits / decided.clamp(min=1)
    micro = (2 * hits.sum() / decided.sum().clamp(min=1)).item()
    return F1(micro, per_class.mean().item(), per_class)


def _check_targets(targets: Tensor, classes: int) -> None:
    if len(targets) and (targets.min() < 0 or targets.max() >= classes):
        raise InputError(
            f"a target is {int(targets.min())} .. {int(targets.max())}: "
            f"with {classes} classes it must lie in 0 .. {classes - 1}"
        )
