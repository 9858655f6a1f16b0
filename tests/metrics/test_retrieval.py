"""Ranks and what is made of them, against loops written the slow way."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score
from torch import Tensor

from sightline.core.errors import InputError
from sightline.metrics.retrieval import (
    Ranking,
    best_ranks,
    hit_at_k,
    mean_average_precision_at_r,
    mean_reciprocal_rank,
    median_rank,
    rank_embeddings,
    worst_case_top,
)


def slow_rank(scores: list[float], positives: list[bool]) -> float:
    right = [s for s, p in zip(scores, positives, strict=True) if p and math.isfinite(s)]
    if not right:
        return math.inf
    wrong = [s for s, p in zip(scores, positives, strict=True) if not p]
    return 1 + sum(not math.isfinite(s) or s >= max(right) for s in wrong)


def slow_precision_at_r(scores: list[float], positives: list[bool]) -> float:
    def key(i: int) -> tuple[float, bool]:
        bad = not math.isfinite(scores[i])
        score = (-math.inf if positives[i] else math.inf) if bad else scores[i]
        return (-score, positives[i])

    order = sorted(range(len(scores)), key=key)
    right = sum(positives)
    total, found = 0.0, 0
    for place, i in enumerate(order[:right], start=1):
        if positives[i] and math.isfinite(scores[i]):
            found += 1
            total += found / place
    return total / right if right else 0.0


@st.composite
def rankings(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    queries, candidates = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    size = queries * candidates
    value = st.sampled_from([-2.0, -1.0, -0.5, 0.0, -0.0, 0.25, 1.0, 3.0, math.nan, math.inf])
    scores = draw(st.lists(value, min_size=size, max_size=size))
    positives = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    shape = (queries, candidates)
    return torch.tensor(scores).view(shape), torch.tensor(positives).view(shape)


@given(rankings())
@settings(max_examples=150, deadline=None)
def test_ranks_equal_the_loop_with_ties_and_broken_scores(case: tuple[Tensor, Tensor]) -> None:
    scores, positives = case
    expected = [slow_rank(*row) for row in zip(scores.tolist(), positives.tolist(), strict=True)]
    assert best_ranks(scores, positives).tolist() == expected


@given(rankings(), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_embeddings_are_ranked_as_their_scores(case: tuple[Tensor, Tensor], chunk: int) -> None:
    scores, positives = case
    # Finite scores only: an identity times an infinite embedding would spread NaN to its row.
    scores = scores.nan_to_num(0.5, posinf=0.5)
    found = rank_embeddings(
        torch.eye(len(scores)), scores.T.contiguous(), positives.nonzero(), keep=3, chunk=chunk
    )
    rows = list(zip(scores.tolist(), positives.tolist(), strict=True))
    assert found.ranks.tolist() == [slow_rank(*row) for row in rows]
    torch.testing.assert_close(
        found.precision_at_r,
        torch.tensor([slow_precision_at_r(*row) for row in rows], dtype=torch.float64),
    )


def multi_caption(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(23, 8, generator=generator)
    owner = torch.arange(23).repeat_interleave(5)
    texts = images[owner] + torch.randn(115, 8, generator=generator)
    pairs = torch.stack([owner, torch.arange(115)], dim=1)
    return images / images.norm(dim=1, keepdim=True), texts / texts.norm(dim=1, keepdim=True), pairs


@pytest.mark.parametrize("chunk", [1, 7, 23, 1000])
def test_chunks_change_nothing(chunk: int) -> None:
    images, texts, pairs = multi_caption()
    whole = rank_embeddings(images, texts, pairs, chunk=10_000)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole, rank_embeddings(images, texts, pairs, chunk=chunk), strict=True)
    )


def test_any_of_several_captions_is_a_hit() -> None:
    images, texts, pairs = multi_caption()
    found = rank_embeddings(images, texts, pairs)
    order = (images @ texts.T).argsort(dim=1, descending=True)
    for k in (1, 5, 10):
        hits = [(order[i, :k] // 5 == i).any().item() for i in range(23)]
        averaged = sum((order[i, :k] // 5 == i).sum().item() / 5 for i in range(23)) / 23
        assert hit_at_k(found.ranks, k) == pytest.approx(sum(hits) / 23)
        assert hit_at_k(found.ranks, k) > averaged  # the mistake to plant: recall of captions


def test_reciprocal_rank_equals_scikit_learn_for_single_answers() -> None:
    scores = torch.randint(0, 6, (40, 9), generator=torch.Generator().manual_seed(1)).double()
    positives = torch.eye(9, dtype=torch.bool)[torch.arange(40) % 9]
    expected = label_ranking_average_precision_score(positives.numpy(), scores.numpy())
    assert mean_reciprocal_rank(best_ranks(scores, positives)) == pytest.approx(expected)


def scores_of(found: Ranking) -> tuple[float, float, float, float]:
    return (
        hit_at_k(found.ranks, 1),
        median_rank(found.ranks),
        mean_reciprocal_rank(found.ranks),
        mean_average_precision_at_r(found),
    )


def test_perfect_is_one_and_constant_is_last() -> None:
    same = torch.arange(12)[:, None].expand(12, 2)
    assert scores_of(rank_embeddings(torch.eye(12), torch.eye(12), same)) == (1, 1, 1, 1)
    collapsed = torch.full((12, 3), 3**-0.5)
    assert scores_of(rank_embeddings(collapsed, collapsed, same)) == (
        0,
        12,
        pytest.approx(1 / 12),
        0,
    )


def test_nan_is_worst_on_either_side() -> None:
    same = torch.arange(4)[:, None].expand(4, 2)
    broken = torch.eye(4)
    broken[0] = math.nan
    as_query = rank_embeddings(broken, torch.eye(4), same)
    assert as_query.ranks.tolist() == [math.inf, 1, 1, 1]
    assert as_query.invalid.tolist() == [True, False, False, False]
    as_candidate = rank_embeddings(torch.eye(4), broken, same)
    assert as_candidate.ranks.tolist() == [math.inf, 2, 2, 2]
    assert hit_at_k(as_query.ranks, 1000) == 0.75


def test_a_query_without_a_right_candidate_is_never_a_hit() -> None:
    found = rank_embeddings(torch.eye(2), torch.eye(2), torch.tensor([[0, 0]]))
    assert found.ranks.tolist() == [1, math.inf]
    assert hit_at_k(found.ranks, 5) == 0.5
    assert found.precision_at_r.tolist() == [1, 0]


def test_equal_candidates_tie_however_the_product_is_tiled() -> None:
    generator = torch.Generator().manual_seed(2)
    one = torch.nn.functional.normalize(torch.randn(1, 517, generator=generator), dim=1)
    queries = torch.nn.functional.normalize(torch.randn(33, 517, generator=generator), dim=1)
    pairs = torch.stack([torch.arange(33), torch.arange(33)], dim=1)
    found = rank_embeddings(queries, one.expand(129, -1).contiguous(), pairs, chunk=5)
    assert found.ranks.tolist() == [129.0] * 33


def test_order_of_the_data_changes_nothing() -> None:
    images, texts, pairs = multi_caption()
    generator = torch.Generator().manual_seed(3)
    moved = torch.randperm(115, generator=generator)
    place = moved.argsort()
    shuffled = torch.stack([pairs[:, 0], place[pairs[:, 1]]], dim=1)
    a = rank_embeddings(images, texts, pairs)
    b = rank_embeddings(images, texts[moved], shuffled[torch.randperm(115, generator=generator)])
    assert torch.equal(a.ranks, b.ranks)
    assert torch.equal(a.top, moved[b.top])


def test_median_of_an_even_number_is_the_middle() -> None:
    assert median_rank(torch.tensor([1.0, 2.0, 4.0, 100.0])) == 3
    assert median_rank(torch.tensor([1.0, math.inf, math.inf])) == math.inf


def test_no_query_is_nan() -> None:
    found = rank_embeddings(torch.zeros(0, 3), torch.zeros(4, 3), torch.zeros(0, 2).long())
    assert all(math.isnan(value) for value in scores_of(found))
    assert found.top.shape == (0, 4)


def test_no_candidate_is_never_a_hit() -> None:
    found = rank_embeddings(torch.zeros(3, 2), torch.zeros(0, 2), torch.zeros(0, 2).long())
    assert found.ranks.tolist() == [math.inf] * 3


def test_messages_name_what_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"scores are \[2, 3\] and positives \[3, 2\]"):
        best_ranks(torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="the same width"):
        rank_embeddings(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(0, 2).long())
    with pytest.raises(InputError, match=r"they must be \[count, 2\]"):
        rank_embeddings(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2).long())
    with pytest.raises(InputError, match=r"pair \(1, 2\) names what is not there"):
        rank_embeddings(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([[0, 0], [1, 2]]))


def test_zeros_of_either_sign_tie() -> None:
    wrong, right = [False], [True]
    for scores in ([[0.0, -0.0]], [[-0.0, 0.0]]):
        positives = torch.tensor([wrong + right])
        assert worst_case_top(torch.tensor(scores), positives, 2).tolist() == [[0, 1]]
        assert best_ranks(torch.tensor(scores), positives).tolist() == [2]
