"""The metrics of written answers by name, each from words alone, so that kept answers can be
scored again without the model.

A name says the variant (`vqa_acc:official`), because the field has several under one word. Metrics
of short answers and of captions are apart: the one asks for the truth, the other for words that
people would use. So are those of yes and no, of the things that a caption names, and of letters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import Literal, NamedTuple, NoReturn

import numpy as np

from sightline.core.errors import ConfigError, DataError
from sightline.evaluation.choices import letter_circular, letter_scores, read_letter, truth_of
from sightline.evaluation.columns import Column
from sightline.evaluation.pope_chair import (
    chair_number,
    chair_scores,
    pope_number,
    pope_scores,
    pope_unparsed,
    read_official,
    read_strict,
)
from sightline.evaluation.samples import Sample
from sightline.metrics.answers import anls, exact_match, relaxed_accuracy, simplified
from sightline.metrics.bleu import bleu, bleu_of_counts
from sightline.metrics.chair import ObjectList
from sightline.metrics.cider import SINGLE_PICTURE, cider
from sightline.metrics.ptb import tokenize
from sightline.metrics.rouge import rouge_l
from sightline.metrics.vqa import VARIANTS, normalise_answer, vqa_accuracy

Family = Literal[
    "short answers", "captions", "yes-or-no answers", "things named in captions", "letters"
]
Texts = Sequence[str]
Truths = Sequence[Sequence[str]]


class AnswerMetric(NamedTuple):
    """One way to score what was written."""

    family: Family
    score: Callable[[Texts, Truths], Column]
    parse: Callable[[str, Sequence[str]], str | None]
    """What is read out of an answer, given the truth; None where that is nothing."""
    people: int = 1
    """So many answers must a question have at least."""
    single: bool = False
    """Whether all of them must be the same."""
    several: bool = False
    """Whether the score of one sample comes from the others."""
    worst: float = 0.0
    """What a sample without an answer adds; 1 where less is better."""
    truth: Callable[[Sample], Sequence[str]] = attrgetter("target")
    """What an answer is compared with."""


def _vqa(variant: str) -> AnswerMetric:
    def score(said: Texts, truths: Truths) -> Column:
        return Column(vqa_accuracy(said, truths, variant).scores)  # type: ignore[arg-type]

    return AnswerMetric("short answers", score, _alone(normalise_answer), people=2)


def _anls(variant: Literal["strict", "lmms"], said: Texts, truths: Truths) -> Column:
    return Column(anls(said, truths, variant).scores)


def _relaxed(strict_year: bool, said: Texts, truths: Truths) -> Column:
    return Column(relaxed_accuracy(said, [own[0] for own in truths], strict_year).scores)


def _exact(raw: bool, said: Texts, truths: Truths) -> Column:
    found = exact_match(said, truths)
    return Column((found.raw if raw else found.normalised).scores)


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


def _alone(parse: Callable[[str], str | None]) -> Callable[[str, Sequence[str]], str | None]:
    """What is read out of an answer whatever the truth is."""
    return lambda text, truth: parse(text)


def _without_list(said: Texts, truths: Truths) -> NoReturn:
    raise ConfigError(
        "which words name a thing decides this metric: give the object list with --objects FILE, "
        "or park"
    )


_SHORT = partial(AnswerMetric, "short answers")
_CAPTIONS = partial(AnswerMetric, "captions")
_YES_NO = partial(AnswerMetric, "yes-or-no answers")
_NAMED = partial(AnswerMetric, "things named in captions")
_LETTERS = partial(AnswerMetric, "letters", parse=read_letter, truth=truth_of)

METRICS: Mapping[str, AnswerMetric] = {
    **{f"vqa_acc:{variant}": _vqa(variant) for variant in VARIANTS},
    "exact_match": _SHORT(partial(_exact, False), _alone(simplified)),
    "exact_match:raw": _SHORT(partial(_exact, True), _alone(str)),
    "anls": _SHORT(partial(_anls, "strict"), _alone(_collapsed)),
    "anls:lmms": _SHORT(partial(_anls, "lmms"), _alone(_collapsed)),
    "relaxed_accuracy": _SHORT(partial(_relaxed, False), _alone(_bare), single=True),
    "relaxed_accuracy:strict_year": _SHORT(partial(_relaxed, True), _alone(_bare), single=True),
    "cider": _CAPTIONS(_cider, _alone(_spaced), several=True),
    "bleu4": _CAPTIONS(_bleu, _alone(_spaced)),
    "rouge_l:coco": _CAPTIONS(_rouge, _alone(_spaced)),
    "pope_acc:official": _YES_NO(partial(pope_scores, "official"), _alone(read_official)),
    "pope_acc:strict": _YES_NO(partial(pope_scores, "strict"), _alone(read_strict)),
    "pope_precision": _YES_NO(partial(pope_number, "precision"), _alone(read_official)),
    "pope_recall": _YES_NO(partial(pope_number, "recall"), _alone(read_official)),
    "pope_f1": _YES_NO(partial(pope_number, "f1"), _alone(read_official)),
    "pope_yes_share": _YES_NO(partial(pope_number, "yes_ratio"), _alone(read_official)),
    "pope_unparsed": _YES_NO(pope_unparsed, _alone(read_strict), worst=1.0),
    "chair_s": _NAMED(_without_list, _alone(_spaced), worst=1.0),
    "chair_i": _NAMED(_without_list, _alone(_spaced), worst=1.0),
    "object_recall": _NAMED(_without_list, _alone(_spaced)),
    "accuracy:letter": _LETTERS(letter_scores),
    "circular:letter": _LETTERS(letter_circular),
}
"""By name."""


def with_objects(objects: ObjectList) -> Mapping[str, AnswerMetric]:
    """The same, where these words name things."""
    scores = {
        "chair_s": partial(chair_scores, objects),
        "chair_i": partial(chair_number, "chair_i", objects),
        "object_recall": partial(chair_number, "recall", objects),
    }
    parse = _alone(lambda text: ", ".join(objects.mentions(text)))
    own = {name: METRICS[name]._replace(score=score, parse=parse) for name, score in scores.items()}
    return {**METRICS, **own}


def less_is_better(name: str) -> bool:
    """Whether this is a metric of answers of which less is better."""
    return name in METRICS and METRICS[name].worst > 0


def fitting(family: Family) -> list[str]:
    """Names of the metrics of short answers, of captions, and so on."""
    return [name for name, metric in METRICS.items() if metric.family == family]


def require_fit(name: str, family: Family, targets: Sequence[tuple[str, Sequence[str]]]) -> None:
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


def _rest(family: Family, condition: str) -> str:
    """The metrics that do not set this condition."""
    plain = METRICS["exact_match"]
    return ", ".join(
        name for name in fitting(family)
        if getattr(METRICS[name], condition) == getattr(plain, condition)
    )  # fmt: skip


def column_of(
    name: str,
    samples: Sequence[Sample],
    said: Sequence[str | None],
    table: Mapping[str, AnswerMetric] = METRICS,
) -> Column:
    """What each sample adds; no answer, and one without a character, adds nothing.

    Args:
        said: what was written about each; None where nothing was.
        table: `METRICS`, or what `with_objects` made of it.
    """
    metric = table[name]
    texts = [text or "" for text in said]
    column = metric.score(texts, [metric.truth(sample) for sample in samples])
    if column.of_totals is not None or column.rows is not None:
        return column
    # "a" is no word to VQA accuracy, so that to say nothing would be as good
    answered = np.array([bool(text.strip()) for text in texts], dtype=bool)
    return column._replace(values=np.where(answered, column.values, metric.worst))
