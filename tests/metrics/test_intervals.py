"""Intervals and tests of significance against scipy, enumeration and coverage."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from sightline.core.errors import InputError
from sightline.metrics.classification import mean_per_class_recall
from sightline.metrics.intervals import (
    bootstrap,
    bootstrap_counts,
    mean_of,
    median_of,
    paired_test,
    percentiles,
    wilson,
)
from sightline.metrics.paired import bootstrap_p, mcnemar, permutation_p
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


def ranks_in_groups() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    ranks = torch.randint(1, 9, (60,), generator=generator).double()
    ranks[ranks == 8] = math.inf
    return ranks, torch.randint(25, (60,), generator=generator) * 3


@pytest.mark.parametrize("grouped", [False, True])
def test_sets_told_by_counts_are_the_sets_drawn_one_by_one(grouped: bool) -> None:
    """Same seed, same draws, same interval as the loop; in the seed's own order."""
    ranks, groups = ranks_in_groups()
    chosen = groups if grouped else None

    def one_by_one(rows: torch.Tensor) -> torch.Tensor:
        hits = (rows <= 2).double().mean()
        return torch.stack([hits, torch.tensor(median_rank(rows)), rows.reciprocal().mean()])

    def at_once(counts: torch.Tensor) -> torch.Tensor:
        numbers = (mean_of((ranks <= 2).double()), median_of(ranks), mean_of(ranks.reciprocal()))
        return torch.stack([number(counts) for number in numbers], dim=1)

    for seed in (0, 5):
        expected = bootstrap(ranks, one_by_one, chosen, seed=seed)
        found = bootstrap_counts(at_once, len(ranks), chosen, seed=seed)
        torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-12, atol=0)
    other = bootstrap_counts(at_once, len(ranks), chosen, seed=1)
    assert not torch.equal(torch.stack(other), torch.stack(found))


def test_blocks_of_sets_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, groups = ranks_in_groups()
    expected = bootstrap_counts(median_of(ranks), 60, groups)
    monkeypatch.setattr("sightline.metrics.intervals._NUMBERS_AT_ONCE", 7 * 60)
    assert torch.equal(torch.stack(bootstrap_counts(median_of(ranks), 60, groups)),
                       torch.stack(expected))  # fmt: skip


def test_mean_per_class_recall_told_by_counts_is_that_of_each_set() -> None:
    generator = torch.Generator().manual_seed(8)
    targets = torch.randint(12, (50,), generator=generator)  # small classes: some sets lack one
    predicted = torch.where(torch.rand(50, generator=generator) < 0.6, targets, 0)

    def one_by_one(rows: torch.Tensor) -> torch.Tensor:
        return torch.tensor(mean_per_class_recall(rows[:, 0], rows[:, 1], 12), dtype=torch.float64)

    expected = bootstrap(torch.stack([targets, predicted], dim=1), one_by_one)
    recall = mean_of((predicted == targets).double(), targets)
    found = bootstrap_counts(recall, 50)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-12, atol=0)
    whole = recall(torch.ones(1, 50).double()).item()
    assert whole == pytest.approx(mean_per_class_recall(targets, predicted, 12))


def test_counts_of_nothing_and_of_no_draw_are_nan() -> None:
    for count, resamples in ((0, 10), (5, 0)):
        ends = bootstrap_counts(mean_of(torch.ones(count)), count, resamples=resamples)
        assert all(end.isnan() for end in ends)
    assert median_of(torch.zeros(0))(torch.zeros(2, 0)).isnan().all()
    with pytest.raises(InputError, match="2 groups for 3 samples"):
        bootstrap_counts(mean_of(torch.ones(3)), 3, torch.zeros(2).long())


def test_percentiles_equal_numpys() -> None:
    drawn = torch.randn(101, 3, generator=torch.Generator().manual_seed(9)).double()
    expected = np.quantile(drawn.numpy(), [0.05, 0.95], axis=0)
    assert torch.stack(percentiles(drawn, 0.9)).numpy() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (3, 12), (12, 3), (8, 8), (400, 460), (0, 3000)]
)
def test_mcnemar_equals_scipys_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_equal_differences_need_no_draw() -> None:
    differences = torch.tensor([0.25] * 90 + [-0.25] * 60 + [0.0] * 500).double()
    p_value, how = permutation_p(differences)
    assert how == "McNemar exact"
    assert p_value == pytest.approx(stats.binomtest(60, 150).pvalue)
    drawn, how = permutation_p(torch.cat([differences, torch.tensor([0.001]).double()]))
    assert how == "sign flips drawn"
    assert drawn == pytest.approx(p_value, abs=0.006)
    assert permutation_p(torch.zeros(5)) == (1.0, "McNemar exact")
    with pytest.raises(InputError, match="counts are -1 and 2: they cannot be negative"):
        mcnemar(-1, 2)


def test_bootstrap_p_counts_the_rarer_side_and_ties_for_both() -> None:
    assert bootstrap_p(torch.tensor([1.0] * 97 + [-1.0] * 2)) == pytest.approx(2 * 3 / 100)
    assert bootstrap_p(torch.tensor([1.0] * 90 + [0.0] * 9)) == pytest.approx(2 * 10 / 100)
    assert bootstrap_p(torch.ones(99)) == pytest.approx(2 / 100)
    assert bootstrap_p(torch.zeros(99)) == 1


def test_p_values_of_equal_models_are_uniform() -> None:
    """Two models right at random on 60 pictures: 5 % of the tests say p < 5 %, or fewer."""
    generator = torch.Generator().manual_seed(10)
    found = [
        paired_test(*(torch.rand(2, 60, generator=generator) < 0.6).double(), resamples=400)
        for _ in range(300)
    ]
    assert sum(test.p_value < 0.05 for test in found) <= 24
    assert 3 <= sum(test.p_bootstrap < 0.05 for test in found) <= 33


def test_classes_weigh_alike_in_a_paired_test() -> None:
    first = torch.tensor([1.0] * 9 + [0.0])
    second = torch.tensor([0.0] + [1.0] * 9)
    classes = torch.tensor([0] * 9 + [1])
    found = paired_test(first, second, classes=classes)
    assert found.difference == pytest.approx((1 - 8 / 9 + 0 - 1) / 2)
    assert paired_test(first, second).difference == 0
    assert (found.first_better, found.second_better, found.equal) == (1, 1, 8)
    # Sign flips of 1/9 and of 1: the four sums are 8/9 and 10/9 twice; both at least 8/9.
    assert (found.p_value, found.test) == (1.0, "sign flips exact")
    assert found.discordant == 2
