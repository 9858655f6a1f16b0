"""Whether one set of things stands nearer to A than to B: WEAT and its kin.

The word embedding association test (Caliskan, Bryson & Narayanan 2017) asks whether the targets X
are closer to the attributes A than the targets Y are. The vectors may be of words, sentences
(SEAT, May et al. 2019) or pictures (iEAT, Steed & Caliskan 2021), also mixed: group pictures as X
and Y, words as A and B.

Letters: X, Y targets; A, B attributes; D width.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import InputError

SAMPLES = 10_000
Sides = Literal["greater", "two"]


class Association(NamedTuple):
    """How much nearer, and whether that could be chance."""

    effect: float
    """Difference of the two means in standard deviations, Cohen's d: between -2 and 2 for equal
    sets. NaN where nothing varies."""
    p_value: float
    exact: bool
    """Whether all partitions were tried, and not a sample of them."""


def association(
    x: Float[Tensor, "X D"],
    y: Float[Tensor, "Y D"],
    a: Float[Tensor, "A D"],
    b: Float[Tensor, "B D"],
    samples: int = SAMPLES,
    seed: int = 0,
    sides: Sides = "greater",
) -> Association:
    """WEAT: s(w) = mean cos(w, A) - mean cos(w, B), compared between X and Y.

    d = (mean of s over X - mean over Y) / standard deviation of s over X and Y together, with
    n - 1 below. The p-value is the share of the partitions of X and Y together into sets of the
    same sizes whose first sum is at least the observed one.

    Args:
        x, y: target vectors, of any length.
        a, b: attribute vectors.
        samples: partitions that are tried; where there are no more, each of them once, otherwise
            random ones with 1 added to both counts.
        seed: of the draw.
        sides: "greater" asks whether X is nearer to A, as published; "two" whether it is nearer or
            farther.

    Raises:
        InputError: an empty set, widths that differ, or a value that is not finite.
    """
    _check_sets(x=x, y=y, a=a, b=b)
    first, second = _nearer(x, a, b), _nearer(y, a, b)
    return partition_test(first, second, samples, seed, sides)


def single_association(
    target: Float[Tensor, " D"],
    a: Float[Tensor, "A D"],
    b: Float[Tensor, "B D"],
    samples: int = SAMPLES,
    seed: int = 0,
    sides: Sides = "greater",
) -> Association:
    """SC-WEAT: one target, its cosines to A compared with those to B (Caliskan et al. 2017, WEFAT).

    The p-value is over the partitions of A and B together.

    Raises:
        InputError: as `association`.
    """
    _check_sets(target=target[None], a=a, b=b)
    return partition_test(
        _cosines(target[None], a)[0], _cosines(target[None], b)[0], samples, seed, sides
    )


def partition_test(
    first: Float[Tensor, " X"],
    second: Float[Tensor, " Y"],
    samples: int = SAMPLES,
    seed: int = 0,
    sides: Sides = "greater",
) -> Association:
    """Effect size of two sets of numbers, and the share of partitions that are as far apart.

    Raises:
        InputError: an empty set, or a value that is not finite.
    """
    values = torch.cat([first, second]).double()
    if not len(first) or not len(second) or not torch.isfinite(values).all():
        raise InputError("an association needs two sets of finite numbers: leave broken ones out")
    size, total = len(first), len(values)
    spread = values.std().item() if total > 1 else 0.0
    gap = values[:size].mean() - values[size:].mean()
    effect = gap.item() / spread if spread > 0 else math.nan
    centred = values - values.mean()  # sums of a part then have expectation 0
    exact = math.comb(total, size) <= samples
    sums = _all_sums(centred, size) if exact else _drawn_sums(centred, size, samples, seed)
    observed = centred[:size].sum()
    slack = 1e-12 * centred.abs().sum()  # equal sums may round apart
    far = sums.abs() >= observed.abs() - slack if sides == "two" else sums >= observed - slack
    hits = int(far.sum())
    p_value = hits / len(sums) if exact else (hits + 1) / (samples + 1)
    return Association(effect, p_value, exact)


def _check_sets(**sets: Tensor) -> None:
    width = next(iter(sets.values())).shape[-1]
    for name, vectors in sets.items():
        if vectors.ndim != 2 or len(vectors) == 0 or vectors.shape[1] != width:
            raise InputError(
                f"{name} is {list(vectors.shape)}: each set must be [count, width] with at least "
                "one vector and one width for all"
            )


def _cosines(targets: Tensor, attributes: Tensor) -> Float[Tensor, "W A"]:
    unit = nn.functional.normalize
    return unit(targets.double(), dim=1) @ unit(attributes.double(), dim=1).T


def _nearer(targets: Tensor, a: Tensor, b: Tensor) -> Float[Tensor, " W"]:
    return _cosines(targets, a).mean(dim=1) - _cosines(targets, b).mean(dim=1)


def _all_sums(values: Float[Tensor, " M"], size: int) -> Float[Tensor, " P"]:
    parts = torch.tensor(list(itertools.combinations(range(len(values)), size)))
    return values[parts].sum(dim=1)


def _drawn_sums(
    values: Float[Tensor, " M"], size: int, samples: int, seed: int
) -> Float[Tensor, " P"]:
    generator = torch.Generator().manual_seed(seed)
    block = max(1, 2**22 // len(values))
    sums = []
    for start in range(0, samples, block):
        keys = torch.rand(min(block, samples - start), len(values), generator=generator)
        sums.append(values[keys.argsort(dim=1)[:, :size]].sum(dim=1))
    return torch.cat(sums)
