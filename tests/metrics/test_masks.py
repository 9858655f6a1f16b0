"""Overlap of masks beside scikit-learn's, use of a codebook beside scipy's entropy."""

import numpy as np
import pytest
import torch

from sightline.core.errors import InputError
from sightline.metrics.masks import codebook_use, mask_iou

metrics = pytest.importorskip("sklearn.metrics")  # the reference; part of the test extra
stats = pytest.importorskip("scipy.stats")  # comes with scikit-learn


def test_overlap_is_the_jaccard_index():
    dice = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        one, other = dice.random((2, 13, 17)) < share
        expected = metrics.jaccard_score(one.ravel(), other.ravel())
        assert mask_iou(one, other) == pytest.approx(expected, abs=1e-12)


def test_empty_masks_agree_and_one_empty_mask_does_not():
    empty, full = np.zeros((3, 3), np.bool_), np.ones((3, 3), np.bool_)
    assert (mask_iou(empty, empty), mask_iou(empty, full)) == (1.0, 0.0)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match=r"bool\[3, 3\] and bool\[3, 4\] arrived"):
        mask_iou(np.ones((3, 3), np.bool_), np.ones((3, 4), np.bool_))
    with pytest.raises(InputError, match=r"uint8\[3, 3\]"):
        mask_iou(np.ones((3, 3), np.uint8), np.ones((3, 3), np.bool_))


def test_use_of_a_codebook_is_share_and_perplexity():
    indices = torch.tensor([[0, 0, 1], [1, 3, 0]])
    share, perplexity = codebook_use(indices, 8)
    assert share == pytest.approx(3 / 8)
    assert perplexity == pytest.approx(np.exp(stats.entropy([3, 2, 1])))
    assert codebook_use(torch.arange(8), 8) == pytest.approx((1.0, 8.0))
