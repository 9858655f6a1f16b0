"""Each rule is transformers' processor of the same idea; chance keeps to the probabilities."""

import numpy as np
import pytest
import torch
from transformers import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sightline.generation import sampling
from sightline.generation.sampling import (
    draw,
    forbid_repeated_ngrams,
    keep_allowed,
    penalise_repetition,
    row_draws,
    shortlist,
)

INFINITE = float("-inf")


def scores(rows=5, vocabulary=40, seed=0):
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def history(rows=5, length=30, vocabulary=7, seed=1):
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
def test_repetition_penalty(penalty):
    logits, ids = scores(), history()
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    assert torch.equal(penalise_repetition(logits, ids, torch.full((5,), 30), penalty), expected)


def test_padding_is_not_penalised():
    logits, ids = scores(3), torch.tensor([[4, 5, 0, 0], [1, 2, 3, 0], [6, 0, 0, 0]])
    found = penalise_repetition(logits, ids, torch.tensor([2, 4, 0]), 2.0)
    changed = [row.nonzero()[:, 0].tolist() for row in found != logits]
    assert changed == [[4, 5], [0, 1, 2, 3], []]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_repeated_ngrams(size):
    for seed in range(8):
        logits, ids = scores(), history(vocabulary=3, length=2 + 4 * seed, seed=seed)
        expected = NoRepeatNGramLogitsProcessor(size)(ids, logits.clone())
        lengths = torch.full((5,), ids.shape[1])
        assert torch.equal(forbid_repeated_ngrams(logits, ids, lengths, size), expected)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repeated_ngrams_of_rows_of_unequal_lengths(size):
    logits, ids = scores(), history(vocabulary=3, length=12)
    lengths = torch.tensor([12, 7, 3, 1, 0])
    found = forbid_repeated_ngrams(logits, ids, lengths, size)
    for row, length in enumerate(lengths.tolist()):
        own, plain = ids[row : row + 1, :length], logits[row : row + 1]
        expected = NoRepeatNGramLogitsProcessor(size)(own, plain.clone()) if length else plain
        assert torch.equal(found[row : row + 1], expected), row


def kept(logits, top_k=None, top_p=None):
    """All scores of a vocabulary, -inf where a token is not on the shortlist."""
    likely, order = shortlist(logits, top_k, top_p)
    return torch.full_like(logits, INFINITE).scatter(1, order, likely)


@pytest.mark.parametrize("likely", [1, 8, 1024])
class TestShortlist:
    """Whether a few candidates are enough, more have to be taken, or all."""

    @pytest.fixture(autouse=True)
    def candidates(self, likely, monkeypatch):
        monkeypatch.setattr(sampling, "_LIKELY", likely)

    @pytest.mark.parametrize("k", [1, 2, 7, 40, 100])
    def test_top_k(self, k):
        logits = scores().round()  # with ties
        assert torch.equal(kept(logits, k), TopKLogitsWarper(k)(None, logits.clone()))

    @pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999, 1.0])
    def test_top_p(self, p):
        for seed in range(10):
            logits = scores(seed=seed)
            expected = TopPLogitsWarper(p)(None, logits.clone())
            assert torch.equal(kept(logits, top_p=p), expected)

    def test_top_p_after_top_k(self):
        logits = scores()
        expected = TopPLogitsWarper(0.8)(None, TopKLogitsWarper(6)(None, logits.clone()))
        assert torch.equal(kept(logits, 6, 0.8), expected)

    def test_the_best_stand_first(self):
        found, order = shortlist(scores(), 5, None)
        assert torch.equal(order[:, :5], scores().topk(5).indices)
        assert (found.diff(dim=1) <= 0).all()


def test_ids_without_a_score_are_passed_over():
    """A prompt's ids where pictures stand may lie outside of what can be written."""
    logits, outside = scores(1), torch.tensor([[3, 40, -200, 40, 3]])
    lengths = torch.tensor([5])
    found = penalise_repetition(logits, outside, lengths, 2.0)
    assert (found != logits).nonzero().tolist() == [[0, 3]]
    assert torch.equal(forbid_repeated_ngrams(logits, outside[:, :4], lengths - 1, 1)[0].isinf(),
                       torch.arange(40) == 3)  # fmt: skip
    assert torch.equal(forbid_repeated_ngrams(logits, outside, lengths, 2), logits)


def test_only_what_is_allowed_is_kept():
    allowed = torch.zeros(5, 40, dtype=torch.bool)
    allowed[:, 3] = True
    found = keep_allowed(scores(), allowed)
    assert found.isfinite().sum() == 5
    assert torch.equal(found[:, 3], scores()[:, 3])


@pytest.mark.parametrize("vocabulary", [12, 64, 130, 1000])
def test_chance_keeps_to_the_probabilities(vocabulary):
    """Numbers in equal steps give each token its share to the step; order is that of the ids."""
    count = 20000
    logits = scores(1, vocabulary).masked_fill(scores(1, vocabulary, seed=3) < -3, INFINITE)
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = draw(logits.expand(count, -1), grid)
    shares = np.bincount(drawn.numpy(), minlength=vocabulary) / count
    expected = logits[0].double().softmax(dim=0).numpy()
    assert np.abs(shares - expected).max() <= 1.01 / count
    assert (shares[expected == 0] == 0).all() and (expected == 0).any()
    assert (drawn.diff() >= 0).all()


@pytest.mark.parametrize("vocabulary", [5, 64, 128, 300])
def test_impossible_tokens_are_never_drawn(vocabulary):
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    for first in range(0, vocabulary - 3, 7):
        logits = torch.full((2, vocabulary), INFINITE)
        logits[:, first] = logits[:, first + 2] = 1e-3 * first
        assert draw(logits, ends).tolist() == [first, first + 2]


@pytest.mark.parametrize("vocabulary", [1, 100, 128, 1280])
def test_the_best_token_is_the_first_of_the_highest(vocabulary):
    scores = np.random.default_rng(0).integers(0, 9, (40, vocabulary)).astype(np.float32)
    scores[0], scores[1, :-1] = -np.inf, -np.inf  # nothing may follow; one token alone may
    found, ids = sampling.best(torch.from_numpy(scores))
    assert ids.tolist() == scores.argmax(axis=1).tolist()
    assert found.tolist() == scores.max(axis=1).tolist()
    scores[2, vocabulary // 2] = np.nan
    assert sampling.best(torch.from_numpy(scores))[0][2].isnan(), "which an answer reports"


def test_every_row_draws_the_same_numbers_whatever_its_neighbours():
    many = row_draws(5, 3, 40)
    assert torch.equal(many[2], row_draws(5, 1, 40)[0])
    assert torch.equal(many[:, :7], row_draws(5, 3, 7))  # a shorter answer begins the same
    assert not torch.equal(many, row_draws(6, 3, 40))
