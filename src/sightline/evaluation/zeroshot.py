"""Classification by names alone: each label is a sentence, the closest sentence wins.

A class vector is the unit mean of its prompts' unit embeddings (Radford et al. 2021, section
3.1.4), summed in float64. A model that cannot embed text scores the labels itself, by `classify`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import torch

from sightline.core.errors import UnsupportedTaskError
from sightline.evaluation import results
from sightline.evaluation.interfaces import (
    ClassifyingModel,
    DatasetLike,
    EmbeddingModel,
    Model,
    RecordLike,
)
from sightline.evaluation.label_prompts import (
    Labels,
    Names,
    class_embeddings,
    label_names,
    names_signature,
    own_templates,
    templates_signature,
)
from sightline.evaluation.label_scores import (
    LabelScores,
    class_metrics,
    cosines,
    label_metrics,
    label_samples,
)
from sightline.evaluation.records import (
    UNREADABLE,
    Progress,
    data_sha256,
    embed_pictures,
    select,
)
from sightline.evaluation.results import Result
from sightline.metrics.classification import target_ranks
from sightline.metrics.intervals import RESAMPLES
from sightline.tasks.abilities import closed_labels
from sightline.tasks.scores import among

VERSION = 1
"""Raised when the same model and data would score differently than before."""


def zeroshot(
    model: Model,
    dataset: DatasetLike,
    labels: Labels | None = None,
    templates: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """Top-1, top-5 and mean-per-class accuracy of a model that was not trained on the labels.

    A picture that cannot be read stays in the denominator as wrong. Top-5 is left out where there
    are five labels or fewer.

    Args:
        model: what `sightline.load` returns.
        dataset: records with a label each; others are counted as excluded.
        labels: names to choose from, or data label to the name that is put in the prompt (such as
            WordNet ids to words), or to several names that are averaged; by default the labels
            that the data set has.
        templates: prompts with {} for the name, averaged; by default the model's own.
        limit: evaluate only a seeded sample of so many pictures; the result is marked partial.
        batch_size: pictures embedded at a time.
        progress: called with pictures done and their total.
        seed: of the sample and of the intervals.
        resamples: draws of the intervals that are found by drawing; 0 leaves those out, which is
            quicker where only the value counts.

    Raises:
        DataError: no record has a label, or a label of the data is not among `labels`.
        ConfigError: fewer than two labels, a repeated one, or a template without {}.
        UnsupportedTaskError: a classifier, which was trained on its labels.
    """
    started = time.monotonic()
    _refuse_classifier(model)
    names = label_names(dataset, labels)
    prompts = own_templates(model, templates)
    records, excluded, partial = select(dataset, limit, seed, lambda r: r.label is not None)
    places = {label: place for place, label in enumerate(names)}
    targets = torch.tensor([places[str(r.label)] for r in records], dtype=torch.long)
    scored = _score(model, records, list(names.values()), prompts, batch_size, progress)
    ranks = target_ranks(scored.scores, targets)
    metrics = label_metrics(scored, targets, ranks, seed, resamples)
    digest = data_sha256(records)
    return results.build(
        model, "zeroshot", VERSION, "top1", digest,
        {"method": scored.method, "ties": "worst", "templates": templates_signature(prompts),
         "labels": names_signature(names), "n": len(records)},
        started,
        variant=scored.method,
        metrics=metrics,
        n=len(records),
        data=dataset.name,
        n_invalid=int((~torch.isfinite(scored.scores).all(dim=1) & scored.read).sum()),
        n_missing=len(scored.missing),
        n_excluded=excluded,
        missing=scored.missing,
        groups={"class": class_metrics(scored, targets, list(names))},
        prompt_templates=tuple(prompts),
        settings={"limit": limit, "batch_size": batch_size,
                  "labels": [", ".join(own) for own in names.values()]},
        seed=seed,
        partial=partial,
        samples=label_samples(records, scored, targets, ranks, list(names), "zeroshot"),
    )  # fmt: skip


def _refuse_classifier(model: Model) -> None:
    labels = closed_labels(model)
    if labels:
        raise UnsupportedTaskError(
            f"{getattr(model, 'name', 'this model')} was trained on its {len(labels)} labels, so "
            "nothing about them is zero-shot: measure it with 'sightline eval classify'"
        )


def _score(
    model: Model,
    records: Sequence[RecordLike],
    names: Sequence[Names],
    templates: list[str],
    batch_size: int,
    progress: Progress | None,
) -> LabelScores:
    if not records:
        nothing = torch.zeros(0, len(names))
        return LabelScores(nothing, torch.zeros(0, dtype=torch.bool), (), None, "cosine")
    embedder = cast(EmbeddingModel, model)
    try:
        classes = class_embeddings(embedder, names, templates)
    except UnsupportedTaskError:  # it scores labels by likelihood, or says which models can
        classifier = cast(ClassifyingModel, model)
        return _scores_by_classify(classifier, records, names, templates, progress)
    pictures = embed_pictures(embedder, records, batch_size, progress)
    if not pictures.read.any():
        scores = torch.full((len(records), len(names)), torch.nan)
    else:
        scores = cosines(pictures.embeddings, classes)
    probabilities = None
    if pictures.read.any() and hasattr(getattr(model, "network", None), "pair_scale"):
        probabilities = among(cast(Any, model), pictures.embeddings, classes)
    return LabelScores(scores, pictures.read, pictures.missing, probabilities, "cosine")


def _scores_by_classify(
    model: ClassifyingModel,
    records: Sequence[RecordLike],
    names: Sequence[Names],
    templates: list[str],
    progress: Progress | None,
) -> LabelScores:
    """Of several names of a label the best counts."""
    words = [name for own in names for name in own]
    scores = torch.full((len(records), len(names)), torch.nan)
    missing = {}
    for row, record in enumerate(records):
        try:
            answer = model.classify(record.image, words, templates=templates)
        except UNREADABLE as error:
            missing[row] = f"{record.id}: {error}"
        else:
            by_name = {found.label: found.score for found in answer}
            each = torch.tensor([by_name.get(word, torch.nan) for word in words])
            scores[row] = torch.stack(
                [own.max() for own in each.split([len(own) for own in names])]
            )
        if progress is not None:
            progress(row + 1, len(records))
    read = torch.tensor([row not in missing for row in range(len(records))], dtype=torch.bool)
    inside = bool(((scores >= 0) & (scores <= 1))[read].all())
    return LabelScores(
        scores, read, tuple(missing.values()), scores if inside else None, "classify"
    )
