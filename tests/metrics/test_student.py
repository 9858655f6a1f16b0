"""Student's interval against scipy."""

import math

import pytest
import torch
from scipy import stats

from sightline.metrics.student import student


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 11, 40])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_the_interval_equals_scipys(count: int, level: float) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)).double()
    expected = stats.t.interval(
        level, count - 1, loc=values.mean().item(), scale=stats.sem(values.numpy())
    )
    assert student(values, level) == pytest.approx(expected, rel=1e-9)


def test_one_measurement_has_no_interval() -> None:
    assert all(math.isnan(end) for end in student(torch.tensor([0.5])))
    assert student(torch.tensor([0.5, 0.5])) == (0.5, 0.5)
