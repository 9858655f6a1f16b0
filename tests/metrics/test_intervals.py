"""Intervals and tests of significance against scipy, enumeration and coverage."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from sightline.core.errors import InputError
from sightline.metrics.intervals import bootstrap, paired_test, wilson
from sightline.metrics.retrieval import median_rank


@pytest.mark.parametrize("successes,count", [(0, 1), (0, 20), (7, 20), (20, 20), (433, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_equals_scipy(successes: int, count: int, level: float) -> None:
    expected = stats.binomtest(successes, count).proportion_ci(level, method="wilson")
    assert wilson(successes, count, level) == pytest.approx((expected.low, expected.high))


def test_wilson_ends() -> None:
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
    assert all(math.isnan(end) for end in wilson(0, 0))
    with pytest.raises(InputError, match=r"6 successes of 5 samples: must be 0 \.\. 5"):
        wilson(6, 5)


def test_bootstrap_is_near_scipy() -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = bootstrap(values, torch.mean, resamples=4000)
    expected = stats.bootstrap(
        (values.numpy(),), np.mean, n_resamples=4000, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (low.item(), high.item()) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bootstrap_of_two_values_by_hand() -> None:
    # Means of two draws from {0, 1}: 0, 1/2, 1/2, 1, so 2.5 % and 97.5 % are the ends.
    low, high = bootstrap(torch.tensor([0.0, 1.0]), torch.mean)
    assert (low.item(), high.item()) == (0, 1)


def test_groups_are_drawn_whole() -> None:
    values = torch.arange(12.0)
    groups = torch.tensor([7, 7, 7, 2, 2, 2, 2, 2, 9, 9, 9, 9])
    seen = set()

    def remember(rows: torch.Tensor) -> torch.Tensor:
        held = rows.int().tolist()
        for group in (2, 7, 9):
            members = (groups == group).nonzero()[:, 0].tolist()
            counts = {held.count(member) for member in members}
            assert len(counts) == 1, "a group was cut"
        seen.add(tuple(sorted(held)))
        return rows.mean()

    bootstrap(values, remember, groups, resamples=200)
    assert len(seen) == 10  # multisets of three from three


def test_groups_widen_the_interval_of_repeated_samples() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(1)).repeat_interleave(20)
    groups = torch.arange(50).repeat_interleave(20)
    naive = bootstrap(values, torch.mean)
    honest = bootstrap(values, torch.mean, groups)
    assert (honest[1] - honest[0]) > 3 * (naive[1] - naive[0])


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(2)
    covered = 0
    for trial in range(200):
        values = torch.rand(60, generator=generator)
        low, high = bootstrap(values, torch.mean, resamples=300, level=0.9, seed=trial)
        covered += int(low <= 0.5 <= high)
    assert 0.82 <= covered / 200 <= 0.96


def test_bootstrap_shapes_seeds_and_infinite_medians() -> None:
    values = torch.stack([torch.arange(9.0), -torch.arange(9.0)], dim=1)
    low, high = bootstrap(values, lambda rows: rows.mean(dim=0))
    assert low.shape == high.shape == (2,)
    assert torch.allclose(low, -high.flip(0))
    assert torch.equal(low, bootstrap(values, lambda rows: rows.mean(dim=0))[0])
    assert not torch.equal(low, bootstrap(values, lambda rows: rows.mean(dim=0), seed=1)[0])
    ranks = torch.tensor([1.0] * 5 + [math.inf] * 5)
    ends = bootstrap(ranks, lambda rows: torch.tensor(median_rank(rows)))
    assert [end.item() for end in ends] == [1, math.inf]


def test_bootstrap_of_nothing_is_nan() -> None:
    assert all(end.isnan().all() for end in bootstrap(torch.zeros(0), torch.mean))
    with pytest.raises(InputError, match="2 groups for 3 samples"):
        bootstrap(torch.zeros(3), torch.mean, torch.zeros(2).long())


def test_paired_test_equals_enumeration_and_scipy() -> None:
    generator = torch.Generator().manual_seed(3)
    first = torch.randint(3, (9,), generator=generator).double()
    second = torch.randint(2, (9,), generator=generator).double()
    difference = (first - second).numpy()
    patterns = [np.dot(s, difference) for s in itertools.product([1, -1], repeat=9)]
    enumerated = np.mean(np.abs(patterns) >= abs(difference.sum()) - 1e-9)
    by_scipy = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    found = paired_test(first, second)
    assert found.p_value == pytest.approx(enumerated) == pytest.approx(by_scipy.pvalue)
    assert found.difference == pytest.approx(difference.mean())
    assert found.low <= found.difference <= found.high


def test_paired_test_of_right_and_wrong_is_mcnemars_exact_test() -> None:
    first = torch.tensor([1.0] * 12 + [0.0] * 3 + [1.0] * 40)
    second = torch.tensor([0.0] * 12 + [1.0] * 3 + [1.0] * 40)
    expected = stats.binomtest(3, 15).pvalue
    assert paired_test(first, second, resamples=2**15).p_value == pytest.approx(expected)
    sampled = paired_test(first, second, resamples=2**15 - 1).p_value
    assert sampled == pytest.approx(expected, abs=0.006)


def test_paired_test_of_equal_models_and_of_different_ones() -> None:
    scores = torch.rand(400, generator=torch.Generator().manual_seed(4))
    assert paired_test(scores, scores).p_value == 1
    assert paired_test(scores + 1, scores).p_value == pytest.approx(1 / 10_001)


def test_groups_flip_together() -> None:
    # One picture's twenty captions are one piece of evidence, not twenty.
    first, second = torch.ones(20), torch.zeros(20)
    assert paired_test(first, second).p_value < 0.001
    assert paired_test(first, second, groups=torch.zeros(20).long()).p_value == 1


def test_paired_messages() -> None:
    with pytest.raises(InputError, match="one score of each model for the same samples"):
        paired_test(torch.zeros(2), torch.zeros(3))
    with pytest.raises(InputError, match="count the sample as wrong"):
        paired_test(torch.tensor([math.nan]), torch.zeros(1))
    assert math.isnan(paired_test(torch.zeros(0), torch.zeros(0)).p_value)


def test_no_draw_is_no_interval() -> None:
    low, high = bootstrap(torch.rand(5), torch.mean, resamples=0)
    assert low.isnan() and high.isnan()
