"""How likely each choice is as the answer to its question, with its picture and without."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.core.errors import InputError
from sightline.evaluation.asked import (
    NO_PICTURE,
    Asked,
    Ids,
    Question,
    Way,
    prompts_of,
    unanswered,
    why_unreadable,
)
from sightline.evaluation.kept import Answers, identity_of, short_key
from sightline.evaluation.records import Progress
from sightline.evaluation.samples import Sample
from sightline.tasks.batching import Failed
from sightline.tasks.likelihood import answer_ids
from sightline.tasks.writing import BATCH, score_rows

if TYPE_CHECKING:
    from sightline.tasks.model import Model


class ChoiceScores(NamedTuple):
    """A vector for each question, in the order of its choices."""

    asked: Asked
    """Samples with the ranking of their choices by `totals`."""
    totals: list[Float[Tensor, " C"]]
    """log p(choice, end | pictures, question); NaN where nothing could be asked."""
    unseen: list[Float[Tensor, " C"]]
    """The same without the pictures; empty where nobody asked so."""
    lengths: list[list[int]]
    """Tokens of each choice, its end included."""


class _Row(NamedTuple):
    """One question to score, with its pictures or without."""

    pictures: tuple[object, ...]
    prompt: Ids
    texts: list[list[int]]
    key: str


def choice_likelihoods(
    model: Model,
    questions: Sequence[Question],
    way: Way,
    blind: bool = True,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> ChoiceScores:
    """Questions and choices are untrusted, else these are the numbers of `model.logprob`.

    Args:
        questions: with choices.
        way: of `asked.question_way`; its prompts are taken, and nothing is written.
        blind: ask the same without pictures too, equal questions with equal choices once.
        progress: called with questions done and their total.
        folder: where a run that was killed goes on, see `evaluation.kept`.
    """
    prompts, refused = prompts_of(way, questions)
    texts = _texts(model, questions, prompts, refused)
    samples = unanswered(questions, prompts, None)
    totals = [torch.full((len(q.choices),), torch.nan) for q in questions]
    unseen = [each.clone() for each in totals] if blind else []
    missing: dict[str, str] = {}
    identity = "" if folder is None else identity_of(model, {})
    places = _by_picture(samples, prompts)
    shown = {samples[i].group: questions[i].record.pictures for i in reversed(places)}
    rows = [_row(prompts[i], texts[i], shown, samples[i].group, identity) for i in places]
    with Answers(folder) as answers:
        found = _scored(model, rows, batch_size, answers)
        for done, (place, one) in enumerate(zip(places, found, strict=True), 1):
            if isinstance(one, Failed):
                missing[samples[place].id] = why_unreadable(one)
                samples[place] = replace(samples[place], status="missing")
            else:
                totals[place] = one
                samples[place] = _ranked(samples[place], one)
            if progress is not None:
                progress(done, len(samples))
        if blind:
            bare = [_row(prompts[i], texts[i], {}, "", identity) for i in places]
            alone = _scored(model, bare, batch_size, answers)
            for place, one in zip(places, alone, strict=True):
                if isinstance(one, Failed):
                    raise one.error
                unseen[place] = one
    lengths = [[len(ids) + 1 for ids in own] for own in texts]
    named = tuple(f"{name}: {reason}" for name, reason in missing.items())
    turned_away = tuple(f"{name}: {reason}" for name, reason in refused.items())
    return ChoiceScores(Asked(samples, named, turned_away), totals, unseen, lengths)


def _texts(
    model: Model,
    questions: Sequence[Question],
    prompts: list[Ids | None],
    refused: dict[str, str],
) -> list[list[list[int]]]:
    """The ids of all choices; a question with one that has none loses its prompt."""
    found = []
    for place, question in enumerate(questions):
        try:
            found.append(answer_ids(model, question.choices))
        except InputError as error:
            found.append([[] for _ in question.choices])
            prompts[place] = None
            refused[question.record.id] = str(error)
    return found


def _by_picture(samples: Sequence[Sample], prompts: Sequence[Ids | None]) -> list[int]:
    """Places of questions that can be asked, those about one picture side by side."""
    places: dict[str, list[int]] = {}
    for place, (sample, ids) in enumerate(zip(samples, prompts, strict=True)):
        if ids is not None:
            places.setdefault(sample.group, []).append(place)
    return [place for own in places.values() for place in own]


def _row(
    prompt: Ids | None,
    texts: list[list[int]],
    shown: Mapping[str, tuple[object, ...]],
    group: str,
    identity: str,
) -> _Row:
    """
    Args:
        shown: pictures by group, so that those of several questions are one object.
    """
    key = short_key([identity, group, prompt, texts])
    return _Row(shown.get(group, NO_PICTURE), prompt or (), texts, key)


def _scored(
    model: Model, rows: Sequence[_Row], batch_size: int, answers: Answers
) -> Iterator[Tensor | Failed]:
    """log p of every choice of each row, in order; equal rows, and those known, are not asked."""
    new = {row.key: row for row in rows if _known(answers, row) is None}
    fresh = score_rows(
        model,
        (row.pictures for row in new.values()),
        (row.prompt for row in new.values()),
        (row.texts for row in new.values()),
        batch_size,
        "collect",
    )
    failed: dict[str, Failed] = {}
    with closing(fresh):  # type: ignore[type-var]
        for row in rows:
            known = failed.get(row.key, _known(answers, row))
            if known is None:
                known = next(fresh)
                if isinstance(known, Failed):
                    failed[row.key] = known
                else:
                    answers.put(row.key, known.tolist())
            yield known


def _known(answers: Answers, row: _Row) -> Tensor | None:
    kept = answers.get(row.key)
    try:
        known = torch.tensor(kept, dtype=torch.float32) if isinstance(kept, list) else None
    except (TypeError, ValueError):
        return None  # somebody else's line
    return None if known is None or known.shape != (len(row.texts),) else known


def _ranked(sample: Sample, totals: Float[Tensor, " C"]) -> Sample:
    """A sample with its choices, best first, ties against the model."""
    named = list(zip(sample.choices, totals.tolist(), strict=True))
    ranking = sorted(named, key=lambda entry: (-entry[1], entry[0] in sample.target))
    places = [place for place, (name, _) in enumerate(ranking, 1) if name in sample.target]
    finite = bool(torch.isfinite(totals).all())
    return replace(sample, ranking=tuple(ranking), rank=float(places[0]) if finite else math.inf)
