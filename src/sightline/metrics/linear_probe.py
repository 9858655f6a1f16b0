"""What a straight line can tell apart: multinomial logistic regression on frozen features.

The linear probe of CLIP (Radford et al. 2021, arXiv:2103.00020, section 3.2 and appendix A.3): all
samples at once, L-BFGS with at most 1000 iterations, and a penalty chosen on held-out samples from
96 steps between 1e-6 and 1e6. Everything is float64 on the CPU and starts from zero, so that a fit
can be repeated.

    sum of cross entropies + penalty / 2 * sum of squared weights,   the bias is free

is what scikit-learn's LogisticRegression minimises with C = 1 / penalty.
Letters: N samples, D features, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import ConfigError, InputError
from sightline.metrics.classification import top_k_accuracy

STEPS_PER_DECADE = 8
DECADES = (-6, 6)
"""Powers of ten of the smallest and the largest penalty."""
MAX_ITERATIONS, MAX_EVALUATIONS = 1000, 1500
TOLERANCE = 1e-6
"""Of the gradient of the mean loss: where its largest entry is below, a fit has converged."""
_ROWS = 8192
"""Samples whose probabilities are in memory at once."""
_NEVER = -1e4
"""The bias of a class without a sample. Its loss has no minimum; here its probability is 0."""


class LinearProbe(NamedTuple):
    """A fitted probe."""

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]
    penalty: float
    loss: float
    """The objective above at the end."""
    iterations: int
    converged: bool

    def log_probabilities(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """float64; NaN for a sample with a feature that is not finite."""
        return (features.double() @ self.weight.T + self.bias).log_softmax(dim=1)


class Tried(NamedTuple):
    """One penalty of a sweep."""

    penalty: float
    accuracy: float
    """On the held-out samples."""
    loss: float
    """Mean cross entropy of the held-out samples."""
    converged: bool


def fit_linear_probe(
    features: Float[Tensor, "N D"],
    targets: Int[Tensor, " N"],
    classes: int,
    penalty: float,
    start: LinearProbe | None = None,
    tolerance: float = TOLERANCE,
) -> LinearProbe:
    """The probe that minimises the objective.

    Args:
        features: finite; their scale matters, since the penalty looks at the weights.
        targets: 0 .. classes - 1; a class without a sample is allowed, and is never predicted.
        penalty: above 0.
        start: a probe nearby, from which fewer iterations are needed.
        tolerance: see `TOLERANCE`.

    Raises:
        InputError: no sample, a feature that is not finite, or a target that is no class.
        ConfigError: a penalty that is not above 0.
    """
    _check(features, targets, classes, penalty)
    samples = torch.cat([features.double(), features.new_ones(len(features), 1).double()], dim=1)
    fitted = samples.new_zeros(classes, samples.shape[1])  # [C D+1], the bias last
    fitted[torch.bincount(targets, minlength=classes) == 0, -1] = _NEVER
    if start is not None:
        fitted = torch.cat([start.weight, start.bias[:, None]], dim=1)
    fitted.requires_grad_()
    optimiser = torch.optim.LBFGS(
        [fitted], max_iter=MAX_ITERATIONS, max_eval=MAX_EVALUATIONS, history_size=10,
        tolerance_grad=tolerance, tolerance_change=1e-13, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        loss, fitted.grad = _objective(samples, targets, fitted.detach(), penalty)
        return loss

    optimiser.step(closure)
    solved, state = fitted.detach(), optimiser.state[fitted]
    return LinearProbe(
        weight=solved[:, :-1].clone(),
        bias=solved[:, -1].clone(),
        penalty=penalty,
        loss=_objective(samples, targets, solved, penalty)[0] * len(samples),
        iterations=state["n_iter"],
        converged=state["n_iter"] < MAX_ITERATIONS and state["func_evals"] < MAX_EVALUATIONS,
    )


def sweep_penalty(
    features: Float[Tensor, "N D"],
    targets: Int[Tensor, " N"],
    held_out: Float[Tensor, "M D"],
    held_out_targets: Int[Tensor, " M"],
    classes: int,
) -> tuple[float, tuple[Tried, ...]]:
    """The penalty with the best accuracy on held-out samples, and all that were tried.

    Seven penalties two decades apart; then the neighbours of the best one at half the distance,
    until it is an eighth of a decade (appendix A.3: a parametric binary search). Few samples make
    many penalties equally accurate; of these the one with the smallest held-out loss is taken.

    Raises:
        InputError: as `fit_linear_probe`, or no held-out sample.
    """
    if len(held_out) == 0:
        raise InputError("no held-out sample: a penalty cannot be chosen")
    low, high = (end * STEPS_PER_DECADE for end in DECADES)
    step = 2 * STEPS_PER_DECADE
    probes: dict[int, LinearProbe] = {}
    tried: dict[int, Tried] = {}

    def attempt(place: int) -> None:
        penalty = 10 ** (place / STEPS_PER_DECADE)
        nearest = min(probes, key=lambda other: abs(other - place), default=None)
        start = None if nearest is None else probes[nearest]
        probe = probes[place] = fit_linear_probe(features, targets, classes, penalty, start)
        logs = probe.log_probabilities(held_out)
        accuracy = top_k_accuracy(logs.float(), held_out_targets)
        loss = -logs.gather(1, held_out_targets[:, None]).mean().item()
        tried[place] = Tried(penalty, accuracy, loss, probe.converged)

    def best() -> int:
        return max(tried, key=lambda place: (tried[place].accuracy, -tried[place].loss))

    for place in range(high, low - 1, -step):  # a strong penalty is quick, and leads to the next
        attempt(place)
    while step > 1:
        step //= 2
        for place in (best() + step, best() - step):
            if low <= place <= high and place not in tried:
                attempt(place)
    return tried[best()].penalty, tuple(tried[place] for place in sorted(tried))


def _check(features: Tensor, targets: Tensor, classes: int, penalty: float) -> None:
    if features.ndim != 2 or len(features) != len(targets) or len(targets) == 0:
        raise InputError(
            f"features are {list(features.shape)} and targets {list(targets.shape)}: "
            "a probe needs [samples, width] and one class a sample, and at least one sample"
        )
    if not torch.isfinite(features).all():
        raise InputError("a feature is not finite: leave such samples out of the training")
    if targets.min() < 0 or targets.max() >= classes:
        raise InputError(f"targets must lie in 0 .. {classes - 1}")
    if not (math.isfinite(penalty) and penalty > 0):
        raise ConfigError(f"penalty is {penalty}: it must be above 0, such as 1")


def _objective(
    samples: Float[Tensor, "N D1"],
    targets: Int[Tensor, " N"],
    fitted: Float[Tensor, "C D1"],
    penalty: float,
) -> tuple[float, Float[Tensor, "C D1"]]:
    """The objective divided by N, and its gradient; the last column of `fitted` is the bias."""
    loss = fitted.new_zeros(())
    gradient = torch.zeros_like(fitted)
    for first in range(0, len(samples), _ROWS):
        part = samples[first : first + _ROWS]
        right = targets[first : first + _ROWS, None]
        logs = (part @ fitted.T).log_softmax(dim=1)  # [n C]
        loss -= logs.gather(1, right).sum()
        surplus = logs.exp_()
        surplus.scatter_add_(1, right, torch.full_like(part[:, :1], -1))
        gradient += surplus.T @ part
    weight = fitted[:, :-1]
    loss += penalty / 2 * weight.square().sum()
    gradient[:, :-1] += penalty * weight
    return (loss / len(samples)).item(), gradient / len(samples)
