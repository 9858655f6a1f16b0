"""Answers to scores: several metrics, by groups, and against the same model without a picture."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sightline.core.errors import DataError
from sightline.data.records import Dataset, Record
from sightline.evaluation import results
from sightline.evaluation.answer_metrics import (
    METRICS,
    AnswerMetric,
    column_of,
    less_is_better,
    require_fit,
)
from sightline.evaluation.asked import Asked, Question, Way, ask_all
from sightline.evaluation.columns import Column, metric_of
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
AVERAGED = "category"
"""The tag whose values have a mean beside them."""
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
    table: Mapping[str, AnswerMetric] = METRICS
    """The metrics by name."""


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
    names, table = benchmark.metrics, benchmark.table
    chosen = drawn_part(questions, how.limit, how.seed)
    for name in names:
        require_fit(name, table[name].family, [(q.record.id, q.target) for q in chosen])
    asked = ask_all(model, chosen, way, how.blind, how.batch_size, how.progress, how.folder)
    judged = judge(asked.samples, names, how.seed, how.resamples, table)
    return conclude(model, dataset, questions, chosen, benchmark, way, how, asked, judged, started)


def conclude(
    model: Model,
    dataset: Dataset,
    questions: Sequence[Question],
    chosen: Sequence[Question],
    benchmark: Benchmark,
    way: Way,
    how: Measuring,
    asked: Asked,
    judged: Judged,
    started: float,
) -> Result:
    """The result of what was asked and judged.

    Args:
        questions: one for each record with a truth.
        chosen: those that were asked.
        started: what `time.monotonic` said before.
    """
    names, samples = benchmark.metrics, asked.samples
    digest = data_sha256([question.record for question in chosen])
    written = results.short_hash([repr(sorted((how.options or {}).items()))])
    signed = {**benchmark.signed, "options": written if how.options else "own", "n": len(samples)}
    return results.build(
        model, benchmark.task, benchmark.version, names[0], digest, signed, started,
        variant=benchmark.variant,
        n=len(samples),
        data=dataset.name,
        n_invalid=sum(sample.status == "invalid" for sample in samples),
        n_missing=sum(sample.status == "missing" for sample in samples),
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
    samples: Sequence[Sample],
    names: Sequence[str],
    seed: int = 0,
    resamples: int = RESAMPLES,
    table: Mapping[str, AnswerMetric] = METRICS,
) -> Judged:
    """Score answers by these metrics, of which the first is the headline; see `judge_columns`.

    Args:
        table: `METRICS`, or what `with_objects` made of it.
    """
    blind = bool(samples) and all(s.blind is not None or s.status == "invalid" for s in samples)
    said = {name: column_of(name, samples, [s.raw for s in samples], table) for name in names}
    unseen: dict[str, Column] = {}
    if blind:
        unseen = {
            name: column_of(name, samples, [s.blind for s in samples], table) for name in names
        }
    return judge_columns(samples, said, unseen, seed, resamples, table)


def judge_columns(
    samples: Sequence[Sample],
    said: Mapping[str, Column],
    unseen: Mapping[str, Column],
    seed: int = 0,
    resamples: int = RESAMPLES,
    table: Mapping[str, AnswerMetric] = METRICS,
) -> Judged:
    """What columns come to; the first that has a value for each sample gives them their score.

    Groups: each name of the samples' tags, by the headline, with the mean over the values of
    `AVERAGED`; and `blind`, where the same was asked without a picture.

    Args:
        said: by metric, the headline first.
        unseen: the same without pictures; empty where nobody asked so.
    """
    pictures = _numbered([sample.group for sample in samples])
    headline = next(iter(said))

    def told(columns: Mapping[str, Column]) -> dict[str, Metric]:
        return {
            name: metric_of(column, pictures[column.of(len(samples))], seed, resamples)
            for name, column in columns.items()
        }

    groups = _by_tag(samples, said[headline], pictures, seed, resamples)
    if unseen:
        groups["blind"] = told(unseen)
    scored = _scored(samples, said, unseen, table)
    tests: dict[str, PairedTest] = {}
    verdict = ""
    if unseen and said[headline].of_totals is None:  # the score of a set has no pairs
        alike = _bundled(scored, headline, said[headline], unseen[headline])
        tests = {"blind": compare_blind(alike, seed)}
        verdict = verdict_of(tests["blind"], less_is_better(headline))
    return Judged(scored, told(said), groups, tests, verdict, _unparsed(scored))


def category_of(record: Record) -> dict[str, str]:
    """The tag of a question's kind, where the data say it: a category, or a label of its own."""
    own = record.extra.get(AVERAGED, record.label)
    if isinstance(own, str) and own and own not in record.answers:
        return {AVERAGED: own}
    return {}


def no_truth(dataset: Dataset, what: str, needed: str) -> DataError:
    """What to raise where records are there, and none says what would be right."""
    return DataError(f"no record of {dataset.name!r} has {what}: {needed}")


def _scored(
    samples: Sequence[Sample],
    said: Mapping[str, Column],
    unseen: Mapping[str, Column],
    table: Mapping[str, AnswerMetric],
) -> tuple[Sample, ...]:
    """Samples with scores; as they were where only the whole set has one."""
    own = [name for name, c in said.items() if c.of_totals is None and c.rows is None]
    if not own:
        return tuple(samples)
    name = own[0]
    blind = unseen[name].values.tolist() if unseen else [None] * len(samples)
    return tuple(
        replace(
            sample, kind=name, score=score, blind_score=without,
            parsed=_parsed(sample, table[name]) if name in table else None,
        )
        for sample, score, without in zip(samples, said[name].values.tolist(), blind, strict=True)
    )  # fmt: skip


def _parsed(sample: Sample, metric: AnswerMetric) -> str | None:
    if not sample.raw or not sample.raw.strip():
        return None
    return metric.parse(sample.raw, metric.truth(sample))


def _bundled(
    samples: Sequence[Sample], name: str, said: Column, unseen: Column
) -> tuple[Sample, ...]:
    """A sample for each value of the headline, for those who compare them."""
    values = zip(said.of(len(samples)), said.values.tolist(), unseen.values.tolist(), strict=True)
    return tuple(
        replace(samples[row], kind=name, score=score, blind_score=blind)
        for row, score, blind in values
    )


def _by_tag(
    samples: Sequence[Sample], column: Column, pictures: torch.Tensor, seed: int, resamples: int
) -> dict[str, dict[str, Metric]]:
    found: dict[str, dict[str, Metric]] = {}
    owners = column.of(len(samples))

    def part(own: list[int]) -> tuple[Column, torch.Tensor]:
        shown = pictures[[owners[place] for place in own]]
        return column._replace(values=column.values[own], rows=None), shown

    for tag in sorted({tag for sample in samples for tag in sample.tags}):
        rows: dict[str, list[int]] = {}
        for place, owner in enumerate(owners):
            if tag in samples[owner].tags:
                rows.setdefault(samples[owner].tags[tag], []).append(place)
        found[tag] = {
            value: metric_of(*part(own), seed, resamples) for value, own in sorted(rows.items())
        }
        if tag == AVERAGED and len(rows) > 1:
            classes = [place for place, own in enumerate(rows.values()) for _ in own]
            every = part([place for own in rows.values() for place in own])
            mean = metric_of(*every, seed, resamples, torch.tensor(classes))
            found[tag][f"mean of {len(rows)}"] = mean
    return found


def _unparsed(samples: Sequence[Sample]) -> int:
    """Answers that could not be read, such as those without a character."""
    return sum(sample.raw is not None and sample.parsed is None for sample in samples)


def _numbered(names: Sequence[str]) -> torch.Tensor:
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([places[name] for name in names], dtype=torch.long)


def verdict_of(test: PairedTest, less_is_better: bool = False) -> str:
    """What a test against the same model without pictures comes to, in one line."""
    p = f"p {test.p_value:.4f}" if test.p_value >= 0.0001 else "p < 0.0001"
    between = f"{test.difference:+.4f}, 95 % {test.low:+.4f} to {test.high:+.4f}; {p}"
    told = BETTER if (test.difference > 0) != less_is_better else "worse"
    found = f"{told} than" if test.p_value < SURE else "not told apart from"
    return f"{found} the same model without pictures ({between})"
