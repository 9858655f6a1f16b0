"""Polygons against the COCO tools: every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from sightline.core.errors import DataError
from sightline.inputs import polygons

# The tools' arrays predate NumPy 2's `copy` keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PLACE = st.floats(-20, 60, width=32) | st.integers(-20, 60).map(float) | st.sampled_from([0.5, 9.7])
POLYGON = st.lists(st.tuples(PLACE, PLACE), min_size=3, max_size=12).map(
    lambda corners: [value for corner in corners for value in corner]
)


def theirs(outlines: list[list[float]], height: int, width: int) -> NDArray[np.bool_]:
    # As single polygons: of a list, the tools take one with four numbers for a box.
    parts = [coco.frPyObjects([outline], height, width)[0] for outline in outlines]
    return coco.decode(coco.merge(parts)).astype(bool)


def inside_only(outline: list[float]) -> bool:
    """Where the tools divide 0 by 0: a corner twice. What C makes of it is not defined."""
    corners = (np.array(outline).reshape(-1, 2) * 5 + 0.5).astype(int)
    return bool((corners != np.roll(corners, -1, axis=0)).any(axis=1).all())


@settings(deadline=None, max_examples=400, derandomize=True)  # rounding of ties is the compiler's
@given(POLYGON.filter(inside_only), st.integers(1, 45), st.integers(1, 45))
@example([0.0, 0, 10, 0, 10, 10, 0, 10], 10, 10)
@example([2.5, 2.5, 7.5, 2.5, 7.5, 7.5], 10, 10)
@example([-8.0, 3, 30, -9, 12, 41, 5, 5], 20, 30)
def test_every_pixel_is_that_of_the_coco_tools(
    outline: list[float], height: int, width: int
) -> None:
    ours = polygons.fill([outline], height, width)
    assert ours.shape == (height, width) and ours.dtype == bool
    assert np.array_equal(ours, theirs([outline], height, width))


@pytest.mark.parametrize("seed", range(10))
def test_real_sizes_and_many_corners(seed: int) -> None:
    dice = np.random.default_rng(seed)
    outlines = []
    for _ in range(4):
        angle = np.sort(dice.uniform(0, 2 * np.pi, dice.integers(3, 200)))
        radius = dice.uniform(20, 300, len(angle))
        centre = dice.uniform(0, 640, 2)
        corners = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        outlines.append(corners.round(2).ravel().tolist())
    assert np.array_equal(polygons.fill(outlines, 480, 640), theirs(outlines, 480, 640))


def test_a_corner_written_twice_changes_nothing() -> None:
    plain = [3.0, 4, 20, 6, 15, 25]
    twice = [3.0, 4, 3, 4, 20, 6, 15, 25, 15, 25]
    assert np.array_equal(polygons.fill([twice], 30, 30), polygons.fill([plain], 30, 30))


def test_boxes_on_whole_pixels_are_filled_exactly() -> None:
    mask = polygons.fill([[2, 3, 7, 3, 7, 9, 2, 9]], 12, 12)
    want = np.zeros((12, 12), bool)
    want[3:9, 2:7] = True
    assert np.array_equal(mask, want)


def test_this_is_not_what_pillow_fills() -> None:
    """The mistake that would pass unseen: Pillow's own rule sets the far edges too."""
    corners = [2, 3, 7, 3, 7, 9, 2, 9]
    picture = Image.new("1", (12, 12))
    ImageDraw.Draw(picture).polygon(corners, fill=1)
    assert not np.array_equal(np.asarray(picture), theirs([corners], 12, 12))


def test_no_polygon_covers_nothing_and_two_are_united() -> None:
    assert not polygons.fill([], 3, 4).any()
    one, other = [0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]
    both = polygons.fill([one, other], 8, 8)
    assert both[3, 3] and both.sum() == 16 + 16 - 4  # what both cover stays covered


@pytest.mark.parametrize(
    ("outlines", "words"),
    [
        ([[1, 2, 3, 4]], "polygon 1 must be numbers .* of at least three corners"),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]], "polygon 2 must be numbers"),
        ([1, 2, 3, 4, 5, 6], "polygon 1 must be numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "polygon 1 must be numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], "polygon 1 must be numbers"),
        ([[[1, 2], 3, 4, 5, 6, 7]], "polygon 1 must be numbers"),
        ([[1, 2, 3, 4, 5, None]], "polygon 1 must be numbers"),
        ([[True, False, True, True, False, False]], "polygon 1 must be numbers"),
        ([{}], "polygon 1 must be numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not a number within 16,384 pixels"),
        ([[1, 2, 3, 4, 5, float("inf")]], "not a number within 16,384 pixels"),
        ([[1, 2, 3, 4, 5, 1e300]], "not a number within 16,384 pixels"),
        ([[1, 2, 3, 4, 5, 10**400]], "polygon 1 must be numbers"),
        ([[0, 0, 16_000, 16_000] * 100], "outline of polygon 1 is 3,200,000 pixels long"),
        ("0 0 4 4", "must be a list of lists"),
        (None, "must be a list of lists"),
        ({"x": 1}, "must be a list of lists"),
    ],
)  # fmt: skip
def test_what_is_no_polygon_is_one_clear_error(outlines: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        polygons.fill(outlines, 10, 10)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (100_000, 100_000)])
def test_a_mask_has_a_possible_size(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="is not possible"):
        polygons.fill([[0, 0, 4, 0, 4, 4]], *size)
