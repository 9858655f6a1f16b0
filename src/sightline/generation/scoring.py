"""How likely given texts are: log p(text | prompt), token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sightline.core.errors import InputError
from sightline.core.interfaces import Cache, Prompt, TextGenerator
from sightline.generation.answers import checked
from sightline.generation.prompt_rows import check_prompt

_SCORES = 2**26
"""The most scores that are held at a time: 256 MB of float32."""


class Scored(NamedTuple):
    """How likely one text is."""

    logprobs: list[float]
    """log p(token | all before), one a token."""

    @property
    def total(self) -> float:
        """log p(text | prompt); 0 for a text without tokens."""
        return float(sum(self.logprobs))


@torch.no_grad()
def score(
    network: TextGenerator,
    prompt: Prompt,
    texts: Sequence[Sequence[Sequence[int]]],
    end_id: int | None = None,
    rows: int = 32,
    scores: int = _SCORES,
) -> list[list[Scored]]:
    """log p(text, end | prompt) of several texts behind each row of the prompt.

    Prompts are read once; texts of about the same length then go through the network together. What
    is held at a time is bounded by `rows` copies of a cache and about so many `scores`.

    Args:
        texts: for each row of the prompt its texts, as ids.
        end_id: the token whose probability behind the text counts too; None to leave it open.

    Raises:
        InputError: texts for another number of rows, a token that the network does not know, or a
            prompt that cannot be continued.
        SightlineError: the network's scores are not numbers.
    """
    check_prompt(prompt)
    if len(texts) != len(prompt.ids):
        raise InputError(f"texts for {len(texts)} prompts, but there are {len(prompt.ids)}")
    end = [] if end_id is None else [end_id]
    jobs = [(row, [*ids, *end]) for row, own in enumerate(texts) for ids in own]
    found: list[list[float]] = [[] for _ in jobs]
    order = sorted((job for job in range(len(jobs)) if jobs[job][1]), key=lambda j: len(jobs[j][1]))
    if order:
        # The last token of a text is asked for and never fed.
        logits, cache = network.prefill(prompt, len(jobs[order[-1]][1]) - 1)
        first = logits.float().log_softmax(dim=1)  # [B V]
        _check_tokens([ids for _, ids in jobs], first.shape[1])
    while order:
        length = len(jobs[order[-1]][1])  # the longest of what is left
        count = max(1, min(rows, scores // (length * first.shape[1])))
        order, chunk = order[:-count], order[-count:]
        tokens = [jobs[job][1] for job in chunk]
        places = torch.tensor([jobs[job][0] for job in chunk], device=first.device)
        begins = first[places, [ids[0] for ids in tokens]].tolist()
        rest: list[list[float]] = [[] for _ in chunk]
        if length > 1:
            step = max(1, scores // (count * first.shape[1]))
            rest = _behind(network, cache.select(places), tokens, step)
        for job, begin, logprobs in zip(chunk, begins, rest, strict=True):
            found[job] = [checked(logprob) for logprob in (begin, *logprobs)]
    scored = iter(found)
    return [[Scored(next(scored)) for _ in own] for own in texts]


def _check_tokens(texts: Sequence[Sequence[int]], width: int) -> None:
    unknown = {token for ids in texts for token in ids if not 0 <= token < width}
    if unknown:
        raise InputError(f"token {max(unknown)} is not among the {width} that the network knows")


def _behind(
    network: TextGenerator, cache: Cache, texts: Sequence[Sequence[int]], step: int
) -> list[list[float]]:
    """For each text the log-probabilities of its tokens behind the first, `step` tokens at a time.

    Only one text alone takes several steps, so that no row is ever fed nothing but padding.
    """
    device, longest = cache.lengths.device, max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=device)
    lengths = torch.tensor([[len(text)] for text in texts], device=device)
    fed = torch.arange(1, longest, device=device) < lengths  # [R T-1]
    parts = []
    for start in range(0, longest - 1, step):
        stop = min(start + step, longest - 1)
        mask = None if fed.all() else fed[:, start:stop]
        logits = network.extend(ids[:, start:stop], cache, mask).float()  # [R t V]
        chosen = logits.gather(2, ids[:, start + 1 : stop + 1, None])[..., 0]
        parts.append(chosen - logits.logsumexp(dim=2))
    logprobs = torch.cat(parts, dim=1).tolist()
    return [row[: len(text) - 1] for row, text in zip(logprobs, texts, strict=True)]
