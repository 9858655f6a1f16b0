"""Learning rates over the steps of a stage, as a factor of the stage's rate."""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "linear", "constant")


def rate_factor(
    step: int, steps: int, warmup: int = 0, schedule: str = "cosine", final: float = 0.0
) -> float:
    """The factor for update number `step`, counted from 0, of `steps`.

    The rate rises linearly over `warmup` updates, the first being 1/warmup and the last 1, and
    then falls from 1 towards `final` along half a cosine (Loshchilov and Hutter 2017,
    arXiv:1608.03983, equation 5) or a straight line; "constant" stays at 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    fall = progress if schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return 1.0 + (final - 1.0) * fall
