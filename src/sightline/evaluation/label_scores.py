"""Scores of labels for pictures to what a result reports: metrics, classes, samples.

Shared by every evaluation in which one of several labels is right (`zeroshot`, `closed_set`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.evaluation.interfaces import RecordLike
from sightline.evaluation.results import Metric, Sample
from sightline.metrics.calibration import expected_calibration_error
from sightline.metrics.classification import predict, recall_per_class
from sightline.metrics.intervals import bootstrap_counts, mean_of, wilson
from sightline.metrics.retrieval import worst_case_top


class LabelScores(NamedTuple):
    """Scores of every label for every picture, NaN where a picture could not be read."""

    scores: Float[Tensor, "N C"]
    read: Bool[Tensor, " N"]
    missing: tuple[str, ...]
    probabilities: Float[Tensor, "N C"] | None
    method: str


def cosines(pictures: Float[Tensor, "N D"], classes: Float[Tensor, "C D"]) -> Float[Tensor, "N C"]:
    """Products of unit vectors in float64, then rounded: equal class vectors tie exactly."""
    return (pictures.double() @ classes.double().T).float()


def label_metrics(
    scored: LabelScores,
    targets: Int[Tensor, " N"],
    ranks: Float[Tensor, " N"],
    seed: int,
    resamples: int,
) -> dict[str, Metric]:
    """Top-1, top-5 where there are more than five labels, mean recall, and calibration if known."""
    count, classes = scored.scores.shape
    found = {}
    for k in (1, 5):
        if k == 1 or k < classes:
            hits = int((ranks <= k).sum())
            value = hits / count if count else torch.nan
            found[f"top{k}"] = Metric(value, wilson(hits, count), count)
    recall = mean_of((predict(scored.scores) == targets).double(), targets)
    low, high = bootstrap_counts(recall, count, resamples=resamples, seed=seed)
    whole = recall(torch.ones(1, count).double()).item()
    found["mean_per_class_recall"] = Metric(whole, (low.item(), high.item()), count)
    if scored.probabilities is not None:
        confidence, best = scored.probabilities[scored.read].max(dim=1)
        right = (best == targets[scored.read]) & (ranks[scored.read] == 1)
        error = expected_calibration_error(confidence.clamp(0, 1), right)
        found["ece15"] = Metric(error, None, len(confidence))
    return found


def class_metrics(
    scored: LabelScores, targets: Int[Tensor, " N"], labels: list[str]
) -> dict[str, Metric]:
    """Recall of each class that has pictures."""
    recall = recall_per_class(targets, predict(scored.scores), len(labels))
    counts = torch.bincount(targets, minlength=len(labels)).tolist()
    found = {}
    for label, value, count in zip(labels, recall.tolist(), counts, strict=True):
        if count:
            found[label] = Metric(value, wilson(round(value * count), count), count)
    return found


def label_samples(
    records: Sequence[RecordLike],
    scored: LabelScores,
    targets: Int[Tensor, " N"],
    ranks: Float[Tensor, " N"],
    labels: list[str],
    kind: str,
) -> tuple[Sample, ...]:
    """One line a picture, with its five best labels; `kind` says what was asked."""
    chosen = torch.zeros(scored.scores.shape, dtype=torch.bool)
    chosen.scatter_(1, targets[:, None], True)
    order = worst_case_top(scored.scores, chosen, 5)
    values = scored.scores.gather(1, order)
    finite = torch.isfinite(scored.scores).all(dim=1)
    samples = []
    for row, record in enumerate(records):
        read = bool(scored.read[row])
        ranking = zip(order[row].tolist(), values[row].tolist(), strict=True)
        samples.append(
            Sample(
                id=record.id,
                kind=kind,
                target=(str(record.label),),
                ranking=tuple((labels[c], score) for c, score in ranking) if read else (),
                rank=ranks[row].item(),
                score=float(ranks[row] == 1),
                group=record.id,
                status="missing" if not read else "ok" if finite[row] else "invalid",
            )
        )
    return tuple(samples)
