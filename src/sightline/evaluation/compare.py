"""Whether models differ on the same data: paired tests of their samples, one metric a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import DataError
from sightline.evaluation.answer_metrics import less_is_better
from sightline.evaluation.results import Result, Sample
from sightline.metrics.intervals import PairedTest, mean_of, paired_test

Pairs = Sequence[tuple[Sample, Sample]]
"""The same samples of two results."""
_AMONG_THE_FIRST = re.compile(r"(?:top|hit@)(\d+)")
_RIGHT = ("top1", "hit@1", "accuracy", "mean_per_class_recall")
"""Metrics that are means of what a sample says in `score`."""


ClassOf = Callable[[str, Sample], Hashable]
"""Kind and sample to the class whose mean it belongs to."""
_ALIKE = 1e-6
"""Between a mean of samples and the value of a metric; older results were rounded to float32."""


class _Paired(NamedTuple):
    first: Float[Tensor, " N"]
    second: Float[Tensor, " N"]
    groups: Int[Tensor, " N"]
    classes: Int[Tensor, " N"] | None


class Row(NamedTuple):
    """One metric of several results."""

    metric: str
    values: tuple[float, ...]
    """As the results say; NaN where one has no such metric."""
    tests: tuple[PairedTest | None, ...]
    """The first result against each of the others; None where samples do not tell the metric."""


def compare(first: Result, second: Result, seed: int = 0) -> dict[str, PairedTest]:
    """First minus second for each kind of sample, such as both directions of retrieval.

    The score of a sample is 1 where the first answer is right. Captions of one picture stand
    together. Samples are matched by kind, id and prompt.

    Raises:
        DataError: the results have different signatures or different samples.
    """
    require_comparable([first, second])
    return {
        kind: _test(_paired({kind: pairs}, lambda sample: sample.score, None), seed, [kind])
        for kind, pairs in _matched(first, second).items()
    }


def compare_blind(samples: Sequence[Sample], seed: int = 0) -> PairedTest:
    """Answers about the pictures minus those of the same model without them, sample by sample.

    Args:
        samples: those of one result, each with a `blind_score`.
        seed: of what is drawn.
    """
    pairs = [(own, replace(own, score=own.blind_score or 0.0)) for own in samples]
    kinds = list({sample.kind for sample in samples})
    return _test(_paired({"": pairs}, lambda sample: sample.score, None), seed, kinds)


def compare_metrics(results: Sequence[Result], seed: int = 0) -> list[Row]:
    """Every metric of all results, and the first result tested against each of the others.

    A metric is tested where the samples tell it: shares of samples among the first k, reciprocal
    ranks, and means of these over classes or kinds of samples, as long as they come to the value of
    the metric. Medians, calibration and mAP@R are only listed. Kinds of samples that no tested
    metric is about alone have a row of their own, by their scores.

    Raises:
        DataError: fewer than two results, different signatures or different samples.
    """
    if len(results) < 2:
        raise DataError(f"{len(results)} result(s): give at least two to compare")
    require_comparable(results)
    matched = [_matched(results[0], other) for other in results[1:]]
    values = {
        name: tuple(r.metrics[name].value if name in r.metrics else torch.nan for r in results)
        for name in dict.fromkeys(name for result in results for name in result.metrics)
    }
    rows: list[Row] = []
    told: set[str] = set()
    for metric, known in values.items():
        tests = _tests(metric, known, matched, seed)
        kinds = _kinds(metric, matched[0])
        if tests[0] is not None and len(kinds) == 1:
            told.update(kinds)
        rows.append(Row(metric, known, tests))
    for kind in (kind for kind in matched[0] if kind not in told):
        known = tuple(_mean_score(result, kind) for result in results)
        rows.append(Row(kind, known, _tests(kind, known, matched, seed)))
    return rows


def require_comparable(results: Sequence[Result]) -> None:
    """
    Raises:
        DataError: two signatures differ; the message says in what.
    """
    first = results[0].signature
    for place, result in enumerate(results[1:], start=2):
        if result.signature == first:
            continue
        ours, theirs = _parts(first), _parts(result.signature)
        if ours["task"] != theirs["task"]:
            ours, theirs = ({"task": parts["task"]} for parts in (ours, theirs))
        different = "; ".join(
            f"{name} is {ours.get(name, 'not given')} in result 1 and "
            f"{theirs.get(name, 'not given')} in result {place}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        )
        raise DataError(
            f"the results are not comparable: {different}; evaluate all models with the same data "
            "and settings (see 'signature' in results.json)"
        )


def _parts(signature: str) -> dict[str, str]:
    """Name and value of each part, the task first."""
    task, *rest = signature.split("|")
    return {"task": task, **dict(part.partition(":")[::2] for part in rest)}


def _matched(first: Result, second: Result) -> dict[str, Pairs]:
    """The samples of both, by kind, in the order of their ids."""
    ours, theirs = _by_kind(first), _by_kind(second)
    found: dict[str, Pairs] = {}
    for kind, own in ours.items():
        other = theirs.get(kind, {})
        if own.keys() != other.keys():
            raise DataError(f"the results hold different samples of {kind}: evaluate both again")
        found[kind] = [(own[key], other[key]) for key in sorted(own)]
    return found


def _by_kind(result: Result) -> dict[str, dict[tuple[str, str], Sample]]:
    kinds: dict[str, dict[tuple[str, str], Sample]] = {}
    for sample in result.samples:
        kinds.setdefault(sample.kind, {})[sample.id, sample.prompt or ""] = sample
    return kinds


def _tests(
    metric: str, values: Sequence[float], matched: Sequence[Mapping[str, Pairs]], seed: int
) -> tuple[PairedTest | None, ...]:
    return tuple(
        _metric_test(metric, (values[0], other), pairs, seed)
        for other, pairs in zip(values[1:], matched, strict=True)
    )


def _metric_test(
    metric: str, values: tuple[float, float], matched: Mapping[str, Pairs], seed: int
) -> PairedTest | None:
    """None where the samples do not tell the metric, or not in a way that is known here."""
    kinds, name = _kinds(metric, matched), metric.rpartition("/")[2]
    score = _score_of("accuracy" if kinds == [metric] else name)
    ways: list[ClassOf | None] = [lambda kind, sample: kind, None]  # mean over kinds, or over all
    if name == "mean_per_class_recall":
        ways = [lambda kind, sample: sample.target]
    if score is None or not kinds:
        return None
    for way in ways:
        paired = _paired({kind: matched[kind] for kind in kinds}, score, way)
        means = (mean_of(own, paired.classes)(torch.ones(1, len(own)).double()).item()
                 for own in (paired.first, paired.second))  # fmt: skip
        if all(abs(mean - value) <= _ALIKE for mean, value in zip(means, values, strict=True)):
            return _test(paired, seed, kinds)
    return None


def _kinds(metric: str, matched: Mapping[str, Pairs]) -> list[str]:
    """The kinds of sample that a metric is about: its own, the one before the stroke, or all."""
    kind = metric.rpartition("/")[0]
    known = [name for name in (metric, kind) if name in matched]
    return known[:1] if known else [] if kind else list(matched)


def _score_of(name: str) -> Callable[[Sample], float] | None:
    among = _AMONG_THE_FIRST.fullmatch(name)
    if name in _RIGHT:
        return lambda sample: sample.score
    if among is not None:
        return lambda sample: float(sample.rank <= int(among[1]))
    return (lambda sample: 1 / sample.rank) if name == "mrr" else None


def _paired(
    matched: Mapping[str, Pairs], score: Callable[[Sample], float], class_of: ClassOf | None
) -> _Paired:
    pairs = [(kind, *pair) for kind, own in matched.items() for pair in own]
    return _Paired(
        torch.tensor([score(ours) for _, ours, _ in pairs], dtype=torch.float64),
        torch.tensor([score(theirs) for _, _, theirs in pairs], dtype=torch.float64),
        _numbers(ours.group for _, ours, _ in pairs),
        None if class_of is None else _numbers(class_of(kind, ours) for kind, ours, _ in pairs),
    )


def _test(paired: _Paired, seed: int, kinds: Sequence[str]) -> PairedTest:
    test = paired_test(*paired[:3], seed=seed, classes=paired.classes)
    if not kinds or not all(map(less_is_better, kinds)):
        return test
    return test._replace(first_better=test.second_better, second_better=test.first_better)


def _numbers(values: Iterable[Hashable]) -> Tensor:
    """Equal values get equal numbers, in the order in which they first come."""
    listed = list(values)
    places = {value: place for place, value in enumerate(dict.fromkeys(listed))}
    return torch.tensor([places[value] for value in listed], dtype=torch.long)


def _mean_score(result: Result, kind: str) -> float:
    scores = [sample.score for sample in result.samples if sample.kind == kind]
    return sum(scores) / len(scores)
