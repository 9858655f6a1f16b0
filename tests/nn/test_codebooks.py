"""Codebooks: rounding beside scikit-learn's, gradients, running means beside their formula."""

import numpy as np
import pytest
import torch

from sightline.nn.codebooks import Codebook, CodebookAverage, straight_through

neighbors = pytest.importorskip("sklearn.neighbors")  # the reference; part of the test extra


def book(count=7, width=5, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Codebook(count, width)


def features(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_nearest_codeword_is_that_of_a_nearest_neighbour_search():
    codebook, x = book(50, 8), features(6, 40, 8)
    found = codebook.nearest(x)
    search = neighbors.NearestNeighbors(n_neighbors=1, algorithm="brute")
    expected = search.fit(codebook.vectors.detach()).kneighbors(
        x.flatten(0, 1), return_distance=False
    )
    assert np.array_equal(found.flatten(), expected[:, 0])
    longest = (x @ codebook.vectors.T).argmax(dim=-1)  # the known mistake: no lengths
    assert not torch.equal(longest, found)


def test_of_equal_codewords_the_first_is_taken_and_half_precision_is_widened():
    codebook = book()
    with torch.no_grad():
        codebook.vectors[4] = codebook.vectors[1]
    x = codebook.vectors[1] + 0.01
    assert int(codebook.nearest(x)) == 1
    assert int(codebook.nearest(x.bfloat16())) == 1
    assert not codebook.nearest(x).requires_grad


def test_the_gradient_goes_past_the_rounding_and_its_value_does_not():
    codebook, x = book(), features(3, 5).requires_grad_()
    codewords = codebook.look_up(codebook.nearest(x))
    passed = straight_through(x, codewords)
    assert torch.allclose(passed, codewords, atol=1e-6)
    weights = features(3, 5, seed=2)
    (passed * weights).sum().backward()
    assert torch.equal(x.grad, weights)
    assert codebook.vectors.grad is None


def test_running_means_follow_their_formula():
    """Appendix A.1 in plain loops, over three batches in which every codeword is used."""
    codebook = book(4, 3)
    average = CodebookAverage(codebook, decay=0.9, revive_below=0.0)
    counts, sums = np.zeros(4), np.zeros((4, 3))
    for seed in range(3):
        x = features(40, 3, seed=seed)
        indices = torch.arange(40) % 4
        assert average.update(codebook, x, indices) == 0
        for word in range(4):
            own = x[indices == word].numpy()
            counts[word] = 0.9 * counts[word] + 0.1 * len(own)
            sums[word] = 0.9 * sums[word] + 0.1 * own.sum(axis=0)
        smoothed = (counts + 1e-5) / (counts.sum() + 4e-5) * counts.sum()
        gap = np.abs(codebook.vectors.detach().numpy() - sums / smoothed[:, None]).max()
        assert gap <= 1e-5


def test_codewords_out_of_use_move_to_features_and_stay_there():
    codebook = book(16, 3)
    with torch.no_grad():
        codebook.vectors[2:] += 1000  # nothing is ever near them
    average, x = CodebookAverage(codebook), features(200, 3)
    generator = torch.Generator().manual_seed(0)
    moved = average.update(codebook, x, codebook.nearest(x), generator)
    assert moved >= 14
    distances = torch.cdist(codebook.vectors.detach()[2:], x).min(dim=1).values
    assert distances.max() < 1e-5
    for _ in range(20):
        average.update(codebook, x, codebook.nearest(x), generator)
    assert len(codebook.nearest(x).unique()) >= 14
    dead = CodebookAverage(other := book(16, 3), revive_below=0.0)  # the control
    with torch.no_grad():
        other.vectors[2:] += 1000
    for _ in range(20):
        dead.update(other, x, other.nearest(x))
    assert len(other.nearest(x).unique()) < 14


def test_counts_are_smoothed_so_that_no_codeword_divides_by_nothing():
    """Where counts are hardly more than the smoothing itself."""
    codebook = book(4, 3)
    average = CodebookAverage(codebook, decay=0.9999, revive_below=0.0)
    x = features(10, 3)
    indices = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    average.update(codebook, x, indices)
    counts = torch.bincount(indices).double() * 1e-4
    sums = torch.zeros(4, 3, dtype=torch.float64).index_add(0, indices, x.double()) * 1e-4
    share = (counts + 1e-5) / (counts.sum() + 4 * 1e-5)
    expected = sums / (share * counts.sum())[:, None]
    torch.testing.assert_close(codebook.vectors.double(), expected, rtol=1e-3, atol=1e-5)


def test_out_of_use_is_measured_by_what_the_others_are_used():
    codebook = book(4, 3)
    average = CodebookAverage(codebook, decay=0.5, revive_below=0.02)
    x = features(100, 3)
    assert average.update(codebook, x, torch.tensor([3, *([0, 1, 2] * 33)])) == 0
    assert average.update(codebook, x, torch.tensor([0, *([0, 1, 2] * 33)])) == 1


def test_an_average_is_kept_with_the_network():
    codebook = book()
    average = CodebookAverage(codebook)
    x = features(30, 5)
    average.update(codebook, x, codebook.nearest(x), torch.Generator().manual_seed(0))
    assert set(average.state_dict()) == {"counts", "sums"}
    assert average.counts.sum() > 0
