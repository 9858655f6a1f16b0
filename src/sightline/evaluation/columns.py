"""What each sample adds to a metric, and what a set of samples comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sightline.evaluation.results import Metric
from sightline.metrics.intervals import bootstrap_counts, mean_of


class Column(NamedTuple):
    """What each sample adds to a metric."""

    values: Float[ndarray, " N"] | Float[ndarray, "N K"]
    """float64: a score each, or the counts that a score of the whole set is made of."""
    of_totals: Callable[[Float[ndarray, "*R K"]], Float[ndarray, "*R"]] | None = None
    """Sums of counts to the score of a set; None where it is the mean."""
    rows: Sequence[int] | None = None
    """Where several samples together get one value: the first of each such bundle. None where
    each sample has its own."""

    def of(self, samples: int) -> list[int]:
        """The sample that each value belongs to."""
        return list(range(samples) if self.rows is None else self.rows)


def metric_of(
    column: Column,
    groups: Int[Tensor, " N"] | None = None,
    seed: int = 0,
    resamples: int = 0,
    classes: Int[Tensor, " N"] | None = None,
) -> Metric:
    """The number with its interval, which draws whole groups; what a sample adds stays the same.

    Args:
        groups: numbers of what stands or falls together (questions about one picture).
        resamples: draws of the interval; 0 leaves it out.
        classes: take the mean over these of the number of each; what is not in a drawn set is not
            in its mean.
    """
    count = len(column.values)
    if not count:
        return Metric(float("nan"))
    of_sets = _of_sets(column)

    def over_classes(times: Float[Tensor, "R N"]) -> Float[Tensor, " R"]:
        if classes is None:
            return of_sets(times)
        own = [of_sets(times * (classes == each)) for each in classes.unique()]
        return torch.stack(own).nanmean(dim=0)

    value = over_classes(torch.ones(1, count, dtype=torch.float64)).item()
    if not resamples:
        return Metric(value, None, count)
    low, high = bootstrap_counts(over_classes, count, groups, resamples, seed=seed)
    return Metric(value, (low.item(), high.item()), count)


def _of_sets(column: Column) -> Callable[[Float[Tensor, "R N"]], Float[Tensor, " R"]]:
    counts, of_totals = column.values, column.of_totals
    if of_totals is None:
        return mean_of(torch.from_numpy(counts))
    return lambda times: torch.from_numpy(of_totals(times.double().numpy() @ counts))
