"""From scores to the next token: pure functions of float32 logits, one row an answer.

A token that may not follow has the score -inf. Each function is what the processor of the same idea
does in transformers; where a row is shorter than its neighbours, padding counts for nothing here.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_LIKELY = 1024
"""Candidates among which `keep_top_p` looks before it sorts a whole vocabulary."""


def penalise_repetition(
    logits: Float[Tensor, "B V"], ids: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"], penalty: float
) -> Float[Tensor, "B V"]:
    """Scores of the tokens in `ids` divided by the penalty, or multiplied where they are negative.

    CTRL (Keskar et al. 2019, arXiv:1909.05858, section 4.1), in the form that also lowers negative
    scores. `mask` is True where an id is the row's own.
    """
    size = logits.shape[1]
    seen = torch.zeros(len(logits), size + 1, dtype=torch.bool, device=logits.device)
    seen.scatter_(1, torch.where(mask, ids, size), True)  # padding falls into the column behind
    lowered = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen[:, :size], lowered, logits)


def forbid_repeated_ngrams(
    logits: Float[Tensor, "B V"], ids: Int[Tensor, "B T"], lengths: Int[Tensor, " B"], size: int
) -> Float[Tensor, "B V"]:
    """No token that would repeat a sequence of `size` tokens of its row's first `lengths` ids."""
    vocabulary = logits.shape[1]
    if ids.shape[1] < size:
        return logits
    windows = ids.unfold(1, size, 1)  # [B W size]
    ends = torch.arange(size, ids.shape[1] + 1, device=ids.device)  # [W]
    tail = lengths[:, None] + torch.arange(1 - size, 0, device=ids.device)  # [B size-1]
    last = ids.gather(1, tail.clamp(min=0))  # of a row that is too short, no window is inside
    same = (windows[..., :-1] == last[:, None]).all(dim=-1)  # [B W]
    repeats = same & (ends <= lengths[:, None])  # [B W]
    banned = torch.zeros(len(logits), vocabulary + 1, dtype=torch.bool, device=logits.device)
    banned.scatter_(1, torch.where(repeats, windows[..., -1], vocabulary), True)
    return logits.masked_fill(banned[:, :vocabulary], -math.inf)


def keep_allowed(
    logits: Float[Tensor, "B V"], allowed: Bool[Tensor, "B V"]
) -> Float[Tensor, "B V"]:
    """Only the tokens that are allowed."""
    return logits.masked_fill(~allowed, -math.inf)


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """The k best tokens of each row, and those that tie with the last of them.

    Fan et al. 2018, arXiv:1805.04833, section 5.4.
    """
    worst = logits.topk(min(k, logits.shape[1]), dim=1).values[:, -1:]  # [B 1]
    return logits.masked_fill(logits < worst, -math.inf)


def keep_top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """The nucleus: the fewest likeliest tokens of each row that hold the probability p.

    Holtzman et al. 2020, arXiv:1904.09751, equation 2. A token stays if those above it hold less
    than p; the first always does. Only the likeliest are sorted where they suffice, since a whole
    vocabulary is long and a nucleus short.
    """
    if p >= 1:  # everything, however the sums are rounded
        return logits
    total = logits.logsumexp(dim=1, keepdim=True)  # [B 1]
    for count in (min(_LIKELY, logits.shape[1]), logits.shape[1]):
        likely, order = logits.topk(count, dim=1)  # [B count]
        share = (likely - total).exp()
        kept = share.cumsum(dim=1) - share < p
        kept[:, 0] = True
        if count == logits.shape[1] or not kept[:, -1].any():
            break
    chosen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, order, kept)
    return keep_allowed(logits, chosen)


def draw(logits: Float[Tensor, "B V"], uniform: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """One token a row with probability softmax(logits), chosen by a number in [0, 1) each.

    The first token at which the cumulated probability exceeds the number. A token of probability 0
    adds nothing to the sum, so that it is never drawn. Summed in float64: in float32 a vocabulary
    of 256,000 would lose its rare tokens.
    """
    cumulated = logits.double().softmax(dim=1).cumsum(dim=1)  # [B V]
    goal = uniform.to(cumulated)[:, None] * cumulated[:, -1:]  # [B 1]
    return torch.searchsorted(cumulated, goal, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)


def row_draws(seed: int, rows: int, count: int) -> Float[Tensor, "B N"]:
    """Numbers in [0, 1) for each row, float64[rows, count].

    Every row has a generator of its own that starts from the same seed: what a row draws depends
    neither on its neighbours nor on its place among them.
    """
    generator = torch.Generator().manual_seed(seed)
    own = torch.rand(count, generator=generator, dtype=torch.float64)
    return own.expand(rows, count)
