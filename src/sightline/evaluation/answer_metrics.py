"""The metrics of written answers by name, each from words alone, so that kept answers can be
scored again without the model.

A name says the variant (`vqa_acc:official`), because the field has several under one word. Metrics
of short answers and of captions are apart: the one asks for the truth, the other for words that
people would use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from sightline.core.errors import ConfigError, DataError
from sightline.evaluation.results import Metric
from sightline.evaluation.samples import Sample
from sightline.metrics.answers import anls, exact_match, relaxed_accuracy, simplified
from sightline.metrics.bleu import bleu, bleu_of_counts
from sightline.metrics.cider import SINGLE_PICTURE, cider
from sightline.metrics.intervals import bootstrap_counts, mean_of
from sightline.metrics.ptb import tokenize
from sightline.metrics.rouge import rouge_l
from sightline.metrics.vqa import VARIANTS, normalise_answer, vqa_accuracy

Family = Literal["short answers", "captions"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Texts = Sequence[str]
Truths = Sequence[Sequence[str]]


class Column(NamedTuple):
    """What each sample adds to a metric."""

    values: Float[ndarray, " N"] | Float[ndarray, "N K"]
    """float64: a score each, or the counts that a score of the whole set is made of."""
    of_totals: Callable[[Float[ndarray, "*R K"]], Float[ndarray, "*R"]] | None = None
    """Sums of counts to the score of a set; None where it is the mean."""


class AnswerMetric(NamedTuple):
    """One way to score what was written."""

    family: Family
    score: Callable[[Texts, Truths], Column]
    parse: Callable[[str], str]
    """What is read out of an answer."""
    people: int = 1
    """So many answers must a question have at least."""
    single: bool = False
    """Whether all of them must be the same."""
    several: bool = False
    """Whether the score of one sample comes from the others."""


def _vqa(variant: str) -> AnswerMetric:
    def score(said: Texts, truths: Truths) -> Column:
        return Column(vqa_accuracy(said, truths, variant).scores)  # type: ignore[arg-type]

    return AnswerMetric("short answers", score, normalise_answer, people=2)


def _anls(variant: Literal["strict", "lmms"], said: Texts, truths: Truths) -> Column:
    return Column(anls(said, truths, variant).scores)


def _relaxed(strict_year: bool, said: Texts, truths: Truths) -> Column:
    return Column(relaxed_accuracy(said, [own[0] for own in truths], strict_year).scores)


def _exact(said: Texts, truths: Truths) -> Column:
    return Column(exact_match(said, truths).normalised.scores)


def _cider(said: Texts, truths: Truths) -> Column:
    return Column(cider(*_tokens(said, truths)).scores)


def _rouge(said: Texts, truths: Truths) -> Column:
    return Column(rouge_l(*_tokens(said, truths)).scores)


def _bleu(said: Texts, truths: Truths) -> Column:
    return Column(bleu(*_tokens(said, truths)).counts, lambda sums: bleu_of_counts(sums)[..., 3])


_words = lru_cache(maxsize=2**18)(tokenize)
"""Three metrics read the same captions, of the model with pictures and of the model without."""


def _tokens(said: Texts, truths: Truths) -> tuple[list[list[str]], list[list[list[str]]]]:
    return [_words(text) for text in said], [[_words(text) for text in own] for own in truths]


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def _bare(text: str) -> str:
    return text.strip().removesuffix(".")


def _spaced(text: str) -> str:
    return " ".join(_words(text))


METRICS: Mapping[str, AnswerMetric] = {
    **{f"vqa_acc:{variant}": _vqa(variant) for variant in VARIANTS},
    "exact_match": AnswerMetric("short answers", _exact, simplified),
    "anls": AnswerMetric("short answers", partial(_anls, "strict"), _collapsed),
    "anls:lmms": AnswerMetric("short answers", partial(_anls, "lmms"), _collapsed),
    "relaxed_accuracy": AnswerMetric("short answers", partial(_relaxed, False), _bare, single=True),
    "relaxed_accuracy:strict_year": AnswerMetric(
        "short answers", partial(_relaxed, True), _bare, single=True
    ),
    "cider": AnswerMetric("captions", _cider, _spaced, several=True),
    "bleu4": AnswerMetric("captions", _bleu, _spaced),
    "rouge_l:coco": AnswerMetric("captions", _rouge, _spaced),
}
"""By name."""


def fitting(family: str) -> list[str]:
    """Names of the metrics of short answers, or of captions."""
    return [name for name, metric in METRICS.items() if metric.family == family]


def require_fit(name: str, family: str, targets: Sequence[tuple[str, Sequence[str]]]) -> None:
    """
    Args:
        targets: the id of each sample and what people said.

    Raises:
        ConfigError: no such metric, or one of other answers; the message lists those that fit.
        DataError: the metric cannot be had of such samples; the message says which can.
    """
    metric = METRICS.get(name)
    if metric is None or metric.family != family:
        raise ConfigError(
            f"metric {name!r} does not score {family}: use one of {', '.join(fitting(family))}"
        )
    if metric.several and len(targets) == 1:
        raise DataError(SINGLE_PICTURE)
    for id, target in targets:
        if len(target) < metric.people:
            raise DataError(
                f"{name} compares with several people, and {id!r} has {len(target)} answer(s): "
                f"use one of {_rest(family, 'people')}"
            )
        if metric.single and len(set(target)) > 1:
            raise DataError(
                f"{name} wants one right answer, and {id!r} has {len(set(target))} different ones: "
                f"use one of {_rest(family, 'single')}"
            )


def _rest(family: str, condition: str) -> str:
    """The metrics that do not set this condition."""
    plain = METRICS["exact_match"]
    return ", ".join(
        name for name in fitting(family)
        if getattr(METRICS[name], condition) == getattr(plain, condition)
    )  # fmt: skip


def column_of(name: str, samples: Sequence[Sample], said: Sequence[str | None]) -> Column:
    """What each sample adds; no answer, and one without a character, adds nothing.

    Args:
        said: what was written about each; None where nothing was.
    """
    texts = [text or "" for text in said]
    column = METRICS[name].score(texts, [sample.target for sample in samples])
    if column.of_totals is not None:
        return column
    # "a" is no word to VQA accuracy, so that to say nothing would be as good
    answered = np.array([bool(text.strip()) for text in texts], dtype=bool)
    return column._replace(values=np.where(answered, column.values, 0.0))


def metric_of(
    column: Column, groups: Tensor | None = None, seed: int = 0, resamples: int = 0
) -> Metric:
    """The number with its interval, which draws whole groups; what a sample adds stays the same.

    Args:
        groups: numbers of what stands or falls together (questions about one picture).
        resamples: draws of the interval; 0 leaves it out.
    """
    count = len(column.values)
    if not count:
        return Metric(float("nan"))
    counts, of_totals = column.values, column.of_totals

    def of_sets(times: Float[Tensor, "R N"]) -> Float[Tensor, " R"]:
        if of_totals is None:
            return mean_of(torch.from_numpy(counts))(times)
        return torch.from_numpy(of_totals(times.double().numpy() @ counts))

    value = of_sets(torch.ones(1, count, dtype=torch.float64)).item()
    if not resamples:
        return Metric(value, None, count)
    low, high = bootstrap_counts(of_sets, count, groups, resamples, seed=seed)
    return Metric(value, (low.item(), high.item()), count)
