"""Calibration errors against loops and by hand."""

import math

import pytest
import torch

from sightline.core.errors import InputError
from sightline.metrics.calibration import adaptive_calibration_error, expected_calibration_error


def slow_ece(confidences: list[float], correct: list[bool], bins: int) -> float:
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        held = [i for i, c in enumerate(confidences) if low < c <= high or (b == 0 and c == 0)]
        if held:
            accuracy = sum(correct[i] for i in held) / len(held)
            confidence = sum(confidences[i] for i in held) / len(held)
            total += len(held) / len(confidences) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_equal_width_bins_equal_the_loop(bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    confidences = torch.rand(300, generator=generator, dtype=torch.float64)
    confidences[:3] = torch.tensor([0.0, 1.0, 0.5])
    correct = torch.rand(300, generator=generator) < 0.6
    expected = slow_ece(confidences.tolist(), correct.tolist(), bins)
    assert expected_calibration_error(confidences, correct, bins) == pytest.approx(expected)


def test_adaptive_bins_hold_equally_many() -> None:
    confidences = torch.tensor([0.9, 0.1, 0.2, 0.8])
    correct = torch.tensor([True, False, True, False])
    # bins {.1, .2} and {.8, .9}: |.5 - .15| / 2 + |.5 - .85| / 2
    assert adaptive_calibration_error(confidences, correct, 2) == pytest.approx(0.35)
    crowded = torch.tensor([0.9, 0.95, 0.8, 0.85])
    # All four in ].5, 1]: |.5 - .875|. By number: {.8, .85} all wrong, {.9, .95} all right.
    assert expected_calibration_error(crowded, correct, 2) == pytest.approx(0.375)
    assert adaptive_calibration_error(
        crowded, torch.tensor([1, 1, 0, 0]).bool(), 2
    ) == pytest.approx((0.825 + 0.075) / 2)
    assert adaptive_calibration_error(confidences, correct, 1) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("error", [expected_calibration_error, adaptive_calibration_error])
def test_shared_rules(error) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(1)
    confidences = torch.randint(1, 5, (101,), generator=generator) / 4
    correct = torch.rand(101, generator=generator) < 0.5
    moved = torch.randperm(101, generator=generator)
    assert error(confidences, correct) == pytest.approx(error(confidences[moved], correct[moved]))
    certain = torch.ones(10)
    assert error(certain, certain.bool()) == 0
    assert error(certain, ~certain.bool()) == 1
    assert error(torch.full((4,), math.nan), torch.ones(4, dtype=torch.bool)) == 1
    assert math.isnan(error(torch.zeros(0), torch.zeros(0, dtype=torch.bool)))
    with pytest.raises(InputError, match="turn logits into probabilities"):
        error(torch.tensor([3.0]), torch.tensor([True]))
    with pytest.raises(InputError, match=r"both must be \[samples\]"):
        error(torch.zeros(2), torch.zeros(3, dtype=torch.bool))
