"""How far a decision or an accuracy differs between groups of people or things.

Demographic parity and equalised odds are those of Hardt, Price & Srebro 2016 (arXiv:1610.02413)
as differences and ratios between the extreme groups. A group with fewer than `SMALL` samples
has a rate that means little; it is counted and should be named beside the gap.

Letters: N samples, G groups, J columns that are averaged side by side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.core.errors import InputError
from sightline.metrics.intervals import wilson

SMALL = 20
"""Groups with fewer samples are flagged."""


class Gap(NamedTuple):
    """The spread of one rate over the groups that have samples."""

    difference: float
    """Largest rate minus smallest."""
    ratio: float
    """Smallest over largest; NaN where all are 0."""
    worst: float
    """The smallest rate."""


def group_rates(
    values: Float[Tensor, "N ..."], groups: Int[Tensor, " N"], count: int
) -> Float[Tensor, "G ..."]:
    """The mean of each group, float64; NaN for a group without a sample.

    Raises:
        InputError: lengths that differ, or a group outside 0 .. `count` - 1.
    """
    if len(values) != len(groups):
        raise InputError(f"{len(values)} values and {len(groups)} groups: give one group a value")
    if len(groups) and not 0 <= int(groups.min()) <= int(groups.max()) < count:
        raise InputError(
            f"groups are {int(groups.min())} .. {int(groups.max())}: they must lie in "
            f"0 .. {count - 1}"
        )
    sums = torch.zeros((count, *values.shape[1:]), dtype=torch.float64)
    sums.index_add_(0, groups, values.double())
    sizes = groups.bincount(minlength=count).double()
    return sums / sizes.view(-1, *[1] * (values.ndim - 1))


def gap(rates: Float[Tensor, " G"]) -> Gap:
    """Spread of rates; groups without one (NaN) are left out, and no group at all gives NaN."""
    known = rates[~rates.isnan()]
    if not len(known):
        return Gap(math.nan, math.nan, math.nan)
    low, high = known.min().item(), known.max().item()
    return Gap(high - low, low / high if high > 0 else math.nan, low)


def difference_interval(
    first: tuple[int, int], second: tuple[int, int], level: float = 0.95
) -> tuple[float, float]:
    """Interval of the difference of two shares, each given as (hits, samples).

    Newcombe 1998, method 10: built of Wilson's two intervals, so that it stays honest where a share
    is 0 or 1 and a bootstrap draws the same difference every time. NaN for no sample.
    """
    (one, low_one, high_one), (two, low_two, high_two) = (
        (hits / max(count, 1), *wilson(hits, count, level)) for hits, count in (first, second)
    )
    below = math.hypot(one - low_one, high_two - two)
    above = math.hypot(high_one - one, two - low_two)
    return one - two - below, one - two + above


def demographic_parity(predicted: Bool[Tensor, " N"], groups: Int[Tensor, " N"], count: int) -> Gap:
    """The gap between groups in how often they are given the answer yes."""
    return gap(group_rates(predicted.double(), groups, count))


def equalised_odds(
    predicted: Bool[Tensor, " N"],
    truth: Bool[Tensor, " N"],
    groups: Int[Tensor, " N"],
    count: int,
) -> float:
    """The larger of the gaps in true and in false positive rate; NaN where neither is known.

    A group without positives (or negatives) is left out of that one of the two gaps.
    """
    gaps = [
        gap(group_rates(predicted[part].double(), groups[part], count)).difference
        for part in (truth, ~truth)
    ]
    return max((value for value in gaps if not math.isnan(value)), default=math.nan)


def gap_test(
    values: Float[Tensor, " N"],
    groups: Int[Tensor, " N"],
    count: int,
    samples: int = 2000,
    seed: int = 0,
) -> float:
    """The p-value of "the groups do not differ": labels shuffled, `gap` at least as wide.

    Random permutations, with 1 added to both counts (Phipson & Smyth 2010). NaN where fewer than
    two groups have samples.
    """
    if len(groups.unique()) < 2:
        return math.nan
    observed = gap(group_rates(values, groups, count)).difference - 1e-12
    generator = torch.Generator().manual_seed(seed)
    block = max(1, 2**21 // len(values))
    wide = 0
    for start in range(0, samples, block):
        size = min(block, samples - start)
        shuffled = torch.rand(size, len(values), generator=generator).argsort(dim=1)
        rates = group_rates(values[shuffled].T, groups, count)  # [G size]
        rates = rates[groups.unique()]
        wide += int((rates.amax(dim=0) - rates.amin(dim=0) >= observed).sum())
    return (wide + 1) / (samples + 1)
