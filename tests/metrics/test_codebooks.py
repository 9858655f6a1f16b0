"""Use of a codebook beside scipy's entropy."""

import numpy as np
import pytest
import torch

from sightline.metrics.codebooks import codebook_use

stats = pytest.importorskip("scipy.stats")  # comes with scikit-learn, of the test extra


def test_use_of_a_codebook_is_share_and_perplexity():
    indices = torch.tensor([[0, 0, 1], [1, 3, 0]])
    share, perplexity = codebook_use(indices, 8)
    assert share == pytest.approx(3 / 8)
    assert perplexity == pytest.approx(np.exp(stats.entropy([3, 2, 1])))
    assert codebook_use(torch.arange(8), 8) == pytest.approx((1.0, 8.0))
