"""WEAT against its formula, all partitions and scipy's permutation test."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from sightline.core.errors import InputError
from sightline.metrics.association import association, partition_test, single_association


def vectors(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)).double()


def cosine(u: np.ndarray, v: np.ndarray) -> float:
    return float(u @ v / math.sqrt(u @ u) / math.sqrt(v @ v))


def nearer(word: np.ndarray, a: torch.Tensor, b: torch.Tensor) -> float:
    first = [cosine(word, other) for other in a.numpy()]
    second = [cosine(word, other) for other in b.numpy()]
    return sum(first) / len(first) - sum(second) / len(second)


@pytest.mark.parametrize("m", [2, 3, 6])
def test_effect_and_p_value_against_the_formula_and_every_partition(m: int) -> None:
    x, y, a, b = vectors(m, 1), vectors(m, 2), vectors(4, 3), vectors(3, 4)
    s = [nearer(word, a, b) for word in torch.cat([x, y]).numpy()]
    effect = (np.mean(s[:m]) - np.mean(s[m:])) / np.std(s, ddof=1)
    sums = [sum(s[i] for i in part) for part in itertools.combinations(range(2 * m), m)]
    share = np.mean([value >= sum(s[:m]) - 1e-12 for value in sums])
    found = association(x, y, a, b)
    assert found.exact
    assert found.effect == pytest.approx(effect, abs=1e-12)
    assert found.p_value == pytest.approx(share, abs=1e-12)


def test_against_scipys_permutation_test() -> None:
    first, second = vectors(5, 5)[:, 0], vectors(6, 6)[:, 0] - 0.5

    def difference(u, v, axis=-1):
        return np.mean(u, axis=axis) - np.mean(v, axis=axis)

    for sides, alternative in (("greater", "greater"), ("two", "two-sided")):
        found = partition_test(first, second, sides=sides)
        theirs = stats.permutation_test(
            (first.numpy(), second.numpy()), difference, vectorized=True, alternative=alternative
        )
        if sides == "greater":
            assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12)
        else:  # theirs doubles the smaller tail, ours counts both ways of being as far
            assert found.p_value == pytest.approx(theirs.pvalue, abs=0.02)


def test_two_sides_count_partitions_as_far_either_way() -> None:
    first, second = vectors(4, 7)[:, 0], vectors(4, 8)[:, 0]
    values = torch.cat([first, second]).numpy()
    observed = abs(first.mean() - second.mean()).item()
    far = 0
    parts = list(itertools.combinations(range(8), 4))
    for part in parts:
        rest = [i for i in range(8) if i not in part]
        far += abs(values[list(part)].mean() - values[rest].mean()) >= observed - 1e-12
    assert partition_test(first, second, sides="two").p_value == pytest.approx(
        far / len(parts), abs=1e-12
    )


def test_a_planted_association_is_found_with_its_sign() -> None:
    toward_a, toward_b = torch.tensor([1.0, 0.0, 0, 0, 0]), torch.tensor([0, 1.0, 0, 0, 0])
    x = vectors(30, 9) * 0.3 + toward_a
    y = vectors(30, 10) * 0.3 + toward_b
    a, b = vectors(5, 11) * 0.1 + toward_a, vectors(5, 12) * 0.1 + toward_b
    found = association(x, y, a, b, samples=999)
    assert found.effect > 1.5 and found.p_value == 1 / 1000 and not found.exact
    reversed_ = association(y, x, a, b, samples=999)
    assert reversed_.effect == pytest.approx(-found.effect)
    assert reversed_.p_value > 0.99
    assert association(y, x, a, b, samples=999, sides="two").p_value == 1 / 1000


def test_projecting_the_direction_away_removes_the_association() -> None:
    toward = torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)
    x, y = vectors(8, 13) + toward, vectors(8, 14) - toward
    a, b = toward[None].repeat(3, 1), -toward[None].repeat(3, 1)
    assert association(x, y, a, b).effect > 1
    flat = torch.tensor([0, 1.0, 1, 1, 1], dtype=torch.float64)
    found = association(x * flat, y * flat, a, b)
    assert math.isnan(found.effect) and found.p_value == 1


def test_p_values_of_random_vectors_are_uniform() -> None:
    found = [
        association(*(vectors(4, 100 + 4 * i + part) for part in range(4))).p_value
        for i in range(200)
    ]
    assert stats.kstest(found, "uniform").statistic < 0.12


def test_drawn_partitions_agree_with_all_of_them() -> None:
    first, second = vectors(8, 17)[:, 0], vectors(8, 18)[:, 0] - 0.4
    exact = partition_test(first, second, samples=20_000)
    drawn = partition_test(first, second, samples=5000, seed=1)
    assert exact.exact and not drawn.exact
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.03)
    assert drawn == partition_test(first, second, samples=5000, seed=1)


def test_a_single_target_is_compared_over_its_attributes() -> None:
    word, a, b = vectors(1, 19)[0], vectors(4, 20), vectors(4, 21)
    near_a = [cosine(word.numpy(), v) for v in a.numpy()]
    near_b = [cosine(word.numpy(), v) for v in b.numpy()]
    effect = (np.mean(near_a) - np.mean(near_b)) / np.std(near_a + near_b, ddof=1)
    found = single_association(word, a, b)
    assert found.effect == pytest.approx(effect, abs=1e-12)


def test_messages_say_what_to_do() -> None:
    with pytest.raises(InputError, match=r"y is \[0, 5\]: each set must be \[count, width\]"):
        association(vectors(2, 0), vectors(0, 0), vectors(2, 0), vectors(2, 0))
    with pytest.raises(InputError, match=r"b is \[0, 5\]: each set must be \[count, width\]"):
        single_association(vectors(1, 0)[0], vectors(2, 0), vectors(0, 0))
    with pytest.raises(InputError, match=r"a is \[2, 3\]: each set must be .*one width for all"):
        single_association(vectors(1, 0)[0], vectors(2, 0)[:, :3], vectors(2, 0))
    with pytest.raises(InputError, match="two sets of finite numbers: leave broken ones out"):
        partition_test(torch.tensor([math.nan]), torch.ones(2))
