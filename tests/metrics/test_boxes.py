"""Overlaps against the COCO tools and counted pixels; matching against trying everything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from sightline.core.errors import InputError
from sightline.core.outputs import Box, Detection
from sightline.metrics.boxes import Counts, areas, count, iou, match, total
from sightline.metrics.grounding import grounding

WHOLE = st.integers(-3, 12)
BOXES = st.tuples(WHOLE, WHOLE, WHOLE, WHOLE)


def counted(box: Box) -> np.ndarray:
    """The pixels of a box, one by one."""
    seen = np.zeros((20, 20), bool)
    for x in range(-3, 12):
        for y in range(-3, 12):
            seen[y + 3, x + 3] = box[0] <= x < box[2] and box[1] <= y < box[3]
    return seen


@settings(deadline=None)
@given(BOXES, BOXES)
def test_overlap_is_that_of_counted_pixels(first: Box, second: Box) -> None:
    """Turned over, empty, touching and inside each other included."""
    one, other = counted(first), counted(second)
    union = (one | other).sum()
    want = (one & other).sum() / union if union else 0.0
    assert iou(first, second) == pytest.approx(want, abs=1e-9)
    assert areas(first) == one.sum()


def test_shapes_broadcast_and_agree_with_the_coco_tools() -> None:
    dice = np.random.default_rng(0)
    first = dice.uniform(0, 100, (7, 4))
    second = dice.uniform(0, 100, (5, 4))
    for boxes in (first, second):
        boxes[:, 2:] += boxes[:, :2]
    pairs = iou(first[:, None], second)

    def sized(boxes: np.ndarray) -> np.ndarray:
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    theirs = coco.iou(sized(first), sized(second), [0] * 5)
    assert pairs.shape == (7, 5) and np.abs(pairs - theirs).max() < 1e-12
    assert iou(first, first).tolist() == pytest.approx([1.0] * 7)


def test_what_is_not_finite_overlaps_nothing() -> None:
    good = (0, 0, 4, 4)
    for wrong in ((0, 0, math.inf, 4), (0, 0, math.nan, 4), (-math.inf, 0, math.inf, 4),
                  (0, 0, 1e308, 1e308)):  # fmt: skip
        assert iou(good, wrong) == 0


@pytest.mark.parametrize("wrong", [[1, 2, 3], 4, ["a", "b", "c", "d"], [True] * 4, [[1] * 5]])
def test_what_is_no_box_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="boxes are numbers"):
        iou(wrong, wrong)


def thing(x: float, label: str = "cat", score: float | None = None, width: float = 10) -> Detection:
    return Detection(label, score, (x, 0, x + width, 10))


def test_the_highest_score_chooses_first() -> None:
    truth = [thing(0), thing(8)]
    # The unsure one fits the first thing better, but the sure one takes it.
    assert match(truth, [thing(0, score=0.1), thing(3, score=0.9)]) == [None, 0]
    assert match(truth, [thing(0, score=0.9), thing(3, score=0.1)]) == [0, None]
    assert match(truth, [thing(0, score=0.5), thing(1, score=0.5)]) == [0, None]  # in order
    assert match(truth, [thing(0), thing(9)]) == [0, 1]


def test_each_thing_is_found_once_and_within_its_label() -> None:
    assert match([thing(0)], [thing(0, score=0.9), thing(0, score=0.8)]) == [0, None]
    assert match([thing(0, "cat")], [thing(0, "dog", 0.9)]) == [None]
    assert match([], [thing(0)]) == [None] and match([thing(0)], []) == []
    assert match([thing(0)], [thing(5, score=0.5)]) == [None]  # a third
    assert match([thing(0)], [thing(5, score=0.5)], threshold=1 / 3) == [0]


def test_a_score_that_is_not_finite_comes_last() -> None:
    for score in (math.nan, math.inf):
        assert match([thing(0)], [thing(0, score=score), thing(1, score=-5.0)]) == [None, 0]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), max_size=5),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1), st.integers(0, 3)), max_size=5),
)
def test_matching_is_what_the_rule_says(truth: list[Any], found: list[Any]) -> None:
    """The rule once more, in the simplest words."""
    there = [thing(x, str(label)) for x, label in truth]
    seen = [thing(x, str(label), float(score)) for x, label, score in found]
    want: list[int | None] = [None] * len(seen)
    for place in sorted(range(len(seen)), key=lambda i: (-(seen[i].score or 0), i)):
        best, most = None, 0.5
        for other, each in enumerate(there):
            fits = float(iou(each.box, seen[place].box))
            if each.label == seen[place].label and other not in want and fits >= most:
                if best is None or fits > most:
                    best, most = other, fits
        want[place] = best
    assert match(there, seen) == want
    counts = count(there, seen)
    assert counts == Counts(sum(w is not None for w in want), len(seen), len(there))


def test_precision_recall_and_f1() -> None:
    both = total([Counts(1, 2, 1), Counts(1, 2, 4), Counts(0, 0, 0)])
    assert both == Counts(2, 4, 5)
    assert (both.precision, both.recall) == (0.5, 0.4)
    assert both.f1 == pytest.approx(2 * 0.5 * 0.4 / 0.9)
    nothing, missed, invented = Counts(0, 0, 0), Counts(0, 0, 3), Counts(0, 3, 0)
    assert all(math.isnan(v) for v in (nothing.precision, nothing.recall, nothing.f1))
    for wrong in (missed, invented):
        assert (wrong.precision, wrong.recall, wrong.f1) == (0, 0, 0)
    assert total([]) == nothing


@pytest.mark.parametrize("threshold", [0, -1, 1.5, math.nan])
def test_a_threshold_is_a_share(threshold: float) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        match([], [], threshold)


# Referring expressions


def test_grounding_counts_every_expression() -> None:
    truth = [(0.0, 0.0, 10.0, 10.0)] * 4
    predicted = [(0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 5.0), (0.0, 0.0, 10.0, 8.0), None]
    scores = grounding(predicted, truth)
    assert scores.ious.tolist() == pytest.approx([1, 0.5, 0.8, 0])
    assert scores.accuracy == {0.5: 0.75, 0.7: 0.5, 0.9: 0.25}
    assert scores.mean_iou == pytest.approx(2.3 / 4)
    assert scores.unparsed == 1


def test_an_answer_that_was_not_understood_never_helps() -> None:
    dice = np.random.default_rng(1)
    boxes = [(*corner, *(corner + dice.uniform(1, 9, 2))) for corner in dice.uniform(0, 9, (20, 2))]
    truth = [tuple(map(float, box)) for box in boxes]
    shifted = [(x1 + 1, y1, x2 + 1, y2) for x1, y1, x2, y2 in truth]
    full = grounding(shifted, truth)
    for place in range(20):
        fewer = grounding([*shifted[:place], None, *shifted[place + 1 :]], truth)
        assert fewer.mean_iou <= full.mean_iou
        assert all(fewer.accuracy[each] <= full.accuracy[each] for each in full.accuracy)
    order = dice.permutation(20)
    mixed = grounding([shifted[i] for i in order], [truth[i] for i in order])
    assert mixed.mean_iou == pytest.approx(full.mean_iou) and mixed.accuracy == full.accuracy


def test_empty_boxes_score_nothing_and_no_expressions_score_nan() -> None:
    assert grounding([(5, 5, 5, 5), (9, 9, 1, 1)], [(5, 5, 5, 5), (1, 1, 9, 9)]).mean_iou == 0
    assert math.isnan(grounding([], []).mean_iou) and math.isnan(grounding([], []).accuracy[0.5])
    with pytest.raises(InputError, match="1 answers and 0 true boxes"):
        grounding([None], [])
