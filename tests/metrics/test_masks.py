"""Masks against the COCO tools and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pycocotools import mask as coco
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from sightline.core.errors import InputError
from sightline.metrics.masks import (
    Overlap,
    confusion,
    mask_scores,
    overlap,
    semantic_scores,
)


def drawn(seed: int) -> np.ndarray:
    dice = np.random.default_rng(seed)
    mask = np.zeros((40, 50), bool)
    top, left = dice.integers(0, 20, 2)
    mask[top : top + dice.integers(1, 25), left : left + dice.integers(1, 25)] = True
    return mask


def test_overlap_is_that_of_the_coco_tools() -> None:
    for seed in range(20):
        first, second = drawn(seed), drawn(seed + 100)
        packed = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in (first, second)]
        theirs = coco.iou(packed[:1], packed[1:], [0])[0, 0]
        assert overlap(first, second).iou == pytest.approx(theirs, abs=1e-12)


def test_the_two_numbers_called_iou_differ() -> None:
    """A large thing that fits and a small one that does not."""
    scores = mask_scores([Overlap(90, 100), Overlap(1, 10)])
    assert scores.mean_iou == pytest.approx((0.9 + 0.1) / 2)
    assert scores.overall_iou == pytest.approx(91 / 110)
    assert scores.precision == {0.5: 0.5, 0.6: 0.5, 0.7: 0.5, 0.8: 0.5, 0.9: 0.5}
    assert mask_scores([Overlap(5, 10)]).precision[0.5] == 1  # a threshold is reached


def test_an_answer_without_mask_is_empty_and_stays_in_the_mean() -> None:
    truth = drawn(3)
    assert overlap(None, truth) == Overlap(0, int(truth.sum()))
    assert overlap(np.zeros_like(truth), np.zeros_like(truth)).iou == 0
    full = mask_scores([overlap(truth, truth)])
    less = mask_scores([overlap(truth, truth), overlap(None, truth)])
    assert full.mean_iou == full.overall_iou == 1 and less.mean_iou == less.overall_iou == 0.5
    assert math.isnan(mask_scores([]).mean_iou) and math.isnan(mask_scores([]).precision[0.5])
    assert mask_scores([Overlap(0, 0)]).overall_iou == 0


def maps(seed: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    truth = dice.integers(0, classes - 1, (30, 40)).astype(np.uint8)  # the last class never occurs
    predicted = np.where(
        dice.random((30, 40)) < 0.6, truth, dice.integers(0, classes - 1, (30, 40))
    )
    truth[dice.random((30, 40)) < 0.1] = 255
    return predicted.astype(np.uint8), truth


def test_semantic_scores_are_those_of_scikit_learn() -> None:
    pictures = [maps(seed) for seed in range(4)]
    scores = semantic_scores(sum(confusion(p, t, 5) for p, t in pictures))  # type: ignore[arg-type]
    truth = np.concatenate([t[t != 255] for _, t in pictures])
    predicted = np.concatenate([p[t != 255] for p, t in pictures])
    theirs = jaccard_score(truth, predicted, labels=range(4), average=None)
    assert np.abs(scores.per_class[:4] - theirs).max() < 1e-12 and math.isnan(scores.per_class[4])
    assert scores.mean_iou == pytest.approx(theirs.mean(), abs=1e-12)
    assert scores.pixel_accuracy == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    recalls = recall_score(truth, predicted, labels=range(4), average="macro")
    assert scores.mean_accuracy == pytest.approx(recalls, abs=1e-12)


def test_pixels_that_nobody_labelled_do_not_count_and_found_nonsense_does() -> None:
    truth = np.array([[0, 0, 1, 255]])
    scores = semantic_scores(confusion(np.array([[0, 255, 1, 0]]), truth, 2))
    assert scores.per_class.tolist() == [0.5, 1.0]  # 255 was found where 0 is: wrong
    assert scores.pixel_accuracy == pytest.approx(2 / 3)
    all_count = confusion(np.array([[0, 1]]), np.array([[0, 1]]), 2, ignored=None)
    assert all_count.tolist() == [[1, 0, 0], [0, 1, 0]]
    nothing = semantic_scores(np.zeros((3, 4), np.int64))
    assert math.isnan(nothing.mean_iou) and math.isnan(nothing.pixel_accuracy)


def test_refusals() -> None:
    mask = drawn(0)
    with pytest.raises(InputError, match=r"bool\[40, 49\] and bool\[40, 50\] arrived"):
        overlap(mask[:, 1:], mask)
    with pytest.raises(InputError, match=r"uint8\[40, 50\] and bool"):
        overlap(mask.astype(np.uint8), mask)
    with pytest.raises(InputError, match="the truth has a class 7; there are 5"):
        confusion(np.array([[1]]), np.array([[7]]), 5)
    with pytest.raises(InputError, match="two maps of classes are whole numbers"):
        confusion(np.array([[1.0]]), np.array([[1]]), 5)
