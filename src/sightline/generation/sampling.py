"""From scores to the next token: pure functions of float32 logits, one row an answer.

A token that may not follow has the score -inf. Each function is what the processor of the same idea
does in transformers; where a row is shorter than its neighbours, padding counts for nothing here.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_LIKELY = 256
"""How many candidates `shortlist` looks at before it takes more."""
_BLOCK = 64
"""Tokens that `draw` and `best` look at together first."""


def penalise_repetition(
    logits: Float[Tensor, "B V"],
    ids: Int[Tensor, "B T"],
    lengths: Int[Tensor, " B"],
    penalty: float,
) -> Float[Tensor, "B V"]:
    """Scores of a row's first `lengths` ids divided by the penalty, or multiplied if negative.

    CTRL (Keskar et al. 2019, arXiv:1909.05858, section 4.1), in the form that also lowers negative
    scores.
    """
    own = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]  # [B T]
    wider, places = _with_bin(logits, ids, own)
    scores = wider.gather(1, places)
    lowered = torch.where(scores < 0, scores * penalty, scores / penalty)
    return wider.scatter_(1, places, lowered)[:, :-1]


def forbid_repeated_ngrams(
    logits: Float[Tensor, "B V"], ids: Int[Tensor, "B T"], lengths: Int[Tensor, " B"], size: int
) -> Float[Tensor, "B V"]:
    """No token that would repeat a sequence of `size` tokens of its row's first `lengths` ids."""
    if ids.shape[1] < size:
        return logits
    windows = ids.unfold(1, size, 1)  # [B W size]
    ends = torch.arange(size, ids.shape[1] + 1, device=ids.device)  # [W]
    tail = lengths[:, None] + torch.arange(1 - size, 0, device=ids.device)  # [B size-1]
    last = ids.gather(1, tail.clamp(min=0))  # of a row that is too short, no window is inside
    same = (windows[..., :-1] == last[:, None]).all(dim=-1)  # [B W]
    wider, places = _with_bin(logits, windows[..., -1], same & (ends <= lengths[:, None]))
    return wider.scatter_(1, places, -math.inf)[:, :-1]


def _with_bin(
    logits: Float[Tensor, "B V"], ids: Int[Tensor, "B T"], meant: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B U"], Int[Tensor, "B T"]]:
    """A copy with one column more, and the ids, those that are not meant pointing at it.

    So do ids without a score, as a prompt may hold where its pictures stand.
    """
    size = logits.shape[1]
    meant = meant & (ids >= 0) & (ids < size)
    return torch.nn.functional.pad(logits, (0, 1)), torch.where(meant, ids, size)


def keep_allowed(
    logits: Float[Tensor, "B V"], allowed: Bool[Tensor, "B V"]
) -> Float[Tensor, "B V"]:
    """Only the tokens that are allowed."""
    return logits.masked_fill(~allowed, -math.inf)


def shortlist(
    logits: Float[Tensor, "B V"], top_k: int | None, top_p: float | None
) -> tuple[Float[Tensor, "B C"], Int[Tensor, "B C"]]:
    """Among which tokens to draw: their scores, -inf where one is out, and their ids, best first.

    Top-k (Fan et al. 2018, arXiv:1805.04833, section 5.4): the k best, and those that tie with the
    last of them. Then the nucleus (Holtzman et al. 2020, arXiv:1904.09751, equation 2): the fewest
    of these that hold the probability p; a token stays if those above it hold less than p, and the
    first always does. A vocabulary is long and such a list short, so that no more is sorted than
    turns out to be needed.
    """
    size = logits.shape[1]
    top_k = min(top_k or size, size)
    count = min(_LIKELY if top_k == size else top_k + 1, size)
    while True:
        likely, order = logits.topk(count, dim=1)  # [B C]
        if top_k < size:
            likely = likely.masked_fill(likely < likely[:, top_k - 1 : top_k], -math.inf)
        if top_p is not None and top_p < 1:
            whole = likely if top_k < size else logits
            share = (likely - whole.logsumexp(dim=1, keepdim=True)).exp()
            out = share.cumsum(dim=1) - share >= top_p
            out[:, 0] = False
            likely = likely.masked_fill(out, -math.inf)
        if count == size or not (likely[:, -1] > -math.inf).any():
            return likely, order
        count = min(count * 8, size)


def best(logits: Float[Tensor, "B V"]) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
    """The highest score of each row, and the first token that has it.

    A maximum with its place is searched for one score at a time, one without it in whole registers,
    so that the place is only searched for among maxima of blocks and then within one.
    """
    if logits.shape[1] % _BLOCK:
        return logits.max(dim=1)
    blocks = logits.unflatten(1, (-1, _BLOCK))  # [B V/64 64]
    block = blocks.amax(dim=2).argmax(dim=1)  # [B]
    scores, place = blocks[torch.arange(len(blocks), device=block.device), block].max(dim=1)
    return scores, block * _BLOCK + place


def draw(logits: Float[Tensor, "B V"], uniform: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """One token a row with probability softmax(logits), chosen by a number in [0, 1) each.

    The first token at which the cumulated probability exceeds the number: first among blocks of
    tokens, then within one, both summed in float64, where no rare token of a large vocabulary is
    lost. A token of probability 0 adds nothing to a sum, so that it is never drawn.
    """
    shares = logits.softmax(dim=1)
    if filling := -logits.shape[1] % _BLOCK:
        shares = torch.nn.functional.pad(shares, (0, filling))
    blocks = shares.unflatten(1, (-1, _BLOCK))  # [B V/64 64]
    block, rest = _first_above(blocks.sum(dim=2, dtype=torch.float64), uniform.double())
    within = blocks[torch.arange(len(blocks), device=block.device), block].double()  # [B 64]
    inside, _ = _first_above(within, rest / within.sum(dim=1))
    # Scores without a number give one that is in the filling, and the caller's error.
    return (block * _BLOCK + inside).clamp_(max=logits.shape[1] - 1)


def _first_above(
    shares: Float[Tensor, "B N"], goal: Float[Tensor, " B"]
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Where the cumulated shares exceed that part of their sum, and by how much it was not met."""
    cumulated = shares.cumsum(dim=1)
    # However it was rounded, the goal stays below the sum, which only a share above 0 reaches.
    limit = (goal * cumulated[:, -1]).minimum(cumulated[:, -1] * (1 - 2**-52))[:, None]  # [B 1]
    place = torch.searchsorted(cumulated, limit, right=True).clamp_(max=shares.shape[1] - 1)
    return place[:, 0], (limit - (cumulated - shares).gather(1, place))[:, 0].clamp(min=0)


def row_draws(seed: int, rows: int, count: int) -> Float[Tensor, "B N"]:
    """Numbers in [0, 1) for each row, float64[rows, count].

    Every row has a generator of its own that starts from the same seed: what a row draws depends
    neither on its neighbours nor on its place among them.
    """
    generator = torch.Generator().manual_seed(int(seed))
    own = torch.rand(count, generator=generator, dtype=torch.float64)
    return own.expand(rows, count)
