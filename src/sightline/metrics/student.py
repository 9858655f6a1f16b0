"""Student's interval: the mean of a few alike measurements, such as runs with other seeds."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def student(values: Float[Tensor, " N"], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of a few alike measurements, such as seeds (Student 1908).

    mean +- t * s / sqrt(N), with N - 1 degrees of freedom; NaN for fewer than two.
    """
    count = len(values)
    if count < 2:
        return math.nan, math.nan
    spread = values.double().std().item() / math.sqrt(count)
    half = _student_quantile((1 + level) / 2, count - 1) * spread
    mean = values.double().mean().item()
    return mean - half, mean + half


def _student_quantile(share: float, freedom: int) -> float:
    """The t below which so much of Student's distribution lies, share > 1/2; by bisection."""
    low, high = 0.0, 1.0
    while _student_below(high, freedom) < share:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_below(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _student_below(t: float, freedom: int) -> float:
    """The distribution function for whole degrees of freedom (Abramowitz & Stegun 26.7.3, 4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom - 1, 2):  # the powers of the cosine up to freedom - 2
        total += term
        term *= k / (k + 1) * math.cos(angle) ** 2
    total += term if freedom > 1 else 0.0
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return (1 + inside) / 2
