"""Classification by names alone: each label is a sentence, the closest sentence wins.

A class vector is the unit mean of its prompts' unit embeddings (Radford et al. 2021, section
3.1.4), summed in float64. A model that cannot embed text scores the labels itself, by `classify`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError, DataError, UnsupportedTaskError, nearest
from sightline.evaluation import results
from sightline.evaluation.interfaces import (
    ClassifyingModel,
    DatasetLike,
    EmbeddingModel,
    Model,
    RecordLike,
)
from sightline.evaluation.label_scores import (
    LabelScores,
    class_metrics,
    label_metrics,
    label_samples,
)
from sightline.evaluation.records import (
    UNREADABLE,
    Progress,
    data_sha256,
    embed_captions,
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
FALLBACK_TEMPLATE = "a photo of a {}."


def zeroshot(
    model: Model,
    dataset: DatasetLike,
    labels: Sequence[str] | Mapping[str, str] | None = None,
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
            WordNet ids to words); by default the labels that the data set has.
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
    names = _label_names(dataset, labels)
    prompts = own_templates(model, templates)
    records, excluded, partial = select(dataset, limit, seed, lambda r: r.label is not None)
    places = {label: place for place, label in enumerate(names)}
    targets = torch.tensor([places[str(r.label)] for r in records], dtype=torch.long)
    scored = _score(model, records, list(names.values()), prompts, batch_size, progress)
    ranks = target_ranks(scored.scores, targets)
    metrics = label_metrics(scored, targets, ranks, seed, resamples)
    digest = data_sha256(records)
    return Result(
        task="zeroshot",
        variant=scored.method,
        headline="top1",
        metrics=metrics,
        n=len(records),
        signature=results.signature(
            "zeroshot", VERSION, metric="top1", method=scored.method, ties="worst",
            templates=f"{len(prompts)}-{results.short_hash(prompts)}",
            labels=f"{len(names)}-{results.short_hash(sorted(names.values()))}",
            n=len(records), data=digest[:12],
        ),
        data=dataset.name,
        data_sha256=digest,
        n_invalid=int((~torch.isfinite(scored.scores).all(dim=1) & scored.read).sum()),
        n_missing=len(scored.missing),
        n_excluded=excluded,
        missing=scored.missing,
        groups={"class": class_metrics(scored, targets, list(names))},
        model=getattr(model, "name", None),
        model_sha256=getattr(model, "sha256", None),
        prompt_templates=tuple(prompts),
        settings={"limit": limit, "batch_size": batch_size, "labels": list(names.values())},
        versions=results.versions(),
        seed=seed,
        seconds=time.monotonic() - started,
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


def class_embeddings(
    model: EmbeddingModel, names: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "C D"]:
    """One unit vector a class: the mean over the prompts of their unit embeddings."""
    texts = [template.replace("{}", name) for name in names for template in templates]
    embedded = nn.functional.normalize(embed_captions(model, texts).double(), dim=1)  # [C*t D]
    mean = embedded.view(len(names), len(templates), -1).mean(dim=1)  # [C D]
    return nn.functional.normalize(mean, dim=1).float()


def _label_names(
    dataset: DatasetLike, labels: Sequence[str] | Mapping[str, str] | None
) -> dict[str, str]:
    """Data label to the name in the prompt, in the order of the columns."""
    present = sorted({r.label for r in map(dataset.__getitem__, range(len(dataset))) if r.label})
    if not present and len(dataset):
        raise DataError(
            f"no record of {dataset.name!r} has a label: zero-shot classification needs a folder "
            "per class, or a column named label"
        )
    if labels is None:
        names = {label: label for label in present}
    elif isinstance(labels, Mapping):
        names = dict(labels)
    else:
        names = {label: label for label in labels}
        if len(names) != len(labels):
            raise ConfigError("a label is given twice: every label may appear once")
    if len(set(names.values())) != len(names):
        raise ConfigError("two labels have the same name: the model could not tell them apart")
    unknown = [label for label in present if label not in names]
    if unknown:
        close = nearest(unknown[0], names, count=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise DataError(
            f"the data has the label {unknown[0]!r} (and {len(unknown) - 1} more), which is not "
            f"among the {len(names)} labels given{hint}: add it, or leave labels out"
        )
    if len(names) < 2 and len(dataset):
        raise ConfigError(
            f"only one label, {next(iter(names))!r}: give at least two to choose from"
        )
    return names


def own_templates(model: Model, templates: Sequence[str] | None) -> list[str]:
    """The templates given, or the model's own.

    Raises:
        ConfigError: none, or one without {}.
    """
    system = getattr(model, "system", None)
    own = getattr(system, "default_template", None) or FALLBACK_TEMPLATE
    chosen = [own] if templates is None else list(templates)
    if isinstance(templates, str) or not chosen:
        raise ConfigError('templates must be a list such as ["a photo of a {}."]')
    for template in chosen:
        if "{}" not in template:
            raise ConfigError(f"template {template!r} has no {{}} where the label goes")
    return chosen


def _score(
    model: Model,
    records: Sequence[RecordLike],
    names: list[str],
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
        # float64, then rounded: equal class vectors tie however the product is tiled.
        scores = (pictures.embeddings.double() @ classes.double().T).float()
    probabilities = None
    if pictures.read.any() and hasattr(getattr(model, "network", None), "pair_scale"):
        probabilities = among(cast(Any, model), pictures.embeddings, classes)
    return LabelScores(scores, pictures.read, pictures.missing, probabilities, "cosine")


def _scores_by_classify(
    model: ClassifyingModel,
    records: Sequence[RecordLike],
    names: list[str],
    templates: list[str],
    progress: Progress | None,
) -> LabelScores:
    scores = torch.full((len(records), len(names)), torch.nan)
    missing = {}
    for row, record in enumerate(records):
        try:
            answer = model.classify(record.image, names, templates=templates)
        except UNREADABLE as error:
            missing[row] = f"{record.id}: {error}"
        else:
            by_name = {found.label: found.score for found in answer}
            scores[row] = torch.tensor([by_name.get(name, torch.nan) for name in names])
        if progress is not None:
            progress(row + 1, len(records))
    read = torch.tensor([row not in missing for row in range(len(records))], dtype=torch.bool)
    inside = bool(((scores >= 0) & (scores <= 1))[read].all())
    return LabelScores(
        scores, read, tuple(missing.values()), scores if inside else None, "classify"
    )
