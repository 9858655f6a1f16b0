"""How far a score would move with other samples, and whether two models differ.

Everything random is drawn on the CPU from a seed, so that a result can be repeated.
Letters: N samples, R drawn sets.
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
from sightline.metrics.paired import bootstrap_p, permutation_p

RESAMPLES = 1000
"""Sets that are drawn for an interval."""
_NUMBERS_AT_ONCE = 2**22
"""Of counts in memory; 32 MB."""


class PairedTest(NamedTuple):
    """Two models on the same samples: first minus second."""

    difference: float
    low: float
    high: float
    """The 95 % (or other) bootstrap interval of the difference."""
    p_value: float
    """Two-sided, of the hypothesis that it makes no difference which model gave which score."""
    test: str = ""
    """How `p_value` was found: "McNemar exact", "sign flips exact" or "sign flips drawn"."""
    p_bootstrap: float = math.nan
    """Two-sided: how often drawn sets of samples leave no difference, or one of the other sign."""
    first_better: int = 0
    """Samples on which the first model scored higher."""
    second_better: int = 0
    equal: int = 0
    """Samples on which both scored alike; they say nothing about which model is better."""

    @property
    def discordant(self) -> int:
        """Samples on which the two differ."""
        return self.first_better + self.second_better


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
    _check_groups(groups, len(values))
    if len(values) == 0 or resamples == 0:
        nothing = torch.full_like(statistic(values).double(), math.nan)
        return nothing, nothing.clone()
    drawn = torch.stack(
        [statistic(values[rows]).double() for rows in _draws(len(values), groups, resamples, seed)]
    )
    return percentiles(drawn, level)


def bootstrap_counts(
    statistic: Callable[[Float[Tensor, "R N"]], Tensor],
    count: int,
    groups: Int[Tensor, " N"] | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The interval of `bootstrap`, from the same draws, for a statistic of many sets at once.

    A set that was drawn with replacement is told by how often each sample is in it. A mean is then
    one product of these counts with the values, instead of a call a set.

    Args:
        statistic: float64[R, N], how often each of R sets holds each sample, to [R, ...] numbers.
        count: N, the samples there are.
        groups, resamples, level, seed: as for `bootstrap`.

    Returns:
        Low and high end, float64 in the shape of one set's statistic; NaN for no sample or no draw.

    Raises:
        InputError: `groups` has another length than `count`.
    """
    drawn = drawn_statistics(statistic, count, groups, resamples, seed)
    if drawn is None:
        nothing = torch.full_like(statistic(torch.ones(1, count).double())[0].double(), math.nan)
        return nothing, nothing.clone()
    return percentiles(drawn, level)


def drawn_statistics(
    statistic: Callable[[Float[Tensor, "R N"]], Tensor],
    count: int,
    groups: Int[Tensor, " N"] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Float[Tensor, "R ..."] | None:
    """What `bootstrap_counts` takes its interval of: one row a drawn set; None for no draw.

    Raises:
        InputError: `groups` has another length than `count`.
    """
    _check_groups(groups, count)
    if count == 0 or resamples == 0:
        return None
    member_of = torch.arange(count) if groups is None else _numbered(groups)
    kinds = int(member_of.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _NUMBERS_AT_ONCE // count)
    parts = []
    for first in range(0, resamples, block):
        size = (min(block, resamples - first), kinds)
        picked = torch.randint(kinds, size, generator=generator)  # [r G]: as one row at a time
        ones = torch.ones((), dtype=torch.float64).expand(size)
        times = torch.zeros(size, dtype=torch.float64).scatter_add_(1, picked, ones)  # [r G]
        parts.append(statistic(times if groups is None else times[:, member_of]).double())
    return torch.cat(parts)


def percentiles(drawn: Float[Tensor, "R ..."], level: float = 0.95) -> tuple[Tensor, Tensor]:
    """The ends between which the middle `level` of the drawn values lie, linear between two.

    A number that was not finite in a set may be an end; NaN anywhere makes both ends NaN.
    """
    # By hand: torch.quantile turns infinite medians into NaN.
    ordered = drawn.sort(dim=0).values
    broken = drawn.isnan().any(dim=0)
    found = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * (len(drawn) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        value = torch.where(low == high, low, low + (high - low) * (place - math.floor(place)))
        found.append(value.masked_fill(broken, math.nan))
    return found[0], found[1]


def mean_of(
    values: Float[Tensor, "N ..."], classes: Int[Tensor, " N"] | None = None
) -> Callable[[Float[Tensor, "R N"]], Float[Tensor, "R ..."]]:
    """The mean for `bootstrap_counts`; with `classes`, the mean over classes of each one's mean.

    A class that is not in a drawn set does not count there. Without classes, values of several
    columns have a mean each.
    """
    values = values.double()
    if classes is None:
        ones = (1,) * (values.ndim - 1)
        return lambda counts: counts @ values / counts.sum(dim=1).view(-1, *ones)
    members = _numbered(classes)
    kinds = int(members.max()) + 1 if len(members) else 0

    def over_classes(counts: Tensor) -> Tensor:
        nothing = counts.new_zeros(len(counts), kinds)
        totals = nothing.index_add(1, members, counts)  # [R C]
        sums = nothing.index_add(1, members, counts * values)
        return (sums / totals).nanmean(dim=1)

    return over_classes


def median_of(
    values: Float[Tensor, " N"],
) -> Callable[[Float[Tensor, "R N"]], Float[Tensor, " R"]]:
    """The median for `bootstrap_counts`: of an even number the mean of the middle two.

    NaN for an empty set.
    """
    ordered, places = values.double().sort()

    def median(counts: Tensor) -> Tensor:
        below = counts[:, places].cumsum(dim=1)  # [R N]: samples up to each value
        total = below[:, -1:] if len(ordered) else counts.new_zeros(len(counts), 1)
        middle = torch.cat([(total - 1) / 2, total / 2], dim=1).floor()  # [R 2], counted from 0
        place = torch.searchsorted(below, middle, right=True)
        padded = torch.cat([ordered, ordered.new_full((1,), math.nan)])
        return padded[place].mean(dim=1)

    return median


def paired_test(
    first: Float[Tensor, " N"],
    second: Float[Tensor, " N"],
    groups: Int[Tensor, " N"] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    classes: Int[Tensor, " N"] | None = None,
) -> PairedTest:
    """Whether two models differ on the same samples: sign-flip permutation test of the mean.

    If the models were alike, the difference of each sample (of each group, where samples belong
    together) could as well have the other sign. The p-value is the share of sign patterns whose
    mean is at least as far from 0: over all patterns where their number is small or a formula
    knows it, else over random ones with 1 added to both counts (Phipson & Smyth 2010). For
    right-or-wrong scores this is the exact form of McNemar's test.

    Args:
        first, second: a score of each model for each sample; higher is better.
        groups: which samples stand or fall together.
        resamples: sign patterns that are drawn, and at most `RESAMPLES` sets for the interval.
        level: of the interval.
        seed: of all draws.
        classes: compare the mean over these classes of each one's mean, as mean-per-class recall.

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
    mean = mean_of(difference, classes)
    drawn = drawn_statistics(mean, len(first), groups, min(resamples, RESAMPLES), seed)
    ends = (math.nan, math.nan) if drawn is None else percentiles(drawn, level)
    p_value, test = permutation_p(
        _group_sums(difference * _weights(classes, len(first)), groups), resamples, seed
    )
    return PairedTest(
        difference=mean(torch.ones(1, len(first)).double()).item(),
        low=float(ends[0]),
        high=float(ends[1]),
        p_value=p_value,
        test=test,
        p_bootstrap=math.nan if drawn is None else bootstrap_p(drawn),
        first_better=int((difference > 0).sum()),
        second_better=int((difference < 0).sum()),
        equal=int((difference == 0).sum()),
    )


def _weights(classes: Tensor | None, count: int) -> Tensor:
    """What each sample weighs in the mean, up to a factor."""
    if classes is None:
        return torch.ones(count, dtype=torch.float64)
    members = _numbered(classes)
    return members.bincount().double().reciprocal()[members]


def _check_groups(groups: Tensor | None, count: int) -> None:
    if groups is not None and len(groups) != count:
        raise InputError(f"{len(groups)} groups for {count} samples: give one each")


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


def _group_sums(values: Tensor, groups: Tensor | None) -> Tensor:
    if groups is None:
        return values
    member_of = _numbered(groups)
    return values.new_zeros(int(member_of.max()) + 1).index_add_(0, member_of, values)
