"""Measures of heat, by hand: on the thing, at the hottest place, taken away and put in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import auc
from torch import Tensor

from sightline.core.errors import InputError
from sightline.metrics.attribution import (
    area_under,
    energy_inside,
    hottest_first,
    pointing_game,
    replaced_step_by_step,
)


def lots(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def mask() -> Tensor:
    """Four of twenty pixels."""
    found = torch.zeros(4, 5, dtype=torch.bool)
    found[1:3, 1:3] = True
    return found


def test_energy_is_the_share_of_heat(mask: Tensor) -> None:
    heat = torch.zeros(4, 5)
    heat[1, 1], heat[0, 0] = 0.75, 0.25
    assert energy_inside(heat, mask) == 0.75
    assert energy_inside(mask.float(), mask) == 1.0
    assert energy_inside(torch.ones(4, 5), mask) == pytest.approx(4 / 20)  # chance
    assert energy_inside(torch.zeros(4, 5), mask) == 0.0


def test_pointing_asks_for_the_hottest_pixel_alone(mask: Tensor) -> None:
    heat = torch.rand(4, 5, generator=lots()) / 2
    heat[2, 2] = 1.0
    assert pointing_game(heat, mask) == 1.0
    heat[3, 4] = 1.0  # as hot, and outside
    assert pointing_game(heat, mask) == 0.5
    assert pointing_game(torch.zeros(4, 5), mask) == pytest.approx(4 / 20)  # chance


def test_the_hottest_come_first_and_equal_ones_by_lot() -> None:
    heat = torch.tensor([[0.1, 0.9], [0.5, 0.7]])
    assert hottest_first(heat, lots()).tolist() == [1, 3, 2, 0]
    flat = torch.ones(5, 6)
    one, other = hottest_first(flat, lots(1)), hottest_first(flat, lots(2))
    assert sorted(one.tolist()) == list(range(30))
    assert not torch.equal(one, other) and one.tolist() != list(range(30))
    assert torch.equal(one, hottest_first(flat, lots(1)))


def test_pixels_are_replaced_in_order() -> None:
    picture, by = torch.zeros(2, 3, 3), torch.ones(2, 3, 3)
    order = torch.tensor([5, 0, 1, 2, 3, 4])
    steps = replaced_step_by_step(picture, by, order, 3)
    assert steps.shape == (4, 2, 3, 3)
    assert steps[..., 0].flatten(1).tolist() == [
        [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 1], [1, 1, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1],
    ]  # fmt: skip
    uneven = replaced_step_by_step(picture, by, order, 4)[..., 0].sum(dim=(1, 2))
    assert uneven.tolist() == [0, 1, 3, 4, 6]


@pytest.mark.parametrize("points", [2, 3, 17])
def test_the_area_is_that_of_an_independent_package(points: int) -> None:
    curves = torch.rand(4, points, dtype=torch.float64, generator=lots())
    shares = np.linspace(0, 1, points)
    expected = [auc(shares, curve) for curve in curves.numpy()]
    assert area_under(curves).tolist() == pytest.approx(expected)


def test_a_map_that_knows_the_model_beats_one_that_does_not() -> None:
    """A "model" that adds up six pixels: taking them first costs it everything at once."""
    weight = torch.zeros(6, 6)
    weight[2:4, 1:4] = torch.rand(2, 3, generator=lots()) + 0.5
    picture, blank = torch.ones(6, 6, 1), torch.zeros(6, 6, 1)

    def areas(heat: Tensor) -> tuple[float, float]:
        order = hottest_first(heat, lots(3))
        deleted = replaced_step_by_step(picture, blank, order, 12)
        inserted = replaced_step_by_step(blank, picture, order, 12)
        curves = [(part[..., 0] * weight).sum(dim=(1, 2)) / weight.sum()
                  for part in (deleted, inserted)]  # fmt: skip
        return float(area_under(curves[0])), float(area_under(curves[1]))

    true, drawn = areas(weight), areas(torch.rand(6, 6, generator=lots(4)))
    assert true[0] < 0.15 < 0.3 < drawn[0]
    assert true[1] > 0.85 > 0.7 > drawn[1]


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (torch.ones(4, 4), r"heat is \[4, 4\] and the mask \[4, 5\]"),
        (torch.full((4, 5), torch.nan), "finite and not below 0"),
        (torch.full((4, 5), -1.0), "finite and not below 0"),
    ],
)
def test_heat_that_cannot_be_measured_is_refused(heat: Tensor, message: str, mask: Tensor) -> None:
    for measure in (energy_inside, pointing_game):
        with pytest.raises(InputError, match=message):
            measure(heat, mask)


def test_nothing_to_find_and_nothing_to_walk_are_refused() -> None:
    with pytest.raises(InputError, match="the mask is empty"):
        energy_inside(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(InputError, match=r"a curve of 1 point\(s\) has no area"):
        area_under(torch.ones(1))
    picture = torch.zeros(2, 2, 3)
    with pytest.raises(InputError, match=r"both must be \[H, W, C\] with a place for each pixel"):
        replaced_step_by_step(picture, torch.zeros(2, 3, 3), torch.arange(4), 2)
    with pytest.raises(InputError, match="steps is 0"):
        replaced_step_by_step(picture, picture, torch.arange(4), 0)
