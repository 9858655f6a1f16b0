"""Questions with choices: is the right one taken?

By default the likeliest choice is: log p(choice, end | pictures, question), summed, and beside it
divided by the tokens of the choice, since a sum favours short ones and a mean long ones. The
choices are then not shown. By letter they are, and the reply is read by rules
(`metrics.multiple_choice`). A tie, and a reply that names none or several, is wrong.

A circular run shows the choices in every rotation, and a question counts where all are answered
right (MMBench, Liu et al. 2023, arXiv:2307.06281); `accuracy` beside it is the share of rotations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sightline.core.errors import ConfigError, DataError, unknown_name
from sightline.data.records import Dataset, Record
from sightline.evaluation.asked import Asked, Question, Way, ask_all, question_way
from sightline.evaluation.choice_scores import choice_likelihoods
from sightline.evaluation.choices import circular as in_every_rotation
from sightline.evaluation.choices import lettered, likelihood_scores
from sightline.evaluation.columns import Column
from sightline.evaluation.judged import (
    Benchmark,
    Judged,
    Measuring,
    category_of,
    conclude,
    judge,
    judge_columns,
    no_truth,
)
from sightline.evaluation.records import drawn_part
from sightline.evaluation.results import Result
from sightline.metrics.multiple_choice import LETTERS, rotations

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model

VERSION = 1
"""Raised when the same model and data would score differently than before."""
WAYS = ("likelihood", "letter")
CLOSING = "Answer with the letter of the right choice."
"""Behind the choices, where a letter is asked for."""


def mcq(
    model: Model,
    dataset: Dataset,
    how: Measuring | None = None,
    by: str | None = None,
    circular: bool = False,
) -> Result:
    """Share of questions with the right choice, with the same blind.

    A picture that cannot be read and a question that cannot be asked score 0. Intervals draw whole
    pictures. Groups: `category`, where the data say it, and the mean over categories.

    Args:
        model: what `sightline.load` returns.
        dataset: records with a question, two or more different choices, and one of them, or its
            letter, as the answer; others are excluded.
        how: limit, blind run, batches, a folder to go on in; options by letter.
        by: one of `WAYS`; None is the letter where the model cannot give a likelihood.
        circular: ask every rotation of the choices.

    Raises:
        DataError: no such record, or by letter one with more choices than letters.
        UnsupportedTaskError: the model answers no questions.
        ConfigError: an unknown way, options beside likelihoods, or a limit that cannot be.
    """
    started = time.monotonic()
    how, by = how or Measuring(), _way_of(model, by)
    if by == WAYS[0] and how.options:
        raise ConfigError(
            f"{', '.join(how.options)}: options of writing change no likelihood; leave them out, "
            "or take the letter that is written (--by letter, by='letter')"
        )
    questions = [found for record in dataset if (found := _question(record)) is not None]
    if not questions and len(dataset):
        raise no_truth(
            dataset, "a question with choices of which one is the answer",
            "'sightline data inspect' says what it holds",
        )  # fmt: skip
    chosen = drawn_part(questions, how.limit, how.seed)
    shown = [turned for one in chosen for turned in _turned(one)] if circular else chosen
    way = question_way(model, how.options, how.batch_size)
    if circular or by == "letter":
        closing = f" {CLOSING}" if by == "letter" else ""
        shown = [_listed(question, closing) for question in shown]
        way = way._replace(template=way.template.replace("{}", "{} (A) ... (B) ..." + closing))
    asked, judged = (_by_letter if by == "letter" else _by_likelihood)(
        model, shown, way, how, circular
    )
    names = tuple(judged.metrics)
    signed = {"by": by, "choices": "listed" if circular or by == "letter" else "unseen"}
    benchmark = Benchmark(
        "mcq", VERSION, names, by, "rotations" if circular else "questions", signed
    )
    return conclude(model, dataset, questions, chosen, benchmark, way, how, asked, judged, started)


def _way_of(model: Model, by: str | None) -> str:
    if by is None:
        return WAYS[0] if "logprob" in model.tasks else "letter"
    if by not in WAYS:
        raise ConfigError(unknown_name("way to take a choice", by, WAYS))
    return by


def _by_letter(
    model: Model, questions: Sequence[Question], way: Way, how: Measuring, circular: bool
) -> tuple[Asked, Judged]:
    asked = ask_all(model, questions, way, how.blind, how.batch_size, how.progress, how.folder)
    names = [f"{kind}:letter" for kind in _kinds(circular)]
    return asked, judge(asked.samples, names, how.seed, how.resamples)


def _by_likelihood(
    model: Model, questions: Sequence[Question], way: Way, how: Measuring, circular: bool
) -> tuple[Asked, Judged]:
    found = choice_likelihoods(
        model, questions, way, how.blind, how.batch_size, how.progress, how.folder
    )
    choices = [question.choices for question in questions]
    right = [question.target[0] for question in questions]

    def columns(totals: Sequence[Tensor]) -> dict[str, Column]:
        own = {
            "sum": likelihood_scores(totals, choices, right),
            "per_token": likelihood_scores(totals, choices, right, found.lengths),
        }
        every = {"accuracy": own}
        if circular:
            turns = {n: in_every_rotation(c.values, choices) for n, c in own.items()}
            every["circular"] = turns
        return {
            f"{kind}:{name}": column
            for kind in _kinds(circular)
            for name, column in every[kind].items()
        }

    unseen = columns(found.unseen) if how.blind and questions else {}
    said = columns(found.totals)
    return found.asked, judge_columns(found.asked.samples, said, unseen, how.seed, how.resamples)


def _kinds(circular: bool) -> tuple[str, ...]:
    """Kinds of metric, the headline first."""
    return ("circular", "accuracy") if circular else ("accuracy",)


def _question(record: Record) -> Question | None:
    """What is asked, behind its hint; None where there is no one right choice."""
    right = _right(record)
    if record.question is None or right is None or len(record.choices) < 2:
        return None
    hint = record.extra.get("hint")
    words = f"{hint} {record.question}" if isinstance(hint, str) and hint else record.question
    return Question(record, (right,), words, category_of(record), record.choices)


def _right(record: Record) -> str | None:
    """The right choice, which the data may name by its letter."""
    answers = {answer.strip() for answer in record.answers}
    if len(answers) != 1:
        return None
    (answer,) = answers
    if answer not in record.choices and len(answer) == 1:
        place = LETTERS.find(answer.upper())
        answer = record.choices[place] if 0 <= place < len(record.choices) else answer
    return answer if record.choices.count(answer) == 1 else None


def _turned(question: Question) -> list[Question]:
    """The question with every rotation of its choices."""
    return [question._replace(choices=tuple(own)) for own, _ in rotations(question.choices, 0)]


def _listed(question: Question, closing: str) -> Question:
    """The question with its choices written behind it.

    Raises:
        DataError: more choices than letters.
    """
    if len(question.choices) > len(LETTERS):
        raise DataError(
            f"{question.record.id!r} has {len(question.choices)} choices: there are letters for "
            f"{len(LETTERS)}; score them by likelihood, not circular"
        )
    return question._replace(words=f"{question.words} {lettered(question.choices)}{closing}")
