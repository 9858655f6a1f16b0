"""Short answers against a truth: exact match, ANLS of documents, relaxed accuracy of charts.

Every function returns a score for each question, in 0 .. 1, beside the mean. An empty answer
scores like any other text that is not the truth.

Letters: N questions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from jaxtyping import Float
from numpy import ndarray

from sightline.core.errors import InputError, unknown_name
from sightline.metrics.per_sample import Scores, mean_of_scores, same_length

AnlsVariant = Literal["strict", "lmms"]
ANLS_VARIANTS: tuple[AnlsVariant, ...] = get_args(AnlsVariant)
THRESHOLD = 0.5
"""A distance from here on is no answer at all."""
TOLERANCE = 0.05
"""Of a number read off a chart, relative to the truth."""
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_YEAR = re.compile(r"(?:1\d|20)\d\d")


class ExactMatch(NamedTuple):
    """Answers that are the truth, letter by letter and after `simplified`."""

    raw: Scores
    normalised: Scores


class RelaxedAccuracy(NamedTuple):
    """Answers about charts."""

    value: float
    """NaN for no question."""
    scores: Float[ndarray, " N"]
    """float64, 1 for each answer that is close enough."""
    dotted: tuple[bool, ...]
    """Where the answer ended in a dot that was taken away before it was read."""


def exact_match(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> ExactMatch:
    """Share of answers equal to any of the right ones, as GQA and others count.

    Args:
        predictions: one answer a question.
        answers: one or more right answers a question.

    Raises:
        InputError: lengths that differ, or a question without a right answer.
    """
    _check(predictions, answers)
    pairs = list(zip(predictions, answers, strict=True))
    raw = [float(own in right) for own, right in pairs]
    loose = [float(simplified(own) in map(simplified, right)) for own, right in pairs]
    return ExactMatch(mean_of_scores(raw), mean_of_scores(loose))


def simplified(text: str) -> str:
    """Lower case, without white space at the ends and without one trailing dot."""
    return _without_dot(text.lower().strip())


def anls(
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    variant: AnlsVariant = "strict",
) -> Scores:
    """Average normalised Levenshtein similarity (Biten et al. 2019, arXiv:1905.13648; DocVQA).

    For each question the best over its right answers of 1 - distance / longer length, 0 where that
    distance is half or more. Letters are compared in lower case, white space collapsed.

    Args:
        predictions: one answer a question.
        answers: one or more right answers a question.
        variant: `lmms` is the form of lmms-eval: a distance of exactly one half still scores, and
            lengths are those before white space was collapsed.

    Raises:
        InputError: an unknown variant, lengths that differ, or a question without a right answer.
    """
    if variant not in ANLS_VARIANTS:
        raise InputError(unknown_name("variant of ANLS", variant, ANLS_VARIANTS))
    _check(predictions, answers)
    pairs = zip(predictions, answers, strict=True)
    return mean_of_scores([_similarity(own, right, variant) for own, right in pairs])


def levenshtein(first: str, second: str) -> int:
    """The fewest letters to insert, delete or replace to make one text the other."""
    above = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        current = [row]
        for column, other in enumerate(second, start=1):
            replaced = above[column - 1] + (letter != other)
            current.append(min(replaced, above[column] + 1, current[-1] + 1))
        above = current
    return above[-1]


def relaxed_accuracy(
    predictions: Sequence[str], answers: Sequence[str], strict_year: bool = False
) -> RelaxedAccuracy:
    """Relaxed accuracy of ChartQA (Methani et al. 2020; Masry et al. 2022, arXiv:2203.10244).

    Numbers, also in percent, may be 5 % of the truth away from it; a truth of 0 needs a 0; other
    answers must be equal but for their case. One trailing dot is taken away and recorded.

    Args:
        predictions: one answer a question.
        answers: the right answer of each question.
        strict_year: a truth that looks like a year, 1000 to 2099, must be met exactly: 5 % of it
            are a century.

    Raises:
        InputError: lengths that differ.
    """
    same_length(predictions=predictions, answers=answers)
    texts = [text.strip() for text in predictions]
    bare = [_without_dot(text) for text in texts]
    pairs = zip(bare, answers, strict=True)
    close = [float(_close(own, right.strip(), strict_year)) for own, right in pairs]
    dotted = tuple(before != after for before, after in zip(texts, bare, strict=True))
    return RelaxedAccuracy(*mean_of_scores(close), dotted)


def _check(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
    same_length(predictions=predictions, answers=answers)
    for number, own in enumerate(answers):
        if not own or isinstance(own, str):
            raise InputError(f"question {number} has no list of right answers")


def _without_dot(text: str) -> str:
    return text.removesuffix(".")


def _similarity(prediction: str, answers: Sequence[str], variant: AnlsVariant) -> float:
    distances = [_distance(prediction, answer, variant) for answer in answers]
    nearest = min(distances)
    counts = nearest < THRESHOLD or (variant == "lmms" and nearest == THRESHOLD)
    return 1 - nearest if counts else 0.0


def _distance(prediction: str, answer: str, variant: AnlsVariant) -> float:
    """Levenshtein distance over the longer length; 0 for two empty texts."""
    own, right = (" ".join(text.lower().split()) for text in (prediction, answer))
    measured = (prediction.upper(), answer.upper()) if variant == "lmms" else (own, right)
    longer = max(map(len, measured))
    return levenshtein(own, right) / longer if longer else 0.0


def _close(prediction: str, answer: str, strict_year: bool) -> bool:
    own, right = _number(prediction), _number(answer)
    if own is None or right is None:
        return prediction.lower() == answer.lower()
    if right == 0 or (strict_year and _YEAR.fullmatch(answer)):
        return own == right
    return abs(own - right) / abs(right) <= TOLERANCE


def _number(text: str) -> float | None:
    """A number, percents as parts of 1; None for other text, "nan" and "inf" included."""
    bare = text.removesuffix("%")
    if not _NUMBER.fullmatch(bare):
        return None
    value = float(bare) / 100 if bare != text else float(bare)
    return value if math.isfinite(value) else None
