"""Gaps between groups against loops, closed forms and the permutation of labels."""

import itertools
import math

import pytest
import torch

from sightline.core.errors import InputError
from sightline.metrics.group_gaps import (
    demographic_parity,
    difference_interval,
    equalised_odds,
    gap,
    gap_test,
    group_rates,
)


def drawn(seed: int, count: int = 80) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.rand(count, generator=generator) < 0.4
    truth = torch.rand(count, generator=generator) < 0.5
    return predicted, truth, torch.randint(3, (count,), generator=generator)


@pytest.mark.parametrize("seed", range(5))
def test_parity_and_odds_against_loops(seed: int) -> None:
    predicted, truth, groups = drawn(seed)

    def rate(keep) -> list[float]:
        found = []
        for group in range(3):
            rows = [i for i in range(80) if groups[i] == group and keep(i)]
            found.append(sum(predicted[i].item() for i in rows) / len(rows))
        return found

    positive = rate(lambda i: True)
    parity = demographic_parity(predicted, groups, 3)
    assert parity.difference == pytest.approx(max(positive) - min(positive), abs=1e-12)
    assert parity.ratio == pytest.approx(min(positive) / max(positive), abs=1e-12)
    assert parity.worst == pytest.approx(min(positive), abs=1e-12)
    true_rates, false_rates = rate(lambda i: truth[i]), rate(lambda i: not truth[i])
    odds = max(max(r) - min(r) for r in (true_rates, false_rates))
    assert equalised_odds(predicted, truth, groups, 3) == pytest.approx(odds, abs=1e-12)


def test_alike_groups_have_no_gap() -> None:
    predicted = torch.tensor([True, False] * 6)
    truth = torch.tensor([True, True, False, False] * 3)
    groups = torch.arange(12) // 4
    assert demographic_parity(predicted, groups, 3) == (0, 1, 0.5)
    assert equalised_odds(predicted, truth, groups, 3) == 0
    assert gap_test(predicted.double(), groups, 3) == 1


def test_a_group_without_samples_is_left_out() -> None:
    rates = group_rates(torch.tensor([1.0, 0.0]), torch.tensor([0, 2]), 3)
    assert rates[0] == 1 and rates[1].isnan() and rates[2] == 0
    assert gap(rates) == (1, 0, 0)
    assert all(math.isnan(part) for part in gap(torch.full((2,), math.nan)))
    assert math.isnan(gap(torch.zeros(2)).ratio)
    nobody = torch.zeros(0, dtype=torch.bool)
    assert math.isnan(equalised_odds(nobody, nobody, nobody.long(), 2))


def test_the_test_against_every_assignment_of_labels() -> None:
    values = torch.tensor([1.0, 1, 1, 0, 0, 0, 1, 0])
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    observed = gap(group_rates(values, groups, 2)).difference
    gaps = []
    for part in itertools.combinations(range(8), 4):
        labels = torch.ones(8, dtype=torch.long)
        labels[list(part)] = 0
        gaps.append(gap(group_rates(values, labels, 2)).difference)
    exact = sum(value >= observed - 1e-12 for value in gaps) / len(gaps)
    assert gap_test(values, groups, 2, samples=4000) == pytest.approx(exact, abs=0.03)


def test_a_planted_gap_is_found_and_chance_is_not() -> None:
    groups = torch.arange(200) % 2
    generator = torch.Generator().manual_seed(0)
    fair = (torch.rand(200, generator=generator) < 0.7).double()
    planted = torch.where(groups == 0, fair, fair * (torch.rand(200, generator=generator) < 0.5))
    assert gap_test(planted, groups, 2, samples=999) == 1 / 1000
    assert gap_test(fair, groups, 2, samples=999) > 0.05
    assert math.isnan(gap_test(fair[:3], torch.zeros(3, dtype=torch.long), 2))


def test_the_published_examples_of_the_interval_of_a_difference() -> None:
    # Newcombe 1998, table II, method 10: (a) 56/70 - 48/80, (e) 5/56 - 0/29, (h) 10/10 - 0/10
    for shares, expected in (
        (((56, 70), (48, 80)), (0.0524, 0.3339)),
        (((5, 56), (0, 29)), (-0.0381, 0.1926)),
        (((10, 10), (0, 10)), (0.6075, 1.0)),
    ):
        assert difference_interval(*shares) == pytest.approx(expected, abs=1e-4)
    assert all(math.isnan(end) for end in difference_interval((0, 0), (1, 2)))


def test_messages_say_what_to_do() -> None:
    with pytest.raises(InputError, match="2 values and 1 groups: give one group a value"):
        group_rates(torch.zeros(2), torch.zeros(1, dtype=torch.long), 1)
    with pytest.raises(InputError, match=r"groups are 0 .. 4: they must lie in 0 .. 2"):
        group_rates(torch.zeros(2), torch.tensor([0, 4]), 3)
