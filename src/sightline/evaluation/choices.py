"""Which of the given choices was taken, sample by sample: by its letter, or by its likelihood.

A question may have been asked once for every rotation of its choices; it then counts as right where
all of them are (Liu et al. 2023, arXiv:2307.06281), so that a liking for one letter gains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from sightline.core.errors import DataError
from sightline.evaluation.columns import Column
from sightline.evaluation.samples import Sample
from sightline.metrics.multiple_choice import (
    LETTERS,
    choice_accuracy,
    circular_accuracy,
    likelihood_choice,
    read_choice,
)

Truths = Sequence[Sequence[str]]
"""For each question the right choice, and behind it all choices as they were shown."""


def truth_of(sample: Sample) -> tuple[str, ...]:
    """The right choice and all choices of a sample."""
    return (*sample.target, *sample.choices)


def lettered(choices: Sequence[str]) -> str:
    """The choices with their letters, on one line."""
    return " ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, choices, strict=False))


def letter_scores(said: Sequence[str], truths: Truths) -> Column:
    """Whether each reply names the right choice."""
    choices, places = _parted(truths)
    return Column(choice_accuracy(said, choices, places).scores)


def letter_circular(said: Sequence[str], truths: Truths) -> Column:
    """Whether each question was answered right in every rotation.

    Raises:
        DataError: it was not asked in every rotation.
    """
    return circular(letter_scores(said, truths).values, _parted(truths)[0])


def read_letter(text: str, truth: Sequence[str]) -> str | None:
    """The choice that a reply names."""
    place = read_choice(text, truth[1:])
    return None if place is None else truth[1 + place]


def likelihood_scores(
    totals: Sequence[Float[Tensor, " C"]],
    choices: Sequence[Sequence[str]],
    right: Sequence[str],
    lengths: Sequence[Sequence[int]] | None = None,
) -> Column:
    """Where the right choice is likelier than every other one; a tie, and NaN, is wrong.

    Args:
        totals: log-likelihoods of the choices of each question.
        lengths: of the choices in tokens, to divide by.
    """
    most = max(map(len, choices), default=1)
    values = torch.full((len(choices), most), torch.nan, dtype=torch.float64)
    counts = torch.ones_like(values)
    present = torch.zeros(len(choices), most, dtype=torch.bool)
    for row, (own, long) in enumerate(zip(totals, lengths or repeat(None), strict=False)):
        present[row, : len(own)] = True
        values[row, : len(own)] = own.double()
        if long is not None:
            counts[row, : len(own)] = torch.tensor(long, dtype=torch.float64)
    places = [own.index(text) for own, text in zip(map(list, choices), right, strict=True)]
    answers = torch.tensor(places, dtype=torch.long)
    return Column(likelihood_choice(values, answers, present, counts if lengths else None).scores)


def circular(scores: Float[ndarray, " N"], choices: Sequence[Sequence[str]]) -> Column:
    """Right in every rotation, a value a question.

    Args:
        scores: 1 where a rotation was answered right.
        choices: as they were shown, the rotations of a question behind each other.

    Raises:
        DataError: a question that was not asked in every rotation.
    """
    rows: list[int] = []
    questions: list[int] = []
    while len(questions) < len(choices):
        first = len(questions)
        own = list(choices[first])
        for shift in range(len(own)):
            shown = choices[first + shift] if first + shift < len(choices) else ()
            if list(shown) != own[shift:] + own[:shift]:
                raise DataError(
                    f"question {first} was not asked in every rotation of its choices: evaluate "
                    "again with --circular"
                )
        questions += [len(rows)] * len(own)
        rows.append(first)
    found = circular_accuracy(np.asarray(scores), questions, [len(own) for own in choices])
    return Column(found.scores, rows=rows)


def _parted(truths: Truths) -> tuple[list[Sequence[str]], list[int]]:
    """The choices of each question and the place of the right one."""
    choices = [own[1:] for own in truths]
    return choices, [list(shown).index(own[0]) for own, shown in zip(truths, choices, strict=True)]
