"""Writing: one token behind the other, for several prompts at a time.

    answers = generate(network, prompt, GenerationOptions(64), end_ids, tokenizer.decode)
    for piece in stream(network, prompt, GenerationOptions(64), end_ids, tokenizer.decode): ...

Both run the same loop, so that a streamed answer is the answer. A row that ends leaves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from sightline.core.errors import ConfigError
from sightline.core.interfaces import Prompt, TextGenerator
from sightline.generation.answers import Answer, Generated, Piece
from sightline.generation.beams import beam_search
from sightline.generation.constraints import Constraints
from sightline.generation.options import GenerationOptions
from sightline.generation.pieces import Decode
from sightline.generation.rules import Rules, begin
from sightline.generation.sampling import best, draw, row_draws, shortlist


def generate(
    network: TextGenerator,
    prompt: Prompt,
    options: GenerationOptions,
    end_ids: Collection[int],
    decode: Decode | None = None,
    constraint: Constraints = None,
) -> list[Generated]:
    """One answer for each row of the prompt, in order.

    Args:
        end_ids: tokens that end an answer.
        decode: ids to text, without which answers have none and stop texts cannot be seen.
        constraint: what may be written, one rule for all rows or one for each.

    Raises:
        InputError: a prompt that cannot be continued (see `check_prompt`).
        ConfigError: stop texts without `decode`, or constraints that are not as many as rows.
        SightlineError: the network's scores are not numbers.
    """
    if options.beams > 1:
        found = beam_search(network, prompt, options, end_ids, decode, constraint)
        return [beams[0].answer for beams in found]
    answers, rules = begin(prompt, options, end_ids, decode, constraint)
    for _ in _write(network, prompt, answers, rules):
        pass
    return [answer.generated() for answer in answers]


def stream(
    network: TextGenerator,
    prompt: Prompt,
    options: GenerationOptions,
    end_ids: Collection[int],
    decode: Decode | None = None,
    constraint: Constraints = None,
) -> Iterator[Piece]:
    """The same answers in pieces as they come, one a row and step; `row` says which.

    Texts of a row's pieces joined are the text of `generate`. Closing the iterator, or dropping it,
    stops the work. With max_new_tokens = 0 there is no piece.

    Raises:
        ConfigError: also for beams, of which nobody knows the best one before the end.
    """
    if options.beams > 1:
        raise ConfigError(
            f"beams is {options.beams}: a search knows its answer only at the end and cannot be "
            "streamed; set beams to 1, or do not stream"
        )
    answers, rules = begin(prompt, options, end_ids, decode, constraint)
    return _write(network, prompt, answers, rules)


@torch.inference_mode()
def _write(
    network: TextGenerator, prompt: Prompt, answers: Sequence[Answer], rules: Rules
) -> Iterator[Piece]:
    options, active = rules.options, list(answers)
    if not active or not options.max_new_tokens:
        return
    # The last token is written and not read again: it needs no place in the cache.
    logits, cache = network.prefill(prompt, options.max_new_tokens - 1)
    draws = row_draws(options.seed, len(active), options.max_new_tokens).to(logits.device)
    for step in range(options.max_new_tokens):
        scores = logits.float()  # [R V]
        ruled = rules(scores, [answer.ids for answer in active])
        ids, logprobs, possible = next_tokens(scores, ruled, options, draws[:, step])
        going = []
        for place, (token, logprob, real) in enumerate(
            zip(ids.tolist(), logprobs.tolist(), possible.tolist(), strict=True)
        ):
            answer = active[place]
            yield answer.add(token, logprob) if real else answer.nothing_follows()
            if answer.reason is None:
                going.append(place)
        if not going:
            return
        if len(going) < len(active):
            active = [active[place] for place in going]
            rows = torch.tensor(going, device=ids.device)
            cache, ids, draws = cache.select(rows), ids[rows], draws[rows]
        rules.follow(going, ids)
        logits = network.extend(ids[:, None], cache)[:, 0]


def next_tokens(
    scores: Tensor, ruled: Tensor, options: GenerationOptions, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The token of each row int64[R], its own log-probability, and whether any token may follow.

    Args:
        scores: float32[R, V] of the network.
        ruled: the same under the rules.
        uniform: a number in [0, 1) a row, for chance.
    """
    if options.sampled:
        ids, chosen = _drawn(ruled / options.temperature, options, uniform)
    else:
        chosen, ids = best(ruled)
    logprobs = scores.gather(1, ids[:, None])[:, 0] - scores.logsumexp(dim=1)
    return ids, logprobs, chosen != -math.inf


def _drawn(scores: Tensor, options: GenerationOptions, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """A token of each row int64[R] by chance, and its score."""
    order = None
    if options.top_k is not None or options.top_p is not None:
        scores, order = shortlist(scores, options.top_k, options.top_p)
    places = draw(scores, uniform)[:, None]
    ids = places if order is None else order.gather(1, places)
    return ids[:, 0], scores.gather(1, places)[:, 0]
