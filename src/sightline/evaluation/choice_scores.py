"""How likely each choice is as the answer to its question, with its picture and without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
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
from sightline.evaluation.records import Progress
from sightline.evaluation.samples import Sample
from sightline.tasks.batching import Failed
from sightline.tasks.likelihood import answer_ids
from sightline.tasks.writing import BATCH, score_each

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


def choice_likelihoods(
    model: Model,
    questions: Sequence[Question],
    way: Way,
    blind: bool = True,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> ChoiceScores:
    """Questions and choices are untrusted, else these are the numbers of `model.logprob`.

    Args:
        questions: with choices.
        way: of `asked.question_way`; its prompts are taken, and nothing is written.
        blind: ask the same without pictures too, equal questions with equal choices once.
        progress: called with questions done and their total.
    """
    prompts, refused = prompts_of(way, questions)
    texts = _texts(model, questions, prompts, refused)
    samples = unanswered(questions, prompts, None)
    totals = [torch.full((len(q.choices),), torch.nan) for q in questions]
    missing: dict[str, str] = {}
    done = 0
    for own in _by_picture(samples, prompts):
        pictures = questions[own[0]].record.pictures
        found = _scores(model, pictures, own, prompts, texts, batch_size)
        for row, place in enumerate(own):
            if isinstance(found, Failed):
                missing[samples[place].id] = why_unreadable(found)
                samples[place] = replace(samples[place], status="missing")
            else:
                totals[place] = found[row]
                samples[place] = _ranked(samples[place], found[row])
        done += len(own)
        if progress is not None:
            progress(done, len(samples))
    unseen = _unseen(model, questions, prompts, texts, batch_size) if blind else []
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


def _by_picture(samples: Sequence[Sample], prompts: Sequence[Ids | None]) -> list[list[int]]:
    """Questions that can be asked, those about one picture together, so that it is read once."""
    places: dict[str, list[int]] = {}
    for place, (sample, ids) in enumerate(zip(samples, prompts, strict=True)):
        if ids is not None:
            places.setdefault(sample.group, []).append(place)
    return list(places.values())


def _scores(
    model: Model,
    pictures: tuple[object, ...],
    places: Sequence[int],
    prompts: Sequence[Ids | None],
    texts: Sequence[list[list[int]]],
    batch_size: int,
) -> list[Tensor] | Failed:
    own = [prompts[place] or () for place in places]
    rows = score_each(model, [pictures], own, [texts[i] for i in places], batch_size, "collect")
    return next(iter(rows))


def _unseen(
    model: Model,
    questions: Sequence[Question],
    prompts: Sequence[Ids | None],
    texts: Sequence[list[list[int]]],
    batch_size: int,
) -> list[Tensor]:
    kinds: dict[tuple[Ids, tuple[str, ...]], int] = {}
    for place, (question, ids) in enumerate(zip(questions, prompts, strict=True)):
        if ids is not None:
            kinds.setdefault((ids, question.choices), place)
    places = list(kinds.values())
    found = _scores(model, NO_PICTURE, places, prompts, texts, batch_size) if places else []
    if isinstance(found, Failed):
        raise found.error
    told = dict(zip(kinds, found, strict=True))
    return [
        torch.full((len(q.choices),), torch.nan) if ids is None else told[ids, q.choices]
        for q, ids in zip(questions, prompts, strict=True)
    ]


def _ranked(sample: Sample, totals: Float[Tensor, " C"]) -> Sample:
    """A sample with its choices, best first, ties against the model."""
    named = list(zip(sample.choices, totals.tolist(), strict=True))
    ranking = sorted(named, key=lambda entry: (-entry[1], entry[0] in sample.target))
    places = [place for place, (name, _) in enumerate(ranking, 1) if name in sample.target]
    finite = bool(torch.isfinite(totals).all())
    return replace(sample, ranking=tuple(ranking), rank=float(places[0]) if finite else math.inf)
