"""Where the right answer stands in a ranking: ranks, hit rate, reciprocal rank, mAP@R.

Two rules hold for every function here:

- **Ties are pessimistic.** A wrong candidate with the same score as the right one stands above it,
  so a constant scorer is last everywhere instead of first or lucky.
- **A score that is not finite counts against the model**: on a right candidate it is no find, on a
  wrong candidate it stands above everything. A query without any finite right candidate has the
  rank infinity, which is a hit for no k and contributes 0 to the reciprocal rank.

Letters: Q queries, N candidates, E pairs of a query and a right candidate, K kept candidates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.core.errors import InputError


class Ranking(NamedTuple):
    """What `rank_embeddings` finds for each query."""

    ranks: Float[Tensor, " Q"]
    """1 is best; infinity where no right candidate has a finite score."""
    precision_at_r: Float[Tensor, " Q"]
    """Average precision within the first R candidates, R being the number of right ones."""
    top: Int[Tensor, "Q K"]
    """The best candidates, best first, in the pessimistic order."""
    top_scores: Float[Tensor, "Q K"]
    invalid: Bool[Tensor, " Q"]
    """True where any score of the query is not finite."""


def best_ranks(scores: Float[Tensor, "Q N"], positives: Bool[Tensor, "Q N"]) -> Float[Tensor, " Q"]:
    """The rank of the best right candidate among the wrong ones, 1 for first.

    rank = 1 + number of wrong candidates whose score is at least that of the best right one. Other
    right candidates do not count, so that any of several captions is a hit (Karpathy & Fei-Fei
    2015, the any-hit convention of image-to-text recall).

    Raises:
        InputError: the two tensors differ in shape.
    """
    if scores.shape != positives.shape:
        raise InputError(
            f"scores are {list(scores.shape)} and positives {list(positives.shape)}: "
            "both must be [queries, candidates]"
        )
    if scores.shape[1] == 0:
        return scores.new_full((len(scores),), math.inf, dtype=torch.float64)
    judged = against_the_model(scores, positives)
    best = judged.masked_fill(~positives, -math.inf).amax(dim=1, keepdim=True)  # [Q 1]
    above = ((judged >= best) & ~positives).sum(dim=1)  # [Q]
    return torch.where(best[:, 0] > -math.inf, 1.0 + above.double(), math.inf)


def against_the_model(
    scores: Float[Tensor, "Q N"], positives: Bool[Tensor, "Q N"]
) -> Float[Tensor, "Q N"]:
    """Scores with what is not finite replaced by the worst: -inf if right, +inf if wrong."""
    worst = torch.where(positives, -math.inf, math.inf).to(scores.dtype)
    return torch.where(torch.isfinite(scores), scores, worst)


def worst_case_top(
    scores: Float[Tensor, "Q N"], positives: Bool[Tensor, "Q N"], count: int
) -> Int[Tensor, "Q K"]:
    """The best `count` candidates, best first; in a tie the wrong ones stand first.

    Scores are compared as float32. What is not finite stands where it hurts most.
    """
    judged = against_the_model(scores.float(), positives)
    return _worst_case_key(judged, positives).topk(min(count, scores.shape[1]), dim=1).indices


def rank_embeddings(
    queries: Float[Tensor, "Q D"],
    candidates: Float[Tensor, "N D"],
    pairs: Int[Tensor, "E 2"],
    keep: int = 10,
    chunk: int = 128,
) -> Ranking:
    """Rank all candidates for each query by the product of their embeddings.

    Memory grows with chunk x N, never with Q x N. Products are summed in float64 and rounded to
    float32: equal embeddings then tie exactly, however the matrix product is cut into tiles.

    Args:
        queries: unit-length embeddings, so that the product is the cosine.
        candidates: the same for what is searched.
        pairs: one row (query, candidate) for each right candidate; repeated rows count once.
        keep: how many of the best candidates to return for each query.
        chunk: queries ranked at a time.

    Raises:
        InputError: widths differ, or a pair names a query or candidate that is not there.
    """
    _check_pairs(queries, candidates, pairs)
    pairs = pairs.unique(dim=0)  # sorted by query
    starts = torch.searchsorted(
        pairs[:, 0].contiguous(), torch.arange(0, len(queries) + chunk, chunk, device=pairs.device)
    )
    matrix = candidates.double().T
    parts = []
    for part, first in enumerate(range(0, len(queries), chunk)):
        block = queries[first : first + chunk]
        scores = (block.double() @ matrix).float()  # [q N]
        positives = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        rows = pairs[starts[part] : starts[part + 1]]
        positives[rows[:, 0] - first, rows[:, 1]] = True
        parts.append(_rank_block(scores, positives, keep))
    if not parts:
        empty = torch.zeros(0, dtype=torch.float64)
        none = torch.zeros(0, min(keep, len(candidates)))
        return Ranking(empty, empty, none.long(), none, empty.bool())
    return Ranking(*(torch.cat(column) for column in zip(*parts, strict=True)))


def hit_at_k(ranks: Float[Tensor, " Q"], k: int) -> float:
    """Share of queries whose best right candidate is among the first k; NaN for no query.

    This is recall@k as papers on image-text retrieval use the word: any hit counts. It is not the
    share of right candidates found.
    """
    return (ranks <= k).double().mean().item()


def median_rank(ranks: Float[Tensor, " Q"]) -> float:
    """The median rank; for an even number the mean of the middle two; NaN for no query."""
    if len(ranks) == 0:
        return math.nan
    ordered = ranks.double().sort().values
    middle = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]]  # [2]
    return middle.mean().item()


def mean_reciprocal_rank(ranks: Float[Tensor, " Q"]) -> float:
    """Mean of 1 / rank, 0 for a query that found nothing; NaN for no query."""
    return ranks.double().reciprocal().mean().item()


def mean_average_precision_at_r(ranking: Ranking) -> float:
    """mAP@R (Musgrave, Belongie & Lim 2020, section 3.2), a query without a right candidate is 0.

    For a query with R right candidates: the mean over the first R places of the precision there,
    counting only the places that hold a right candidate. NaN for no query.
    """
    return ranking.precision_at_r.mean().item()


def _check_pairs(queries: Tensor, candidates: Tensor, pairs: Tensor) -> None:
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise InputError(
            f"queries are {list(queries.shape)} and candidates {list(candidates.shape)}: "
            "both must be [count, width] with the same width"
        )
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"pairs are {list(pairs.shape)}: they must be [count, 2]")
    sizes = torch.tensor([len(queries), len(candidates)], device=pairs.device)
    outside = ((pairs < 0) | (pairs >= sizes)).any(dim=1)
    if outside.any():
        query, candidate = pairs[outside][0].tolist()
        raise InputError(
            f"pair ({query}, {candidate}) names what is not there: there are {len(queries)} "
            f"queries and {len(candidates)} candidates, counted from 0"
        )


def _rank_block(scores: Float[Tensor, "q N"], positives: Bool[Tensor, "q N"], keep: int) -> Ranking:
    """Rank one chunk of queries."""
    ranks = best_ranks(scores, positives)
    invalid = ~torch.isfinite(scores).all(dim=1)
    right = positives.sum(dim=1)  # [q]
    longest = int(right.max()) if len(right) else 0
    depth = min(max(longest, keep, 1), scores.shape[1])
    order = worst_case_top(scores, positives, depth)  # [q depth]
    # What is not finite stands where it hurts but is never a find.
    found = (positives & torch.isfinite(scores)).gather(1, order).double()
    place = torch.arange(1, depth + 1, device=scores.device)
    within = place <= right[:, None]  # [q depth]
    gained = (found * (found.cumsum(dim=1) / place) * within).sum(dim=1)
    precision = gained / right.clamp(min=1)
    top = order[:, :keep]
    return Ranking(ranks, precision, top, scores.gather(1, top), invalid)


def _worst_case_key(
    judged: Float[Tensor, "q N"], positives: Bool[Tensor, "q N"]
) -> Int[Tensor, "q N"]:
    """Integers in the order of the float32 scores, a wrong candidate above a right one in a tie.

    The bits of a float, read as an integer, already ascend for positive numbers; flipping all but
    the sign of the negative ones makes them ascend too. Adding 0 turns -0 into 0.
    """
    bits = (judged + 0.0).view(torch.int32)
    ascending = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return ascending.mul_(2).add_(~positives)
