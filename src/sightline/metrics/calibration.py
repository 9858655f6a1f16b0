"""Whether a confidence of 80 % is right 80 % of the time.

Both errors are sum over bins of |B| / n * |accuracy(B) - mean confidence(B)|; they differ in how
bins are cut. A confidence that is not finite counts as certain and wrong.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.core.errors import InputError


def expected_calibration_error(
    confidences: Float[Tensor, " N"], correct: Bool[Tensor, " N"], bins: int = 15
) -> float:
    """ECE over equal-width bins ]low, high] of [0, 1] (Guo et al. 2017, equation 3).

    NaN for no sample.

    Raises:
        InputError: a confidence outside [0, 1], or lengths that differ.
    """
    confidences, correct = _checked(confidences, correct)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidences.device)
    index = torch.bucketize(confidences, edges[1:-1])
    return _error(confidences, correct, index, bins)


def adaptive_calibration_error(
    confidences: Float[Tensor, " N"], correct: Bool[Tensor, " N"], bins: int = 15
) -> float:
    """ECE over bins that hold equally many samples (Nguyen & O'Connor 2015; Nixon et al. 2019).

    Samples are ordered by confidence, equal confidences by correctness, so that the value does not
    depend on the order of the data. NaN for no sample.

    Raises:
        InputError: a confidence outside [0, 1], or lengths that differ.
    """
    confidences, correct = _checked(confidences, correct)
    by_correct = correct.argsort(stable=True)
    order = by_correct[confidences[by_correct].argsort(stable=True)]
    index = torch.empty_like(order)
    parts = torch.tensor_split(order, bins)
    for number, part in enumerate(parts):
        index[part] = number
    return _error(confidences, correct, index, bins)


def _checked(confidences: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    if confidences.shape != correct.shape or confidences.ndim != 1:
        raise InputError(
            f"confidences are {list(confidences.shape)} and correct {list(correct.shape)}: "
            "both must be [samples]"
        )
    finite = torch.isfinite(confidences)
    if ((confidences < 0) | (confidences > 1))[finite].any():
        raise InputError("confidences must lie in 0 .. 1: turn logits into probabilities first")
    return confidences.double().masked_fill(~finite, 1.0), (correct & finite).double()


def _error(confidences: Tensor, correct: Tensor, index: Tensor, bins: int) -> float:
    if len(confidences) == 0:
        return math.nan
    gaps = torch.zeros(bins, dtype=torch.float64, device=index.device)
    gaps.index_add_(0, index, correct - confidences)  # |B| * (accuracy - confidence)
    return gaps.abs().sum().item() / len(confidences)
