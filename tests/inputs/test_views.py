"""Boxes move as pixels do: drawn, moved, looked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sightline.core.errors import ConfigError, InputError
from sightline.core.outputs import Box, Detection, Segment
from sightline.inputs.views import View, whole

SIZE = (48, 64)


def drawn(box: Box) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red rectangle on black, and its mask."""
    x1, y1, x2, y2 = map(int, box)
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return np.where(mask[..., None], [255, 0, 0], [0, 0, 0]).astype(np.uint8), mask


def found(seen: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


@st.composite
def views(draw: st.DrawFn) -> View:
    x1, y1 = draw(st.integers(0, 40)), draw(st.integers(0, 30))
    x2, y2 = draw(st.integers(x1 + 8, SIZE[1])), draw(st.integers(y1 + 8, SIZE[0]))
    size = draw(st.integers(8, 150)), draw(st.integers(8, 150))
    return View((x1, y1, x2, y2), size, draw(st.booleans()))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, y1 = draw(st.integers(0, 56)), draw(st.integers(0, 40))
    x2, y2 = draw(st.integers(x1 + 4, SIZE[1])), draw(st.integers(y1 + 4, SIZE[0]))
    return float(x1), float(y1), float(x2), float(y2)


@settings(deadline=None, max_examples=200)
@given(views(), boxes())
def test_a_box_stays_around_the_pixels_that_it_was_around(view: View, box: Box) -> None:
    pixels, mask = drawn(box)
    moved = view.box(box)
    seen = view.pixels(pixels)[..., 0] >= 128
    assert seen.shape == view.size
    if moved is None:
        assert not seen.any()
        return
    assert 0 <= moved[0] < moved[2] <= view.size[1] and 0 <= moved[1] < moved[3] <= view.size[0]
    if min(moved[2] - moved[0], moved[3] - moved[1]) < 2:
        return  # resampling may leave nothing of a sliver
    assert np.abs(np.subtract(found(seen), moved)).max() <= 1
    assert np.abs(np.subtract(found(view.mask(mask)), moved)).max() <= 1


@settings(deadline=None)
@given(views(), boxes())
def test_what_was_found_goes_back_to_the_picture(view: View, box: Box) -> None:
    moved = view.box(box)
    if moved is None:
        return
    x1, y1, x2, y2 = view.window
    visible = max(box[0], x1), max(box[1], y1), min(box[2], x2), min(box[3], y2)
    assert view.original(moved) == pytest.approx(visible)


def test_mirrored_is_what_numpy_mirrors() -> None:
    box = (3.0, 5.0, 20.0, 30.0)
    pixels, mask = drawn(box)
    view = whole(SIZE, mirrored=True)
    assert np.array_equal(view.pixels(pixels), pixels[:, ::-1])
    assert np.array_equal(view.mask(mask), mask[:, ::-1])
    assert view.box(box) == (44, 5, 61, 30) == found(mask[:, ::-1])
    plain = whole(SIZE)
    assert np.array_equal(plain.pixels(pixels), pixels) and plain.box(box) == box


def test_boxes_that_were_not_mirrored_are_noticed() -> None:
    """The planted mistake: pixels mirrored, boxes left as they were."""
    box = (3.0, 5.0, 20.0, 30.0)
    pixels = whole(SIZE, mirrored=True).pixels(drawn(box)[0])
    assert found(pixels[..., 0] > 0) != box


def test_what_is_hardly_visible_is_dropped() -> None:
    inside, half, sliver, outside = (
        Detection("inside", 0.5, (12, 12, 20, 20)), Detection("half", None, (5, 10, 15, 20)),
        Detection("sliver", None, (1, 10, 11, 20)), Detection("outside", None, (0, 0, 5, 5)),
    )  # fmt: skip
    view = View((10, 10, 40, 40), (60, 60))
    things = [inside, half, sliver, outside]
    assert [seen.label for seen in view.located(things)] == ["inside", "half"]
    assert [seen.label for seen in view.located(things, visible=0)] == ["inside", "half", "sliver"]
    assert view.located(things)[1] == Detection("half", None, (0, 0, 10, 20))
    assert view.located([inside])[0].score == 0.5


def test_a_mask_counts_by_its_pixels_and_gets_a_box_around_what_is_left() -> None:
    """An L whose long arm is cut off: the old box, cut, would be far too large."""
    mask = np.zeros(SIZE, bool)
    mask[4:40, 4:8] = True
    mask[36:40, 4:60] = True
    thing = Segment("L", None, found(mask), mask)
    kept = View((0, 0, 20, 30), (30, 20)).located([thing])
    assert len(kept) == 1 and kept[0].box == (4, 4, 8, 30) == found(kept[0].mask)
    assert View((0, 0, 20, 30), (30, 20)).located([thing], visible=0.5) == []
    assert View((20, 0, 60, 30), (30, 40)).located([thing], visible=0) == []


def test_refusals() -> None:
    for window, size in (((5, 0, 5, 4), (4, 4)), ((-1, 0, 5, 4), (4, 4)), ((0, 0, 4, 4), (0, 4))):
        with pytest.raises(ConfigError, match="a view needs a window"):
            View(window, size)
    with pytest.raises(InputError, match="reaches beyond a picture of 64 x 48 pixels"):
        View((0, 0, 65, 48), (4, 4)).mask(np.zeros(SIZE, bool))
    with pytest.raises(ConfigError, match="from 0 to 1: 25"):
        whole(SIZE).located([], visible=25)
