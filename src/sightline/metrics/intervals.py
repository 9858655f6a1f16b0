"""How far a score would move with other samples, and whether two models differ.

Everything random is drawn on the CPU from a seed, so that a result can be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import InputError

RESAMPLES = 1000
"""Sets that are drawn for an interval."""


class PairedTest(NamedTuple):
    """Two models on the same samples: first minus second."""

    difference: float
    low: float
    high: float
    """The 95 % (or other) bootstrap interval of the difference."""
    p_value: float
    """Two-sided, of the hypothesis that it makes no difference which model gave which score."""


def wilson(successes: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927); good for few samples and near 0 and 1.

    NaN for no sample.

    Raises:
        InputError: more successes than samples, or a negative number.
    """
    if not 0 <= successes <= count:
        raise InputError(f"{successes} successes of {count} samples: must be 0 .. {count}")
    if count == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # The formula touches 0 and 1 exactly at the ends; rounding must not step over.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == count else (centre + half) / scale
    return low, high


def bootstrap(
    values: Tensor,
    statistic: Callable[[Tensor], Tensor],
    groups: Int[Tensor, " N"] | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Percentile interval of any statistic of the rows of `values` (Efron 1979).

    Args:
        values: [N, ...]: what the statistic needs to know of each sample.
        statistic: rows, drawn with replacement, to a number or to several at once; NaN stays NaN.
        groups: which samples stand or fall together, such as the captions of one picture: whole
            groups are drawn.
        resamples: how many sets are drawn; 0 gives no interval.
        level: share of the drawn statistics inside the interval.
        seed: of the draw.

    Returns:
        Low and high end, float64 in the shape of the statistic; NaN for no sample or no draw.

    Raises:
        InputError: `groups` and `values` differ in length.
    """
    if groups is not None and len(groups) != len(values):
        raise InputError(f"{len(groups)} groups for {len(values)} samples: give one each")
    if len(values) == 0 or resamples == 0:
        nothing = torch.full_like(statistic(values).double(), math.nan)
        return nothing, nothing.clone()
    drawn = torch.stack(
        [statistic(values[rows]).double() for rows in _draws(len(values), groups, resamples, seed)]
    )
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return _quantiles(drawn, ends)


def paired_test(
    first: Float[Tensor, " N"],
    second: Float[Tensor, " N"],
    groups: Int[Tensor, " N"] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedTest:
    """Whether two models differ on the same samples: sign-flip permutation test of the mean.

    If the models were alike, the difference of each sample (of each group, where samples belong
    together) could as well have the other sign. The p-value is the share of sign patterns whose
    mean is at least as far from 0: over all patterns where there are at most `resamples`, else
    over random ones with 1 added to both counts (Phipson & Smyth 2010). For right-or-wrong scores
    this is the exact form of McNemar's test.

    Raises:
        InputError: lengths that differ, or a score that is not finite (count it as wrong first).
    """
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(
            f"scores are {list(first.shape)} and {list(second.shape)}: "
            "a paired test needs one score of each model for the same samples"
        )
    difference = first.double() - second.double()
    if not torch.isfinite(difference).all():
        raise InputError("a score is not finite: count the sample as wrong before the paired test")
    if len(difference) == 0:
        return PairedTest(math.nan, math.nan, math.nan, math.nan)
    low, high = bootstrap(difference, torch.mean, groups, min(resamples, RESAMPLES), level, seed)
    p_value = _sign_flip_p(_group_sums(difference, groups), resamples, seed)
    return PairedTest(difference.mean().item(), low.item(), high.item(), p_value)


def _draws(count: int, groups: Tensor | None, resamples: int, seed: int) -> Iterator[Tensor]:
    """Row numbers of each drawn set."""
    generator = torch.Generator().manual_seed(seed)
    if groups is None:
        for _ in range(resamples):
            yield torch.randint(count, (count,), generator=generator)
        return
    member_of = _numbered(groups)
    sizes = member_of.bincount()
    rows = member_of.argsort(stable=True)  # the rows of group 0, of group 1, ...
    starts = sizes.cumsum(0) - sizes
    for _ in range(resamples):
        picked = torch.randint(len(sizes), (len(sizes),), generator=generator)
        lengths = sizes[picked]
        shift = starts[picked] - (lengths.cumsum(0) - lengths)
        total = int(lengths.sum())
        yield rows[torch.arange(total) + shift.repeat_interleave(lengths, output_size=total)]


def _numbered(groups: Tensor) -> Tensor:
    """Groups renumbered 0, 1, 2, ... without gaps."""
    numbers: Tensor = groups.unique(return_inverse=True)[1]
    return numbers


def _quantiles(drawn: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    # Linear between neighbours, by hand: torch.quantile turns infinite medians into NaN.
    ordered = drawn.sort(dim=0).values
    broken = drawn.isnan().any(dim=0)
    found = []
    for place in (ends * (len(drawn) - 1)).tolist():
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        value = torch.where(low == high, low, low + (high - low) * (place - math.floor(place)))
        found.append(value.masked_fill(broken, math.nan))
    return found[0], found[1]


def _group_sums(difference: Tensor, groups: Tensor | None) -> Tensor:
    if groups is None:
        return difference
    member_of = _numbered(groups)
    return difference.new_zeros(int(member_of.max()) + 1).index_add_(0, member_of, difference)


def _sign_flip_p(sums: Tensor, resamples: int, seed: int) -> float:
    sums = sums[sums != 0]  # a difference of 0 has no sign to flip
    count = len(sums)
    if count == 0:
        return 1.0
    observed = sums.sum().abs() * (1 - 1e-12)  # equal sums may round apart
    if count < 63 and 2**count <= resamples:
        patterns = (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1
        flipped = (1 - 2 * patterns).double() @ sums
        return (flipped.abs() >= observed).double().mean().item()
    generator = torch.Generator().manual_seed(seed)
    extreme = 0
    block = max(1, 2**22 // count)
    for first in range(0, resamples, block):
        size = (min(block, resamples - first), count)
        signs = 1 - 2 * torch.randint(2, size, generator=generator).double()
        extreme += int(((signs @ sums).abs() >= observed).sum())
    return (extreme + 1) / (resamples + 1)
