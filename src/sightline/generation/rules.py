"""What the options and constraints make of a network's scores, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sightline.core.interfaces import Prompt
from sightline.generation.constraints import Constraint, allowed_rows
from sightline.generation.options import GenerationOptions
from sightline.generation.sampling import (
    forbid_repeated_ngrams,
    keep_allowed,
    penalise_repetition,
)


class Rules:
    """The rules that look at what is written: repetition, n-grams, constraints.

    Holds the tokens of prompt and answer side by side where a rule asks for them, in one buffer for
    the whole run.
    """

    def __init__(
        self,
        prompt: Prompt,
        lengths: Tensor,
        options: GenerationOptions,
        constraints: Sequence[Constraint | None],
    ) -> None:
        self.options, self.constraints = options, list(constraints)
        self.looks_back = options.repetition_penalty != 1 or options.no_repeat_ngram > 0
        self.lengths = lengths
        self.ids = torch.nn.functional.pad(prompt.ids, (0, options.max_new_tokens))
        if not self.looks_back:
            self.ids = prompt.ids[:, :0]

    def __call__(self, scores: Tensor, written: Sequence[Sequence[int]]) -> Tensor:
        """float32[R, V]: the scores under the rules; -inf where a token may not follow.

        `written` are the tokens of each answer so far.
        """
        options = self.options
        if options.repetition_penalty != 1:
            places = torch.arange(self.ids.shape[1], device=self.ids.device)
            own = places < self.lengths[:, None]  # [R T]
            scores = penalise_repetition(scores, self.ids, own, options.repetition_penalty)
        if options.no_repeat_ngram:
            scores = forbid_repeated_ngrams(scores, self.ids, self.lengths, options.no_repeat_ngram)
        allowed = allowed_rows(self.constraints, written, scores.shape[1])
        return scores if allowed is None else keep_allowed(scores, allowed.to(scores.device))

    def follow(self, rows: Sequence[int], ids: Tensor) -> None:
        """Go on with these rows, in this order, each with one more token int64[R]."""
        self.constraints = [self.constraints[row] for row in rows]
        if not self.looks_back:
            return
        picked = torch.tensor(rows, device=ids.device)
        lengths = self.lengths[picked]
        self.ids = self.ids[picked].scatter_(1, lengths[:, None], ids[:, None])
        self.lengths = lengths + 1
