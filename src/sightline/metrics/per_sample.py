"""A score for each sample and what they come to: the mean, and the mean of each group.

Bootstraps and paired tests (`metrics.intervals`) want the samples, a table wants the mean; what
scores words gives both. Plain numpy, so that scoring answers loads no torch:
`torch.from_numpy(scores)` is what the intervals take.

Letters: N samples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence, Sized
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sightline.core.errors import InputError

Group = TypeVar("Group", bound=Hashable)


class Scores(NamedTuple):
    """A mean with what it is the mean of."""

    value: float
    """NaN for no sample."""
    scores: Float[ndarray, " N"]
    """float64, in the order of the samples."""


def mean_of_scores(scores: Sequence[float] | Float[ndarray, " N"]) -> Scores:
    """Scores with their mean."""
    values = np.asarray(scores, dtype=np.float64)
    return Scores(float(values.mean()) if len(values) else math.nan, values)


def group_means(
    scores: Float[ndarray, " N"], groups: Sequence[Group]
) -> dict[Group, tuple[float, int]]:
    """The mean of each group and how many samples it has, groups in the order of appearance.

    Raises:
        InputError: not one group for each score.
    """
    same_length(scores=scores, groups=groups)
    members: dict[Group, list[float]] = {}
    for score, group in zip(scores.tolist(), groups, strict=True):
        members.setdefault(group, []).append(score)
    return {group: (math.fsum(own) / len(own), len(own)) for group, own in members.items()}


def same_length(**columns: Sized) -> None:
    """Check that there is one of each for every sample.

    Raises:
        InputError: the lengths differ.
    """
    if len({len(column) for column in columns.values()}) > 1:
        counts = ", ".join(f"{len(column)} {name}" for name, column in columns.items())
        raise InputError(f"{counts}: there must be one of each for every sample")
