"""Referring expressions: how well the one box that was asked for fits (RefCOCO and its kin).

Kazemzadeh et al. 2014, Yu et al. 2016 (arXiv:1608.00272): an expression counts as understood where
the overlap with the true box reaches a threshold, 0.5 as a rule. Every expression counts once; one
that was answered without any box scores 0 and stays in the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import InputError
from sightline.core.outputs import Box
from sightline.metrics.boxes import iou

THRESHOLDS = (0.5, 0.7, 0.9)


class Grounding(NamedTuple):
    """Scores over all expressions; NaN for none."""

    accuracy: dict[float, float]
    """Share of expressions whose overlap reaches each threshold."""
    mean_iou: float
    unparsed: int
    """Expressions that were answered without a box."""
    ious: NDArray[np.float64]
    """Of each expression, in order: what a bootstrap draws from."""


def grounding(
    predicted: Sequence[Box | None],
    truth: Sequence[Box],
    thresholds: Sequence[float] = THRESHOLDS,
) -> Grounding:
    """Score one box an expression, None where the answer had none.

    Raises:
        InputError: lists of different lengths.
    """
    if len(predicted) != len(truth):
        raise InputError(
            f"{len(predicted)} answers and {len(truth)} true boxes: there must be one of each for "
            "every expression, None for an answer without a box"
        )
    boxes = [(0.0, 0.0, 0.0, 0.0) if box is None else box for box in predicted]
    ious = iou(np.reshape(boxes, (-1, 4)), np.reshape(truth, (-1, 4)))
    return Grounding(
        {each: float((ious >= each).mean()) if len(ious) else math.nan for each in thresholds},
        float(ious.mean()) if len(ious) else math.nan,
        sum(box is None for box in predicted),
        ious,
    )
