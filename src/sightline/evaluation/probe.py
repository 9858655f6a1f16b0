"""Frozen vectors with labels: a linear probe, nearest neighbours, and a probe of few pictures.

All three embed pictures once, learn from those of one split and are scored on another. The vectors
are those of `embed_images` at unit length: of a dual encoder its embedding, of an image encoder
what it pools. (Radford et al. 2021 took CLIP's features in front of the projection, without
dividing by their length; scores differ from the published ones for that.)

A test picture that cannot be read stays in the denominator as wrong; a picture to learn from is
left out and counted. A label that no training picture has cannot be found: it counts as wrong.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.evaluation import results
from sightline.evaluation.interfaces import EmbeddingModel
from sightline.evaluation.label_scores import (
    LabelScores,
    class_metrics,
    label_metrics,
    label_samples,
)
from sightline.evaluation.probe_data import Embedded, ProbeData, embed_parts, held_out, joined
from sightline.evaluation.records import Progress
from sightline.evaluation.results import Metric, Result, Sample
from sightline.metrics.classification import target_ranks
from sightline.metrics.intervals import RESAMPLES
from sightline.metrics.linear_probe import LinearProbe, Tried, fit_linear_probe, sweep_penalty
from sightline.metrics.neighbours import TEMPERATURE, K, neighbour_votes

VERSION = 1
"""Raised when the same model and data would score differently than before."""


class Outcome(NamedTuple):
    """What one way of probing adds to a result."""

    task: str
    variant: str
    headline: str
    metrics: dict[str, Metric]
    samples: tuple[Sample, ...]
    invalid: int
    """Test pictures with a score that is not finite."""
    signature: Mapping[str, object]
    """What decides, beside the pictures, whether two scores can be compared."""
    settings: Mapping[str, Any]
    groups: Mapping[str, Mapping[str, Metric]] = {}
    templates: tuple[str, ...] = ()


def linear_probe(
    model: EmbeddingModel,
    data: ProbeData,
    penalty: float | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    resamples: int = RESAMPLES,
) -> Result:
    """Accuracy of logistic regression on the vectors (see `metrics.linear_probe`).

    The penalty is chosen on the validation pictures, or on a seeded fifth of those to learn from;
    then the probe is fitted again on all of them. Never on the test pictures.

    Args:
        model: what `sightline.load` returns.
        data: what `probe_data` returns.
        penalty: use this one, and choose nothing.
        batch_size: pictures embedded at a time.
        progress: called with pictures embedded and their total.
        resamples: draws of the intervals that are found by drawing; 0 leaves those out.

    Raises:
        DataError: no picture to learn from can be read, one class alone, or too few pictures.
        ConfigError: a penalty that is not above 0.
        UnsupportedTaskError: the model sees no pictures.
    """
    started = time.monotonic()
    seen = embed_parts(model, data, batch_size, progress)
    chosen, tried = (penalty, ()) if penalty is not None else _swept(seen, data.seed)
    learned = joined(seen.train, seen.validation)
    probe = fit_linear_probe(learned.embeddings, learned.targets, len(seen.labels), chosen)
    logs = probe_scores(seen, probe)
    scored = LabelScores(logs, seen.test.read, seen.test.missing, logs.exp(), "linear-probe")
    outcome = _outcome(
        "linear-probe", "logistic regression", data, seen, scored, resamples,
        {"penalty": "sweep" if penalty is None else f"{penalty:g}"},
        {"penalty": chosen, "converged": probe.converged, "iterations": probe.iterations,
         "tried": [attempt._asdict() for attempt in tried]},
    )  # fmt: skip
    return probe_result(model, data, seen, outcome, started)


def knn(
    model: EmbeddingModel,
    data: ProbeData,
    k: int = K,
    temperature: float | None = TEMPERATURE,
    batch_size: int = 32,
    progress: Progress | None = None,
    resamples: int = RESAMPLES,
) -> Result:
    """Accuracy of a vote among the nearest training pictures (see `metrics.neighbours`).

    Validation pictures vote too: nothing is chosen by them.

    Args:
        model: what `sightline.load` returns.
        data: what `probe_data` returns.
        k: neighbours that vote.
        temperature: of their votes; None gives each one vote.
        batch_size: pictures embedded at a time.
        progress: called with pictures embedded and their total.
        resamples: draws of the intervals that are found by drawing; 0 leaves those out.

    Raises:
        DataError: no picture to learn from can be read, or they are of one class alone.
        ConfigError: k below 1, or a temperature that is not above 0.
        UnsupportedTaskError: the model sees no pictures.
    """
    started = time.monotonic()
    seen = embed_parts(model, data, batch_size, progress)
    learned = joined(seen.train, seen.validation)
    votes = torch.full((len(data.test), len(seen.names)), torch.nan)
    votes[seen.test.read] = neighbour_votes(
        seen.test.embeddings[seen.test.read], learned.embeddings, learned.targets,
        seen.targets[seen.test.read], len(seen.names), k, temperature,
    )  # fmt: skip
    scored = LabelScores(votes, seen.test.read, seen.test.missing, votes, "knn")
    weight = "one vote each" if temperature is None else f"{temperature:g}"
    outcome = _outcome(
        "knn", f"{k} nearest", data, seen, scored, resamples,
        {"k": k, "temperature": weight}, {"k": k, "temperature": temperature},
    )  # fmt: skip
    return probe_result(model, data, seen, outcome, started)


def probe_scores(seen: Embedded, probe: LinearProbe) -> Float[Tensor, "N C"]:
    """Log-probabilities of every label for every test picture; the unknown labels come last."""
    scores = torch.full((len(seen.targets), len(seen.names)), torch.nan)
    lowest = torch.finfo(scores.dtype).min
    found = probe.log_probabilities(seen.test.embeddings[seen.test.read]).float()
    never = found.new_full((len(found), len(seen.unknown)), lowest)
    scores[seen.test.read] = torch.cat([found, never], dim=1)
    return scores


def probe_result(
    model: EmbeddingModel, data: ProbeData, seen: Embedded, outcome: Outcome, started: float
) -> Result:
    """The result of a probe."""
    labels = f"{len(seen.names)}-{results.short_hash(seen.names)}"
    settings = {"limit": data.limit, "parts": data.how, "train": len(data.learned),
                "left_out": list(seen.left_out), "unknown_labels": seen.unknown}  # fmt: skip
    return results.build(
        model, outcome.task, VERSION, outcome.headline, seen.test_sha256,
        {**outcome.signature, "ties": "worst", "parts": data.how, "labels": labels,
         "train": f"{len(data.learned)}-{seen.train_sha256[:12]}", "n": len(data.test)},
        started,
        variant=outcome.variant,
        metrics=outcome.metrics,
        n=len(data.test),
        data=data.name,
        n_invalid=outcome.invalid,
        n_missing=len(seen.test.missing),
        n_excluded=data.excluded,
        missing=seen.test.missing,
        groups=outcome.groups,
        prompt_templates=outcome.templates,
        settings={**settings, **outcome.settings},
        seed=data.seed,
        partial=data.partial,
        samples=outcome.samples,
    )  # fmt: skip


def _swept(seen: Embedded, seed: int) -> tuple[float, tuple[Tried, ...]]:
    fitted, judged = seen.train, seen.validation
    if not judged.records:
        fitted, judged = held_out(seen.train, seed)
    return sweep_penalty(
        fitted.embeddings, fitted.targets, judged.embeddings, judged.targets, len(seen.labels)
    )


def _outcome(
    task: str,
    variant: str,
    data: ProbeData,
    seen: Embedded,
    scored: LabelScores,
    resamples: int,
    signature: Mapping[str, object],
    settings: Mapping[str, Any],
) -> Outcome:
    """Of one score for each label and picture."""
    ranks = target_ranks(scored.scores, seen.targets)
    return Outcome(
        task=task,
        variant=variant,
        headline="top1",
        metrics=label_metrics(scored, seen.targets, ranks, data.seed, resamples),
        samples=label_samples(data.test, scored, seen.targets, ranks, seen.names, task),
        invalid=int((~torch.isfinite(scored.scores).all(dim=1) & scored.read).sum()),
        signature=signature,
        settings=settings,
        groups={"class": class_metrics(scored, seen.targets, seen.names)},
    )
