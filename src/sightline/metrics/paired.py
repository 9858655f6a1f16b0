"""How probable a difference between two models would be if there were none.

What arrives is what each sample, or each group of samples that belong together, adds to the
difference. Everything random is drawn on the CPU from a seed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.core.errors import InputError

_NUMBERS_AT_ONCE = 2**22


def permutation_p(
    differences: Float[Tensor, " N"], resamples: int = 10_000, seed: int = 0
) -> tuple[float, str]:
    """Two-sided p-value of the sum under flips of the signs, and how it was found.

    Exact by McNemar's formula where all differences that are not 0 are equally large, exact by
    all patterns where there are at most `resamples`, else from so many random ones with 1 added
    to both counts (Phipson & Smyth 2010).
    """
    moved = differences[differences != 0]  # a difference of 0 has no sign to flip
    if len(moved) == 0 or bool((moved.abs() == moved[0].abs()).all()):
        return mcnemar(int((moved > 0).sum()), int((moved < 0).sum())), "McNemar exact"
    observed = moved.sum().abs() * (1 - 1e-12)  # equal sums may round apart
    count = len(moved)
    if count < 63 and 2**count <= resamples:
        patterns = (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1
        flipped = (1 - 2 * patterns).double() @ moved
        return (flipped.abs() >= observed).double().mean().item(), "sign flips exact"
    generator = torch.Generator().manual_seed(seed)
    extreme = 0
    block = max(1, _NUMBERS_AT_ONCE // count)
    for first in range(0, resamples, block):
        size = (min(block, resamples - first), count)
        signs = 1 - 2 * torch.randint(2, size, generator=generator).double()
        extreme += int(((signs @ moved).abs() >= observed).sum())
    return (extreme + 1) / (resamples + 1), "sign flips drawn"


def mcnemar(first_better: int, second_better: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): a fair coin for every sample that differs.

    Twice the smaller tail of the binomial distribution, at most 1; 1 where no sample differs.

    Raises:
        InputError: a negative count.
    """
    if min(first_better, second_better) < 0:
        raise InputError(f"counts are {first_better} and {second_better}: they cannot be negative")
    count = first_better + second_better
    successes = torch.arange(min(first_better, second_better) + 1, dtype=torch.float64)
    whole = torch.tensor(count + 1.0, dtype=torch.float64)
    ways = torch.lgamma(whole) - torch.lgamma(successes + 1) - torch.lgamma(whole - successes)
    tail = torch.logsumexp(ways - count * math.log(2), dim=0).exp().item()
    return min(1.0, 2 * tail)


def bootstrap_p(drawn: Float[Tensor, " R"]) -> float:
    """Two-sided p-value of drawn differences: twice the share on the rarer side of 0, at most 1.

    A drawn difference of 0 counts for both sides, and 1 is added to both counts, so that the
    value is never 0 (Davison & Hinkley 1997, section 4.2.3).
    """
    sides = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (sides + 1) / (len(drawn) + 1))
