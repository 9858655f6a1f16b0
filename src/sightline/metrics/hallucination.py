"""POPE: whether a model says yes to things that are not in the picture (Li et al. 2023).

Every question is "Is there a ... in the image?" and yes is the positive class. The questions come
in three kinds, random, popular and adversarial; a table has one score of each and their mean.

The published parser (arXiv:2305.10355) looks for "no" or "not" in the first sentence and takes
all else as yes, also "I am sorry". `strict` wants the reply to begin with yes or no; another one is
wrong whatever was asked: a miss where yes is right, a false alarm where no is.

Letters: N questions, R drawn sets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sightline.core.errors import InputError, unknown_name
from sightline.metrics.per_sample import same_length

PopeVariant = Literal["official", "strict"]
POPE_VARIANTS: tuple[PopeVariant, ...] = get_args(PopeVariant)
POPE_NUMBERS = ("accuracy", "precision", "recall", "f1", "yes_ratio")
"""The order of what `pope_of_counts` returns."""
_YES_OR_NO = re.compile(r"[^\w]*(yes|no)(?!\w)", re.IGNORECASE)


class Pope(NamedTuple):
    """Scores of yes-or-no questions about objects; NaN for no question."""

    accuracy: float
    precision: float
    """0 where nothing was called yes."""
    recall: float
    f1: float
    yes_ratio: float
    """Share of replies, not of truths, that are yes."""
    scores: Float[ndarray, " N"]
    """1 where a reply is right."""
    counts: Float[ndarray, "N 5"]
    """Of each question: right yes, false yes, right no, false no; and whether yes was said."""
    n_unparsed: int
    """0 for `official`, which takes every reply as one or the other."""
    undefined: tuple[str, ...]
    """Which of precision, recall and f1 are 0 because they are 0/0."""


def pope(replies: Sequence[str], truths: Sequence[bool], variant: PopeVariant = "official") -> Pope:
    """Accuracy, precision, recall, F1 and the share of yes.

    Args:
        replies: what the model wrote.
        truths: whether the object is in the picture.
        variant: how replies are read; see the head of this file.

    Raises:
        InputError: an unknown variant, or lengths that differ.
    """
    if variant not in POPE_VARIANTS:
        raise InputError(unknown_name("variant of POPE", variant, POPE_VARIANTS))
    same_length(replies=replies, truths=truths)
    read = _official if variant == "official" else _strict
    said = [read(reply) for reply in replies]
    rows = [_row(own, bool(truth)) for own, truth in zip(said, truths, strict=True)]
    counts = np.array(rows, dtype=np.float64).reshape(-1, 5)
    accuracy, precision, recall, f1, yes_ratio = pope_of_counts(counts.sum(axis=0)).tolist()
    return Pope(
        accuracy,
        precision,
        recall,
        f1,
        yes_ratio,
        scores=counts[:, 0] + counts[:, 2],
        counts=counts,
        n_unparsed=sum(own is None for own in said),
        undefined=undefined_of(counts.sum(axis=0)),
    )


def pope_of_counts(totals: Float[ndarray, "*R 5"]) -> Float[ndarray, "*R 5"]:
    """The five numbers (`POPE_NUMBERS`) of summed counts, of one set or of many at once.

    For `metrics.intervals.bootstrap_counts`: `pope_of_counts(times @ counts)` with times[R, N].
    """
    right, false_yes, right_no, false_no, said_yes = np.moveaxis(totals, -1, 0)
    number = right + false_yes + right_no + false_no
    with np.errstate(invalid="ignore"):  # 0/0 of an empty set is NaN
        ratios = [
            (right + right_no) / number,
            right / np.maximum(right + false_yes, 1),
            right / np.maximum(right + false_no, 1),
            2 * right / np.maximum(2 * right + false_yes + false_no, 1),
            said_yes / number,
        ]
    found: Float[ndarray, "*R 5"] = np.stack(ratios, axis=-1)
    return np.where(number[..., None] > 0, found, np.nan)


def undefined_of(totals: Float[ndarray, " 5"]) -> tuple[str, ...]:
    """Which of precision, recall and f1 of summed counts are 0 because they are 0/0."""
    right, false_yes, _, false_no, _ = totals
    parts = {"precision": false_yes, "recall": false_no, "f1": false_yes + false_no}
    return tuple(name for name, wrong in parts.items() if right + wrong == 0)


def _official(reply: str) -> bool:
    words = reply.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def _strict(reply: str) -> bool | None:
    found = _YES_OR_NO.match(reply)
    return None if found is None else found[1].lower() == "yes"


def _row(said: bool | None, truth: bool) -> tuple[bool, bool, bool, bool, bool]:
    right = said is truth
    return (
        truth and right,
        not truth and not right,
        not truth and right,
        truth and not right,
        said is True,
    )
