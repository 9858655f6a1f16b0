"""Whether a ranking shows some groups more often than it should, and whether that could be chance.

Skew@k and MaxSkew@k, MinSkew@k and NDKL are those of Geyik et al. 2019 (arXiv:1905.01989), which
Berg et al. 2022 (arXiv:2203.11933) brought to vision-language models. What a ranking "should"
show is a choice, and every function takes it: equal shares of all groups, or the shares that the
ranked pictures have.

Letters: N ranked items, G groups, P rankings, S possible outcomes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import InputError

Target = Literal["equal", "population"]
OUTCOMES = 20_000
"""Up to so many possible outcomes a test sums them all; beyond, it draws."""


class Skew(NamedTuple):
    """How the first k of a ranking differ from the target, in natural logarithms."""

    shares: Float[Tensor, " G"]
    """Of each group among the first k, float64."""
    skews: Float[Tensor, " G"]
    """ln(share / target); a share of 0 counts as 1/k. NaN for a group that the target lacks."""
    largest: float
    """MaxSkew@k: how much the most favoured group is above its target."""
    smallest: float
    """MinSkew@k: how far the least favoured group is below it."""
    tied: int
    """Items with the score of the last one kept that were left out: only their place in the data
    decided. 0 in a ranking without ties at the cut."""


def target_shares(groups: Int[Tensor, " N"], count: int, target: Target) -> Float[Tensor, " G"]:
    """The shares that a fair ranking would have, float64.

    Raises:
        InputError: a group outside 0 .. `count` - 1, no item, or another word than the two.
    """
    _check_groups(groups, count)
    if target == "equal":
        return torch.full((count,), 1 / count, dtype=torch.float64)
    if target == "population":
        return groups.bincount(minlength=count).double() / len(groups)
    raise InputError(f"target is {target!r}: it must be 'equal' or 'population'")


def skew_at_k(
    scores: Float[Tensor, " N"],
    groups: Int[Tensor, " N"],
    count: int,
    k: int,
    target: Target = "population",
    variant: Literal["exact", "oxai"] = "exact",
) -> Skew:
    """Skew of every group among the k items with the highest scores.

    Exactly k items are kept; among equal scores those that stand earlier in the data. A score that
    is not a number stands last. `variant="oxai"` is the published code of Berg et al., which keeps
    all items that tie with the last one but still divides by k, so that shares can add up to more
    than 1.

    Args:
        scores: higher is shown first.
        groups: of each item, 0 to `count` - 1.
        count: of the groups.
        k: how many items are looked at; with k = N and the population as target all skews are 0.
        target: what the shares are compared with.
        variant: "exact" or "oxai".

    Raises:
        InputError: k outside 1 .. N, or what `target_shares` refuses.
    """
    wanted = target_shares(groups, count, target)
    if len(scores) != len(groups) or not 1 <= k <= len(scores):
        raise InputError(
            f"{len(scores)} scores, {len(groups)} groups, k = {k}: give one group a score and a k "
            "between 1 and their number"
        )
    order = order_of(scores)
    ranked = _rankable(scores)
    tied = int((ranked >= ranked[order[k - 1]]).sum()) - k
    shown = k + tied if variant == "oxai" else k
    shares = top_counts(order[:, None], groups, count, shown)[0].double() / k
    values = skews(shares, wanted, k)
    known = values[~values.isnan()]
    return Skew(shares, values, known.max().item(), known.min().item(), tied)


def order_of(scores: Float[Tensor, "N ..."]) -> Int[Tensor, "N ..."]:
    """Places of the items, best first; among equal scores those that stand earlier in the data."""
    return _rankable(scores).argsort(dim=0, descending=True, stable=True)


def top_counts(
    order: Int[Tensor, "N P"],
    groups: Int[Tensor, " N"],
    count: int,
    k: int,
    draws: Int[Tensor, " N"] | None = None,
) -> Int[Tensor, "P G"]:
    """How many of the first k of each ranking are of each group.

    Args:
        order: of `order_of`, a column for each ranking.
        groups: of each item.
        count: of the groups.
        k: how many are kept.
        draws: how often each item is there, for sets drawn with replacement; by default once.
    """
    draws = torch.ones_like(groups) if draws is None else draws
    # the first k almost surely lie within six deviations of their number
    near = order[: k + 8 * math.isqrt(k) + 50]
    copies = draws[near]  # [n P]
    if len(near) < len(order) and (copies.sum(dim=0) < k).any():
        near, copies = order, draws[order]  # [N P]
    before = copies.cumsum(dim=0) - copies
    kept = torch.minimum((k - before).clamp(min=0), copies)
    return kept.new_zeros(order.shape[1], count).scatter_add_(1, groups[near].T, kept.T)


def skews(
    shares: Float[Tensor, "... G"], target: Float[Tensor, " G"], k: int
) -> Float[Tensor, "... G"]:
    """ln(share / target), a share of 0 counting as 1/k; NaN for a group that the target lacks."""
    return (shares.clamp(min=1 / k) / target).log().masked_fill(target == 0, math.nan)


def ndkl(
    scores: Float[Tensor, " N"],
    groups: Int[Tensor, " N"],
    count: int,
    target: Target = "population",
) -> float:
    """Normalised discounted KL divergence of the whole ranking from the target, in nats.

    The sum over every depth i of KL(shares of the first i || target) / log2(i + 1), divided by the
    sum of 1 / log2(i + 1): 0 where every prefix has the target's shares. Ties as in `skew_at_k`.

    Raises:
        InputError: lengths that differ, or what `target_shares` refuses.
    """
    wanted = target_shares(groups, count, target)
    if len(scores) != len(groups):
        raise InputError(f"{len(scores)} scores and {len(groups)} groups: give one group a score")
    order = order_of(scores)
    counts = torch.nn.functional.one_hot(groups[order], count).double().cumsum(dim=0)  # [N G]
    depth = torch.arange(1, len(groups) + 1, dtype=torch.float64)
    weights = (depth + 1).log2().reciprocal()
    return ((divergence(counts / depth[:, None], wanted) * weights).sum() / weights.sum()).item()


def divergence(shares: Float[Tensor, "... G"], target: Float[Tensor, " G"]) -> Float[Tensor, ...]:
    """KL(shares || target) in nats; a share of 0 adds nothing."""
    return torch.special.xlogy(shares, shares / target).nan_to_num(nan=0.0).sum(dim=-1)


def share_test(
    kept: Int[Tensor, " G"],
    population: Int[Tensor, " G"],
    target: Target = "population",
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """The p-value of "who is among the first k has nothing to do with the groups".

    The statistic is the divergence of the shares from the target, which sees a group that is
    missing as well as one that is everywhere (MaxSkew hardly moves when a small group vanishes).
    If the hypothesis holds, the first k are k items drawn without replacement (target
    "population": a permutation test of the group labels), or k throws of a fair die ("equal").
    Up to `OUTCOMES` possible counts all are summed; beyond, `samples` are drawn and 1 is added to
    both counts (Phipson & Smyth 2010).

    Args:
        kept: how many of the first k are of each group.
        population: how many of all are.
        target: as for the skew.
        samples: draws.
        seed: of the draws.

    Raises:
        InputError: more kept than there are, or a length that differs.
    """
    if kept.shape != population.shape or (kept > population).any() or not len(kept):
        raise InputError(
            f"kept are {kept.tolist()} of {population.tolist()}: both must count the same groups, "
            "and no more can be kept than there are"
        )
    count, k = len(kept), int(kept.sum())
    if k == 0:
        return math.nan
    items = population.double()
    wanted = items / items.sum() if target == "population" else torch.full_like(items, 1 / count)
    # equal divergences may round apart
    observed = divergence(kept.double() / k, wanted) * (1 - 1e-9) - 1e-12
    if math.comb(k + count - 1, count - 1) <= OUTCOMES:
        outcomes = _outcomes(k, count)
        chances = _log_chances(outcomes, items if target == "population" else None).exp()
        far = divergence(outcomes / k, wanted) >= observed
        return min(1.0, (chances * far).sum().item())
    generator = np.random.default_rng(seed)
    if target == "population":
        drawn = generator.multivariate_hypergeometric(population.numpy(), k, size=samples)
    else:
        drawn = generator.multinomial(k, wanted.numpy(), size=samples)
    far = divergence(torch.from_numpy(drawn).double() / k, wanted) >= observed
    return (int(far.sum()) + 1) / (samples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several (Holm 1979): reject where at most the level.

    The chance of any false alarm among them all then stays below the level, whatever their
    dependence. NaN stays NaN and counts as no test.
    """
    tests = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(tests):
        highest = max(highest, min(1.0, (len(tests) - rank) * p))
        adjusted[place] = highest
    return adjusted


def _rankable(scores: Tensor) -> Tensor:
    """What is not a number stands last."""
    return scores.double().nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def _check_groups(groups: Tensor, count: int) -> None:
    if len(groups) == 0:
        raise InputError("no item with a group: there is nothing to rank")
    if not 0 <= int(groups.min()) <= int(groups.max()) < count:
        raise InputError(
            f"groups are {int(groups.min())} .. {int(groups.max())}: they must lie in "
            f"0 .. {count - 1}"
        )


def _outcomes(k: int, count: int) -> Float[Tensor, "S G"]:
    """Every way to spread k items over the groups (stars and bars)."""
    bars = list(itertools.combinations(range(k + count - 1), count - 1))
    placed = torch.tensor(bars, dtype=torch.float64).reshape(len(bars), count - 1)
    edge = placed.new_ones(len(placed), 1)
    fences = torch.cat([-edge, placed, edge * (k + count - 1)], dim=1)  # [S G+1]
    return fences.diff(dim=1) - 1


def _log_chances(
    outcomes: Float[Tensor, "S G"], population: Float[Tensor, " G"] | None
) -> Float[Tensor, " S"]:
    """Log probabilities: without replacement from a population, or of a fair die."""
    k = outcomes[0].sum()
    if population is None:
        ways = torch.lgamma(k + 1) - torch.lgamma(outcomes + 1).sum(dim=1)
        return ways - k * math.log(outcomes.shape[1])
    left = population - outcomes
    ways = torch.lgamma(population + 1) - torch.lgamma(outcomes + 1)
    ways = ways - torch.lgamma(left.clamp(min=0) + 1)  # [S G]
    items = population.sum()
    whole = torch.lgamma(items + 1) - torch.lgamma(k + 1) - torch.lgamma(items - k + 1)
    return (ways.sum(dim=1) - whole).masked_fill((left < 0).any(dim=1), -math.inf)
