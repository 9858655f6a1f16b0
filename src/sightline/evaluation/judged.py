"""Answers to scores: several metrics, by groups, and against the same model without a picture."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sightline.core.errors import DataError
from sightline.data.records import Dataset
from sightline.evaluation import results
from sightline.evaluation.answer_metrics import (
    METRICS,
    Column,
    column_of,
    metric_of,
    require_fit,
)
from sightline.evaluation.asked import Question, Way, ask_all
from sightline.evaluation.compare import compare_blind
from sightline.evaluation.records import Progress, data_sha256, drawn_part
from sightline.evaluation.results import Metric, Result
from sightline.evaluation.samples import Sample
from sightline.metrics.intervals import RESAMPLES, PairedTest

if TYPE_CHECKING:
    from sightline.tasks.model import Model

SURE = 0.05
"""A p-value below it tells a model from itself without pictures."""
BETTER = "better"
"""So a verdict begins on a model that gains by looking."""
REFUSED = 10
"""So many questions that could not be asked are named in a result."""


@dataclass(frozen=True)
class Measuring:
    """How written answers are measured, whatever is asked."""

    limit: int | None = None
    """Only a seeded sample of so many records; the result is marked partial."""
    blind: bool = True
    """Ask the same without pictures too."""
    batch_size: int = 8
    """Rows through the network at once."""
    options: Mapping[str, Any] | None = None
    """How answers are written, see `generation.options`."""
    progress: Progress | None = None
    """Called with questions done and their total."""
    folder: Path | None = None
    """Where a run that was killed goes on, see `evaluation.asked`."""
    seed: int = 0
    """Of the sample and of the intervals."""
    resamples: int = RESAMPLES
    """Draws of the intervals; 0 leaves those out."""


class Benchmark(NamedTuple):
    """What is measured."""

    task: str
    version: int
    metrics: tuple[str, ...]
    """Of `answer_metrics.METRICS`, the headline first."""
    variant: str
    counted: str
    """What is counted, in the plural."""
    signed: Mapping[str, object]
    """What decides besides metric and data whether scores can be compared."""


class Judged(NamedTuple):
    """What answers come to, as fields of `Result`."""

    samples: tuple[Sample, ...]
    metrics: dict[str, Metric]
    groups: dict[str, dict[str, Metric]]
    tests: dict[str, PairedTest]
    verdict: str
    n_unparsed: int


def measure(
    model: Model,
    dataset: Dataset,
    questions: Sequence[Question],
    way: Way,
    benchmark: Benchmark,
    how: Measuring,
) -> Result:
    """Ask everything and score it.

    Args:
        questions: one for each record with a truth.

    Raises:
        DataError: a metric that cannot be had of these records.
        ConfigError: a limit below 1.
    """
    started = time.monotonic()
    names = benchmark.metrics
    chosen = drawn_part(questions, how.limit, how.seed)
    for name in names:
        require_fit(name, METRICS[name].family, [(q.record.id, q.target) for q in chosen])
    asked = ask_all(model, chosen, way, how.blind, how.batch_size, how.progress, how.folder)
    judged = judge(asked.samples, names, how.seed, how.resamples)
    digest = data_sha256([question.record for question in chosen])
    written = results.short_hash([repr(sorted((how.options or {}).items()))])
    signed = {**benchmark.signed, "options": written if how.options else "own", "n": len(chosen)}
    return results.build(
        model, benchmark.task, benchmark.version, names[0], digest, signed, started,
        variant=benchmark.variant,
        n=len(chosen),
        data=dataset.name,
        n_invalid=sum(sample.status == "invalid" for sample in asked.samples),
        n_missing=sum(sample.status == "missing" for sample in asked.samples),
        n_excluded=len(dataset) - len(questions),
        missing=asked.missing,
        prompt_templates=(way.template,),
        settings={**way.settings, "limit": how.limit, "batch_size": how.batch_size,
                  "blind": how.blind, "refused": asked.refused[:REFUSED]},
        seed=how.seed,
        counted=benchmark.counted,
        partial=len(chosen) < len(questions),
        **judged._asdict(),
    )  # fmt: skip


def judge(
    samples: Sequence[Sample], names: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> Judged:
    """Score answers by these metrics; the first gives each sample its score, where it has one.

    Groups: each name of the samples' tags, by the first metric; and `blind`, where the same was
    asked without a picture.
    """
    blind = bool(samples) and all(s.blind is not None or s.status == "invalid" for s in samples)
    pictures = _numbered([sample.group for sample in samples])

    def told(columns: Mapping[str, Column]) -> dict[str, Metric]:
        return {n: metric_of(each, pictures, seed, resamples) for n, each in columns.items()}

    said = {name: column_of(name, samples, [s.raw for s in samples]) for name in names}
    groups = _by_tag(samples, said[names[0]], pictures, seed, resamples)
    unseen: dict[str, Column] = {}
    if blind:
        unseen = {name: column_of(name, samples, [s.blind for s in samples]) for name in names}
        groups["blind"] = told(unseen)
    scored = _scored(samples, names[0], said, unseen)
    paired = blind and said[names[0]].of_totals is None  # the score of a set has no pairs
    tests = {"blind": compare_blind(scored, seed)} if paired else {}
    verdict = verdict_of(tests["blind"]) if paired else ""
    return Judged(scored, told(said), groups, tests, verdict, _unparsed(samples))


def no_truth(dataset: Dataset, what: str, needed: str) -> DataError:
    """What to raise where records are there, and none says what would be right."""
    return DataError(f"no record of {dataset.name!r} has {what}: {needed}")


def _scored(
    samples: Sequence[Sample], name: str, said: Mapping[str, Column], unseen: Mapping[str, Column]
) -> tuple[Sample, ...]:
    """Samples with scores; as they were where only the whole set has one."""
    column = said[name]
    if column.of_totals is not None:
        return tuple(samples)
    parse = METRICS[name].parse
    blind = unseen[name].values.tolist() if unseen else [None] * len(samples)
    return tuple(
        replace(
            sample, kind=name, score=score, blind_score=without,
            parsed=parse(sample.raw) if sample.raw and sample.raw.strip() else None,
        )
        for sample, score, without in zip(samples, column.values.tolist(), blind, strict=True)
    )  # fmt: skip


def _by_tag(
    samples: Sequence[Sample], column: Column, pictures: torch.Tensor, seed: int, resamples: int
) -> dict[str, dict[str, Metric]]:
    found: dict[str, dict[str, Metric]] = {}
    for tag in sorted({tag for sample in samples for tag in sample.tags}):
        rows: dict[str, list[int]] = {}
        for place, sample in enumerate(samples):
            if tag in sample.tags:
                rows.setdefault(sample.tags[tag], []).append(place)
        found[tag] = {
            value: metric_of(
                column._replace(values=column.values[own]), pictures[own], seed, resamples
            )
            for value, own in sorted(rows.items())
        }
    return found


def _unparsed(samples: Sequence[Sample]) -> int:
    """Answers without a character."""
    return sum(sample.raw is not None and not sample.raw.strip() for sample in samples)


def _numbered(names: Sequence[str]) -> torch.Tensor:
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([places[name] for name in names], dtype=torch.long)


def verdict_of(test: PairedTest) -> str:
    """What a test against the same model without pictures comes to, in one line."""
    p = f"p {test.p_value:.4f}" if test.p_value >= 0.0001 else "p < 0.0001"
    between = f"{test.difference:+.4f}, 95 % {test.low:+.4f} to {test.high:+.4f}; {p}"
    told = BETTER if test.difference > 0 else "worse"
    found = f"{told} than" if test.p_value < SURE else "not told apart from"
    return f"{found} the same model without pictures ({between})"
