"""What is known before the first token: the rows that are answered, and the rules they obey."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from sightline.core.interfaces import Prompt
from sightline.generation.answers import Answer, new_answers
from sightline.generation.constraints import (
    Constraint,
    Constraints,
    allowed_rows,
    row_constraints,
)
from sightline.generation.options import GenerationOptions
from sightline.generation.pieces import Decode
from sightline.generation.prompt_rows import check_prompt
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
            scores = penalise_repetition(scores, self.ids, self.lengths, options.repetition_penalty)
        if options.no_repeat_ngram:
            scores = forbid_repeated_ngrams(scores, self.ids, self.lengths, options.no_repeat_ngram)
        allowed = allowed_rows(self.constraints, written, scores.shape[1])
        return scores if allowed is None else keep_allowed(scores, allowed.to(scores.device))

    def follow(self, rows: Sequence[int], ids: Tensor) -> None:
        """Go on with these rows, in this order, each with one more token int64[R]."""
        moved = list(rows) != list(range(len(self.constraints)))
        self.constraints = [self.constraints[row] for row in rows]
        if not self.looks_back:
            return
        if moved:
            picked = torch.tensor(rows, device=ids.device)
            self.ids, self.lengths = self.ids[picked], self.lengths[picked]
        self.ids.scatter_(1, self.lengths[:, None], ids[:, None])
        self.lengths = self.lengths + 1


def begin(
    prompt: Prompt,
    options: GenerationOptions,
    end_ids: Collection[int],
    decode: Decode | None,
    constraint: Constraints,
) -> tuple[list[Answer], Rules]:
    """An empty answer for each row of the prompt, and the rules.

    Raises:
        InputError: a prompt that cannot be continued.
        ConfigError: stop texts without `decode`, or constraints that are not as many as rows.
    """
    lengths = check_prompt(prompt)
    answers = new_answers(len(prompt.ids), options, end_ids, decode)
    return answers, Rules(prompt, lengths, options, row_constraints(constraint, len(answers)))
