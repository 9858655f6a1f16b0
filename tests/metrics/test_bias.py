"""Skew, NDKL and the test of shares against closed forms, enumeration and published formulas."""

import itertools
import math
from collections import Counter

import pytest
import torch
from scipy import stats

from sightline.core.errors import InputError
from sightline.metrics.bias import (
    divergence,
    holm,
    ndkl,
    order_of,
    share_test,
    skew_at_k,
    target_shares,
    top_counts,
)

TOLERANCE = 1e-12


def ranking(seed: int, count: int = 60, groups: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randperm(count, generator=generator).double()  # no ties
    labels = torch.randint(groups, (count,), generator=generator)
    labels[:groups] = torch.arange(groups)
    return scores, labels


def published_skew(scores, labels, k, parity):
    """MaxSkew as Berg et al. 2022 state it, item by item."""
    everyone = Counter(labels.tolist())
    order = sorted(range(len(scores)), key=lambda i: -scores[i].item())
    top = Counter(labels[i].item() for i in order[:k])
    found = []
    for group, size in everyone.items():
        target = size / len(labels) if parity else 1 / len(everyone)
        found.append(math.log(max(top[group] / k, 1 / k) / target))
    return max(found), min(found)


def published_ndkl(scores, labels, parity):
    everyone = Counter(labels.tolist())
    order = sorted(range(len(scores)), key=lambda i: -scores[i].item())
    seen = Counter()
    total = norm = 0.0
    for place, i in enumerate(order, start=1):
        seen[labels[i].item()] += 1
        kl = 0.0
        for group, size in everyone.items():
            share = seen[group] / place
            target = size / len(labels) if parity else 1 / len(everyone)
            kl += share * math.log(share / target) if share else 0.0
        total += kl / math.log2(place + 1)
        norm += 1 / math.log2(place + 1)
    return total / norm


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 7, 25, 60])
def test_skew_and_ndkl_against_the_published_formulas(seed: int, k: int) -> None:
    scores, labels = ranking(seed)
    for target, parity in (("population", True), ("equal", False)):
        for variant in ("exact", "oxai"):  # equal where nothing ties
            found = skew_at_k(scores, labels, 4, k, target, variant)
            expected = published_skew(scores, labels, k, parity)
            assert (found.largest, found.smallest) == pytest.approx(expected, abs=TOLERANCE)
            assert found.tied == 0
        assert ndkl(scores, labels, 4, target) == pytest.approx(
            published_ndkl(scores, labels, parity), abs=TOLERANCE
        )


def test_a_fair_ranking_has_no_skew() -> None:
    labels = torch.tensor([0, 1] * 20)
    scores = torch.arange(40, 0, -1)
    found = skew_at_k(scores, labels, 2, 10, "equal")
    assert found.skews.tolist() == pytest.approx([0, 0], abs=TOLERANCE)
    whole = skew_at_k(scores, labels, 2, 40, "population")
    assert (whole.largest, whole.smallest) == pytest.approx((0, 0), abs=TOLERANCE)


def test_a_segregated_ranking_has_the_closed_form() -> None:
    labels = torch.tensor([0] * 30 + [1] * 10)
    scores = torch.arange(40, 0, -1)
    found = skew_at_k(scores, labels, 2, 10, "population")
    assert found.largest == pytest.approx(math.log(1 / 0.75), abs=TOLERANCE)
    assert found.smallest == pytest.approx(math.log(0.1 / 0.25), abs=TOLERANCE)  # 0 is 1/k
    first_only = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert divergence(first_only, target_shares(labels, 2, "equal")).item() == pytest.approx(
        math.log(2), abs=TOLERANCE
    )
    # every prefix of the first 30 is one group alone
    assert ndkl(scores[:30], labels[:30], 1, "population") == pytest.approx(0, abs=TOLERANCE)


def test_ties_keep_exactly_k_in_the_order_of_the_data() -> None:
    labels = torch.tensor([0] * 6 + [1] * 6)
    constant = torch.zeros(12)
    found = skew_at_k(constant, labels, 2, 4, "equal")
    assert found.shares.tolist() == [1, 0] and found.tied == 8
    # the published code keeps all twelve and divides by four
    assert skew_at_k(constant, labels, 2, 4, "equal", "oxai").shares.sum().item() == 3


@pytest.mark.parametrize("k", [1, 9, 150])
def test_counts_of_sets_drawn_with_replacement_are_those_of_the_rows_drawn(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    scores = torch.randint(40, (300, 3), generator=generator).double()
    labels = torch.randint(4, (300,), generator=generator)
    rows = torch.randint(300, (300,), generator=generator).sort().values
    rows[:200], scores[7] = 7, -1  # one item very often, and last
    found = top_counts(order_of(scores), labels, 4, k, rows.bincount(minlength=300))
    for column in range(3):
        first = order_of(scores[rows.sort().values, column])[:k]
        plain = labels[rows.sort().values][first].bincount(minlength=4)
        assert torch.equal(found[column], plain)


def test_a_score_that_is_no_number_stands_last() -> None:
    labels = torch.tensor([0, 1, 1])
    scores = torch.tensor([math.nan, 0.1, 0.2])
    assert skew_at_k(scores, labels, 2, 2, "equal").shares.tolist() == [0, 1]


def test_renaming_groups_and_order_of_the_data_change_nothing() -> None:
    scores, labels = ranking(9)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    renamed = (labels + 1) % 4
    for target in ("equal", "population"):
        plain = skew_at_k(scores, labels, 4, 11, target)
        for s, g in ((scores[order], labels[order]), (scores, renamed)):
            moved = skew_at_k(s, g, 4, 11, target)
            assert (moved.largest, moved.smallest) == (plain.largest, plain.smallest)
            assert ndkl(s, g, 4, target) == pytest.approx(ndkl(scores, labels, 4, target), 1e-12)


@pytest.mark.parametrize("kept", [(5, 0), (4, 1), (3, 2), (1, 4), (0, 5)])
def test_two_groups_drawn_without_replacement_are_fishers_exact_test(kept) -> None:
    population = torch.tensor([6, 7])
    shares = torch.tensor(kept).double() / 5
    wanted = population.double() / 13
    far = 0.0
    for first in range(6):  # every possible count, by the hypergeometric distribution
        other = torch.tensor([first, 5 - first]).double() / 5
        if divergence(other, wanted) >= divergence(shares, wanted) - 1e-12:
            far += stats.hypergeom(13, 6, 5).pmf(first)
    assert share_test(torch.tensor(kept), population) == pytest.approx(far, abs=1e-9)


def test_shares_test_against_all_permutations_of_the_labels() -> None:
    labels = (0, 0, 0, 1, 1, 2)
    wanted = target_shares(torch.tensor(labels), 3, "population")

    def far(top) -> float:
        return divergence(torch.tensor(top).bincount(minlength=3).double() / 3, wanted).item()

    everything = [far(top) for top in itertools.permutations(labels, 3)]
    for top in ((0, 0, 0), (0, 1, 2), (1, 1, 2)):
        share = sum(value >= far(top) - 1e-12 for value in everything) / len(everything)
        kept = torch.tensor(top).bincount(minlength=3)
        assert share_test(kept, torch.tensor([3, 2, 1])) == pytest.approx(share, abs=1e-9)


def test_equal_shares_are_the_binomial_test() -> None:
    population = torch.tensor([500, 500])
    for successes in (3, 8, 10, 17):
        kept = torch.tensor([successes, 20 - successes])
        expected = stats.binomtest(successes, 20).pvalue
        assert share_test(kept, population, "equal") == pytest.approx(expected, abs=1e-9)


def test_a_small_group_that_vanishes_is_seen_although_maxskew_hardly_moves() -> None:
    labels = torch.tensor([0] * 900 + [1] * 100)
    scores = torch.arange(1000, 0, -1)
    assert skew_at_k(scores, labels, 2, 100).largest == pytest.approx(math.log(1 / 0.9), 1e-6)
    assert share_test(torch.tensor([100, 0]), torch.tensor([900, 100])) < 1e-4


def test_drawn_p_values_agree_with_summed_ones() -> None:
    # eight groups: too many outcomes to sum; two of them merge to a case that can be
    population = torch.full((8,), 50)
    even = share_test(torch.full((8,), 10), population)
    assert even == pytest.approx(1.0)
    skewed = torch.tensor([40, 10, 5, 5, 5, 5, 5, 5])
    assert share_test(skewed, population, samples=999) == 1 / 1000  # the least it can be
    one_off = torch.tensor([11, 9, 10, 10, 10, 10, 10, 10])
    again = [share_test(one_off, population, seed=s) for s in (0, 0, 1)]
    assert again[0] == again[1] and all(p > 0.9 for p in again)


def test_p_values_of_chance_are_not_small_too_often() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 50 + [1] * 50)
    found = []
    for _ in range(300):
        top = labels[torch.randperm(100, generator=generator)[:30]]
        found.append(share_test(top.bincount(minlength=2), torch.tensor([50, 50])))
    for level in (0.01, 0.05, 0.2):
        share = sum(p <= level for p in found) / len(found)
        assert share <= level + 3 * math.sqrt(level * (1 - level) / len(found))


def test_holm_against_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    found = holm([0.02, math.nan, 0.02])
    assert found[0] == found[2] == pytest.approx(0.04) and math.isnan(found[1])
    assert holm([]) == []


def test_messages_say_what_to_do() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"k = 3: give one group a score and a k between 1 and"):
        skew_at_k(torch.zeros(2), labels, 2, 3)
    with pytest.raises(InputError, match=r"groups are 0 .. 1: they must lie in 0 .. 0"):
        skew_at_k(torch.zeros(2), labels, 1, 1)
    with pytest.raises(InputError, match="'fair': it must be 'equal' or 'population'"):
        target_shares(labels, 2, "fair")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is nothing to rank"):
        ndkl(torch.zeros(0), labels[:0], 2)
    with pytest.raises(InputError, match="2 scores and 1 groups"):
        ndkl(torch.zeros(2), labels[:1], 2)
    with pytest.raises(InputError, match="no more can be kept than there are"):
        share_test(torch.tensor([3]), torch.tensor([2]))
