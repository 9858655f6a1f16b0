"""Beam search: the likeliest whole answer, among several that are followed at a time.

The rules of transformers. Of the (1 + end tokens) * beams best continuations of a prompt, those
that end and are among the best `beams` become answers, and the best that go on are followed.
Answers are compared by log-probability / tokens ** length_penalty. A search ends when it holds as
many answers as beams, and the best open one at its present length is no better than the worst of
them.

Rules such as a repetition penalty change log-probabilities here, where greedy writing applies them
to scores. **Differs from transformers**: a search that has ended leaves the batch, and a beam that
nothing may follow is an answer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sightline.core.interfaces import Prompt, TextGenerator
from sightline.generation.answers import Answer, Generated
from sightline.generation.constraints import Constraints
from sightline.generation.options import GenerationOptions
from sightline.generation.pieces import Decode
from sightline.generation.rules import Rules, begin


class Beam(NamedTuple):
    """One answer that a search found."""

    answer: Generated
    score: float
    """What it was compared by: log-probability under the rules / tokens ** length_penalty."""


@torch.inference_mode()
def beam_search(
    network: TextGenerator,
    prompt: Prompt,
    options: GenerationOptions,
    end_ids: Collection[int],
    decode: Decode | None = None,
    constraint: Constraints = None,
) -> list[list[Beam]]:
    """The answers to each row of the prompt, best first: at least one, at most `options.beams`.

    Raises:
        InputError, ConfigError, SightlineError: as `generation.text.generate`.
    """
    answers, rules = begin(prompt, options, end_ids, decode, constraint)
    searches = [_Search(answer, options) for answer in answers]
    if not searches or not options.max_new_tokens:
        return [[Beam(answer.generated(), 0.0)] for answer in answers]
    logits, cache = network.prefill(prompt, options.max_new_tokens - 1)
    width = max(2, 1 + len(answers[0].end_ids)) * options.beams
    active = searches
    while True:
        followed = [beam for search in active for beam in search.open]
        expanded = iter(_expand(logits, followed, rules, width))
        for search in active:
            own = [candidate for _ in search.open for candidate in next(expanded)]
            search.advance(sorted(own, key=lambda candidate: -candidate.total)[:width])
        active = [search for search in active if not search.done]
        if not active:
            return [search.found for search in searches]
        going = [beam for search in active for beam in search.open]
        places = [beam.place for beam in going]
        ids = torch.tensor([beam.answer.ids[-1] for beam in going], device=logits.device)
        if places != list(range(len(followed))):
            cache = cache.select(torch.tensor(places, device=logits.device))
        rules.follow(places, ids)
        logits = network.extend(ids[:, None], cache)[:, 0]


class _Open(NamedTuple):
    """A beam that is followed."""

    total: float
    answer: Answer
    place: int
    """The row of the cache that it continues."""


class _Candidate(NamedTuple):
    """A beam and the token that may follow it."""

    total: float
    parent: Answer
    place: int
    id: int | None
    """None where nothing may follow."""
    logprob: float

    def written(self) -> Answer:
        answer = self.parent.copy()
        if self.id is None:
            answer.nothing_follows()
        else:
            answer.add(self.id, self.logprob)
        return answer


class _Search:
    """The search behind one prompt."""

    def __init__(self, answer: Answer, options: GenerationOptions) -> None:
        self.options = options
        self.open = [_Open(0.0, answer, answer.row)]
        self.found: list[Beam] = []
        self.done = False

    def advance(self, candidates: Sequence[_Candidate]) -> None:
        """Take the best continuations, best first: keep what ends, follow what goes on."""
        beams = self.options.beams
        self.open = []
        for rank, candidate in enumerate(candidates):
            if len(self.open) == beams:
                break
            answer = candidate.written()
            if answer.reason is None:
                self.open.append(_Open(candidate.total, answer, candidate.place))
            elif rank < beams:  # a worse end only made room for what goes on
                self.found.append(Beam(answer.generated(), self._score(candidate.total, answer)))
        self.found = sorted(self.found, key=lambda beam: -beam.score)[:beams]
        self.done = not self.open or (
            len(self.found) == beams
            and (
                self.options.early_stopping
                or self._score(self.open[0].total, self.open[0].answer) <= self.found[-1].score
            )
        )

    def _score(self, total: float, answer: Answer) -> float:
        return total / max(1, len(answer.ids)) ** self.options.length_penalty


def _expand(
    logits: Tensor, beams: Sequence[_Open], rules: Rules, width: int
) -> list[list[_Candidate]]:
    """For each row of float[R, V] its best continuations, best first."""
    own = logits.float().log_softmax(dim=1)  # [R V]
    before = torch.tensor([beam.total for beam in beams], device=own.device)
    totals = rules(own, [beam.answer.ids for beam in beams]) + before[:, None]
    best, ids = totals.topk(min(width, totals.shape[1]), dim=1)  # [R width]
    logprobs = own.gather(1, ids)
    rows = []
    for place, (beam, *columns) in enumerate(
        zip(beams, best.tolist(), ids.tolist(), logprobs.tolist(), strict=True)
    ):
        candidates = [
            _Candidate(total, beam.answer, place, token, logprob)
            for total, token, logprob in zip(*columns, strict=True)
            if total != -math.inf
        ]
        rows.append(candidates or [_Candidate(beam.total, beam.answer, place, None, 0.0)])
    return rows
