"""Classification by a trained layer: the model picks one of the labels of its training.

The counterpart of `zeroshot` for classifiers, with the same metrics. A label of the data that the
model was not trained on cannot be picked: its pictures stay in the denominator, as wrong.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from sightline.core.errors import DataError, UnsupportedTaskError
from sightline.evaluation import results
from sightline.evaluation.interfaces import DatasetLike, RecordLike
from sightline.evaluation.label_scores import (
    LabelScores,
    class_metrics,
    label_metrics,
    label_samples,
)
from sightline.evaluation.records import Progress, data_sha256, select
from sightline.evaluation.results import Result
from sightline.metrics.classification import target_ranks
from sightline.metrics.intervals import RESAMPLES
from sightline.tasks.abilities import closed_labels
from sightline.tasks.batching import Failed
from sightline.tasks.classify import closed_names, closed_scores

if TYPE_CHECKING:
    from sightline.tasks.model import Model

VERSION = 1
"""Raised when the same model and data would score differently than before."""


def closed_set(
    model: Model,
    dataset: DatasetLike,
    labels: Mapping[str, str] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """Top-1, top-5 and mean-per-class accuracy of a classifier over all labels that it knows.

    A picture that cannot be read stays in the denominator as wrong, and so does one whose label
    the model does not know (`settings["unknown_labels"]` lists these labels). Top-5 is left out
    where there are five labels or fewer.

    Args:
        model: what `sightline.load` returns, with a classification layer.
        dataset: records with a label each; others are counted as excluded.
        labels: data label to the model's name of it (such as WordNet ids to words); by default
            they are the same.
        limit: evaluate only a seeded sample of so many pictures; the result is marked partial.
        batch_size: pictures through the network at a time.
        progress: called with pictures done and their total.
        seed: of the sample and of the intervals.
        resamples: draws of the intervals that are found by drawing; 0 leaves those out, which is
            quicker where only the value counts.

    Raises:
        UnsupportedTaskError: the model has no labels of its own.
        DataError: no record has a label, or none that the model knows.
        ConfigError: a limit below 1.
    """
    started = time.monotonic()
    _require_labels(model)
    own = closed_names(model)
    records, excluded, partial = select(dataset, limit, seed, lambda r: r.label is not None)
    wanted = [_named(record, labels) for record in records]
    unknown = sorted({name for name in wanted if name not in set(own)})
    _require_overlap(model, dataset, own, wanted, unknown)
    names = [*own, *unknown]
    places = {name: place for place, name in enumerate(names)}
    targets = torch.tensor([places[name] for name in wanted], dtype=torch.long)
    scored = _scored(model, records, own, len(unknown), batch_size, progress)
    ranks = target_ranks(scored.scores, targets)
    digest = data_sha256(records)
    return results.build(
        model, "classify", VERSION, "top1", digest,
        {"ties": "worst", "labels": f"{len(names)}-{results.short_hash(sorted(names))}",
         "n": len(records)},
        started,
        variant="closed set",
        metrics=label_metrics(scored, targets, ranks, seed, resamples),
        n=len(records),
        data=dataset.name,
        n_invalid=int((~torch.isfinite(scored.scores).all(dim=1) & scored.read).sum()),
        n_missing=len(scored.missing),
        n_excluded=excluded,
        missing=scored.missing,
        groups={"class": class_metrics(scored, targets, names)},
        settings={"limit": limit, "batch_size": batch_size, "labels": own,
                  "unknown_labels": unknown},
        seed=seed,
        partial=partial,
        samples=label_samples(records, scored, targets, ranks, names, "classify"),
    )  # fmt: skip


def _require_labels(model: Model) -> None:
    if not closed_labels(model):
        raise UnsupportedTaskError(
            f"{model.name} ({model.system.role}) has no labels of its own: a model that reads "
            "words is measured with 'sightline eval zeroshot'; 'sightline train classifier' "
            "trains a classifier"
        )


def _require_overlap(
    model: Model,
    dataset: DatasetLike,
    own: Sequence[str],
    wanted: Sequence[str],
    unknown: Sequence[str],
) -> None:
    if len(dataset) and not wanted:
        raise DataError(
            f"no record of {dataset.name!r} has a label: classification needs a folder per class, "
            "or a column named label"
        )
    if wanted and len(unknown) == len(set(wanted)):
        raise DataError(
            f"{model.name} knows none of the data's {len(unknown)} labels ({unknown[0]!r}); it "
            f"knows {', '.join(map(repr, own[:4]))}{' ...' if len(own) > 4 else ''}: the two must "
            "be spelled alike"
        )


def _named(record: RecordLike, labels: Mapping[str, str] | None) -> str:
    label = str(record.label)
    return label if labels is None else labels.get(label, label)


def _scored(
    model: Model,
    records: Sequence[RecordLike],
    own: Sequence[str],
    unknown: int,
    batch_size: int,
    progress: Progress | None,
) -> LabelScores:
    """Shares of the labels; those that the model does not know have none, and come last."""
    scores = torch.full((len(records), len(own) + unknown), torch.nan)
    missing: dict[int, str] = {}
    pictures = (record.image for record in records)
    rows = closed_scores(model, pictures, own, batch_size, "collect")
    for place, row in enumerate(rows):
        if isinstance(row, Failed):
            missing[place] = f"{records[place].id}: {row.error}"
        else:
            scores[place] = torch.cat([row, torch.zeros(unknown)])
        if progress is not None:
            progress(place + 1, len(records))
    read = torch.tensor([place not in missing for place in range(len(records))], dtype=torch.bool)
    return LabelScores(scores, read, tuple(missing.values()), scores, "closed set")
