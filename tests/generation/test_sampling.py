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
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    row_draws,
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
    assert torch.equal(penalise_repetition(logits, ids, ids >= 0, penalty), expected)


def test_padding_is_not_penalised():
    logits, ids = scores(2), torch.tensor([[4, 5, 0, 0], [1, 2, 3, 0]])
    own = torch.tensor([[True, True, False, False], [True, True, True, True]])
    found = penalise_repetition(logits, ids, own, 2.0)
    assert found[0, 0] == logits[0, 0]
    assert found[1, 0] != logits[1, 0]


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


@pytest.mark.parametrize("k", [1, 2, 7, 40, 100])
def test_top_k(k):
    logits = scores().round()  # with ties
    assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(k)(None, logits.clone()))


@pytest.mark.parametrize("likely", [1, 8, 1024])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999, 1.0])
def test_top_p(p, likely, monkeypatch):
    """Whether the nucleus is found among a few candidates or in the sorted vocabulary."""
    monkeypatch.setattr(sampling, "_LIKELY", likely)
    for seed in range(10):
        logits = scores(seed=seed)
        assert torch.equal(keep_top_p(logits, p), TopPLogitsWarper(p)(None, logits.clone()))


def test_top_p_after_top_k():
    logits = keep_top_k(scores(), 6)
    assert torch.equal(keep_top_p(logits, 0.8), TopPLogitsWarper(0.8)(None, logits.clone()))


def test_only_what_is_allowed_is_kept():
    allowed = torch.zeros(5, 40, dtype=torch.bool)
    allowed[:, 3] = True
    found = keep_allowed(scores(), allowed)
    assert found.isfinite().sum() == 5
    assert torch.equal(found[:, 3], scores()[:, 3])


def test_chance_keeps_to_the_probabilities():
    logits = keep_top_k(scores(1, 12), 9)
    grid = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    drawn = draw(logits.expand(20000, -1), grid)
    shares = np.bincount(drawn.numpy(), minlength=12) / 20000
    expected = logits[0].double().softmax(dim=0).numpy()
    assert np.abs(shares - expected).max() <= 1.01 / 20000


def test_impossible_tokens_are_never_drawn():
    logits = torch.tensor([[INFINITE, 0.0, INFINITE, 0.0, INFINITE]])
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits.expand(2, -1), ends).tolist() == [1, 3]


def test_every_row_draws_the_same_numbers_whatever_its_neighbours():
    many = row_draws(5, 3, 40)
    assert torch.equal(many[2], row_draws(5, 1, 40)[0])
    assert torch.equal(many[:, :7], row_draws(5, 3, 7))  # a shorter answer begins the same
    assert not torch.equal(many, row_draws(6, 3, 40))
