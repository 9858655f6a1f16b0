"""What is drawn is where it should be, can be read, and can be told apart."""

from __future__ import annotations

import io
import math
import time
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.core.errors import ConfigError, ImageError
from sightline.core.outputs import Detection, Segment
from sightline.data.park import scene
from sightline.tasks.label_layout import place_labels
from sightline.tasks.marked import BLACK, COLOURS, WHITE, luminance, marked, marked_item
from sightline.tasks.report import Report
from sightline.tasks.sheets import INK, contact_sheet

GROUND = np.full((300, 400, 3), 128, np.uint8)


def pixels_of(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture)


def where(drawn: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The box around all pixels of a colour."""
    rows, columns = (drawn == colour).all(axis=-1).nonzero()
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def nameless(*boxes: Any) -> list[Detection]:
    return [Detection("", None, box) for box in boxes]


# Boxes and masks, by their pixels


def test_a_frame_lies_on_its_box() -> None:
    drawn = pixels_of(marked(np.full((500, 600, 3), 128, np.uint8), nameless((50, 40, 200, 160))))
    assert where(drawn, INK) == (50, 40, 200, 160)
    assert where(drawn, COLOURS[0]) == (51, 41, 199, 159)
    assert (drawn[60:140, 70:180] == 128).all()  # nothing inside
    outside = np.ones((500, 600), bool)
    outside[40:160, 50:200] = False
    assert (drawn[outside] == 128).all()


def test_small_pictures_are_enlarged_and_their_boxes_with_them() -> None:
    drawn = pixels_of(marked(np.full((64, 48, 3), 128, np.uint8), nameless((8, 16, 24, 40))))
    assert drawn.shape == (448, 336, 3)
    assert where(drawn, INK) == (8 * 7, 16 * 7, 24 * 7, 40 * 7)


def test_large_pictures_shrink_to_a_side_and_their_boxes_with_them() -> None:
    picture = np.full((1200, 1600, 3), 128, np.uint8)
    drawn = pixels_of(marked(picture, nameless((400, 400, 800, 800)), side=400))
    assert drawn.shape == (300, 400, 3) and where(drawn, INK) == (100, 100, 200, 200)
    assert marked(picture, []).size == (1600, 1200)


def test_a_mask_tints_its_pixels_and_no_others() -> None:
    mask = np.zeros((480, 640), bool)
    mask[100:300, 200:400] = True
    mask[150:200, 250:300] = False
    thing = Segment("", None, (200, 100, 400, 300), mask)
    drawn = pixels_of(marked(np.full((480, 640, 3), 128, np.uint8), [thing]))
    changed = (drawn != 128).any(axis=-1)
    assert np.array_equal(changed, mask)
    tint = (0.7 * 128 + 0.3 * np.array(COLOURS[0])).round()
    assert (drawn[250, 300] == tint).all()
    assert where(drawn, INK) == (200, 100, 400, 300)  # the outline, between dark lines


def test_masks_of_small_pictures_stay_on_their_pixels() -> None:
    park = scene(3)
    thing = park.objects[0]
    before = np.asarray(park.image).repeat(7, axis=0).repeat(7, axis=1)
    drawn = pixels_of(marked(np.asarray(park.image), [Segment("", None, thing.box, thing.mask)]))
    large = thing.mask.repeat(7, axis=0).repeat(7, axis=1)
    assert np.array_equal((drawn != before).any(axis=-1) & ~large, np.zeros_like(large))
    assert (drawn != before).any(axis=-1)[large].mean() > 0.95


def test_small_things_lie_on_top_of_large_ones() -> None:
    small, large = (
        Detection("a", None, (100, 100, 140, 140)),
        Detection("b", None, (0, 0, 300, 300)),
    )
    for things in ([small, large], [large, small]):
        drawn = pixels_of(marked(np.full((480, 480, 3), 128, np.uint8), things))
        colour = COLOURS[[thing.label for thing in things].index("a")]
        assert tuple(drawn[101, 120]) == colour


# Colours


def seen(colour: tuple[int, int, int], kind: str) -> np.ndarray:
    """CIE L*a*b* of a colour as a colour-blind person sees it (Machado et al. 2009, complete)."""
    matrices = {
        "all": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                   [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
    }  # fmt: skip
    values = np.array(colour) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = (np.array(matrices[kind]) @ linear).clip(0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    share = np.array(to_xyz) @ linear / [0.9505, 1, 1.089]
    f = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", ["all", "protan", "deutan", "tritan"])
def test_colours_differ_for_everyone(kind: str) -> None:
    """A difference of 2.3 is just noticeable side by side; red and green of equal lightness, the
    mistake to be caught, come closer than that bound here."""
    distances = [
        float(np.linalg.norm(seen(one, kind) - seen(other, kind)))
        for one, other in combinations(COLOURS, 2)
    ]
    assert min(distances) > 10


def test_red_and_green_would_not_do() -> None:
    red, green = (200, 60, 60), (100, 115, 30)
    assert np.linalg.norm(seen(red, "all") - seen(green, "all")) > 50
    assert np.linalg.norm(seen(red, "deutan") - seen(green, "deutan")) < 20


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_line_is_visible_on_any_ground() -> None:
    """3 : 1 is what WCAG asks of drawings; the line is its colour beside a dark one."""
    assert contrast(WHITE, (0, 0, 0)) == pytest.approx(21)
    for colour in COLOURS:
        assert contrast(colour, INK) >= 3
        for grey in range(256):
            ground = (grey, grey, grey)
            assert max(contrast(colour, ground), contrast(INK, ground)) >= 1.7


def test_letters_can_be_read_on_every_colour() -> None:
    for place, colour in enumerate(COLOURS):
        things = [Detection(str(n), None, (n, 0, n, 0)) for n in range(place)]
        things.append(Detection("M" * 5, None, (300, 200, 400, 300)))
        drawn = pixels_of(marked(np.full((600, 800, 3), 128, np.uint8), things))
        x1, y1, x2, _ = where(drawn, colour)
        tag = drawn[y1 : y1 + 16, x1:x2].reshape(-1, 3)
        best = max(
            contrast(colour, ink) for ink in (BLACK, WHITE) if (tag == ink).all(axis=1).sum() > 10
        )
        assert best >= 4.5


def test_a_label_keeps_its_colour_and_the_eighth_has_a_thread() -> None:
    boxes = [(20 + 60 * n, 20, 70 + 60 * n, 100) for n in range(8)]
    things = [Detection(f"\u200b{n}", None, box) for n, box in enumerate(boxes)]
    drawn = pixels_of(marked(np.full((200, 640, 3), 128, np.uint8), [*things, things[0]]))
    first, eighth = drawn[60, 20:32], drawn[60, 440:452]
    assert (first == COLOURS[0]).all(axis=-1).any() and (eighth == COLOURS[0]).all(axis=-1).any()
    assert not (first == WHITE).all(axis=-1).any() and (eighth == WHITE).all(axis=-1).any()


# Labels


RECTANGLES = st.tuples(st.integers(0, 380), st.integers(0, 280)).flatmap(
    lambda corner: st.tuples(
        st.just(corner[0]), st.just(corner[1]),
        st.integers(corner[0] + 1, 400), st.integers(corner[1] + 1, 300),
    )
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(RECTANGLES, max_size=12), st.integers(10, 90), st.integers(8, 20))
def test_labels_stay_inside_and_hide_no_other(boxes: list[Any], wide: int, high: int) -> None:
    sizes = [(wide, high)] * len(boxes)
    corners = place_labels(boxes, sizes, (400, 300))
    seen_ = np.zeros((300, 400), int)
    for x, y in corners:
        assert 0 <= x <= 400 - wide and 0 <= y <= 300 - high
        seen_[y : y + high, x : x + wide] += 1
    assert seen_.max(initial=0) <= 1


def test_the_place_above_is_taken_first_and_beside_where_there_is_no_room() -> None:
    assert place_labels([(100, 100, 200, 200)], [(50, 20)], (400, 300)) == [(100, 80)]
    assert place_labels([(100, 5, 200, 200)], [(50, 20)], (400, 300)) == [(100, 200)]
    whole = place_labels([(0, 0, 400, 300)], [(50, 20)], (400, 300))
    assert whole == [(0, 0)]  # nowhere but on it
    assert place_labels([(10, 10, 20, 20)], [(500, 20)], (400, 300))[0][0] == 0  # too wide
    assert place_labels([], [], (400, 300)) == []


def test_twenty_things_at_one_place_keep_twenty_labels() -> None:
    corners = place_labels([(190, 140, 210, 160)] * 20, [(60, 20)] * 20, (400, 300))
    tags = [(x, y, x + 60, y + 20) for x, y in corners]
    for one, other in combinations(tags, 2):
        assert min(one[2], other[2]) <= max(one[0], other[0]) or min(one[3], other[3]) <= max(
            one[1], other[1]
        )


@pytest.mark.parametrize(
    "label",
    ["", " ", "two\nlines\r\n", "\x00\x1b[31m", "\u202e", "\ud800", "\U0001f600", "x" * 5000,
     "猫", "<b>&", "é\u0301"],
)  # fmt: skip
def test_any_label_can_be_drawn(label: str) -> None:
    picture = marked(GROUND, [Detection(label, 0.5, (10, 10, 60, 60))])
    assert picture.size == (400, 300)


@pytest.mark.parametrize(
    "box",
    [(math.nan, 0, 5, 5), (0, 0, math.inf, 5), (-500, -500, 900, 900), (900, 900, 950, 950),
     (60, 60, 10, 10), (5, 5, 5, 5), (0, 0, 400, 300), (1e308, 0, 1e308, 5)],
)  # fmt: skip
def test_any_box_can_be_drawn(box: Any) -> None:
    drawn = pixels_of(marked(GROUND, [Detection("cat", 0.5, box)]))
    assert drawn.shape == GROUND.shape
    if not all(map(math.isfinite, box)):
        assert (drawn == 128).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (31, 33)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    mask = np.ones(size, bool)
    things = [Detection("cat", 0.5, (0, 0, 1, 1)), Segment("dog", None, (0, 0, 1, 1), mask)]
    assert max(marked(pixels, things).size) >= 400 or max(size) == 500


def test_three_hundred_things_take_seconds_at_most() -> None:
    dice = np.random.default_rng(0)
    things = []
    for place in range(300):
        x, y = dice.uniform(0, 1180), dice.uniform(0, 780)
        things.append(Detection(f"thing {place % 30}", 0.5, (x, y, x + 20, y + 20)))
    begun = time.process_time()
    marked(np.zeros((800, 1200, 3), np.uint8), things)
    assert time.process_time() - begun < 20  # under two here


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="a side of at least 32 pixels: 5"):
        marked(GROUND, [], side=5)
    with pytest.raises(ImageError, match="pixels must be a numpy array uint8"):
        marked(GROUND.astype(np.float32), [])  # type: ignore[arg-type]


# Sheets, reports and files


def test_cells_of_sheets_and_reports() -> None:
    park = scene(4)
    things = [Detection(thing.name, None, thing.box) for thing in park.objects]
    item = marked_item(park.image, things, park.caption, side=220)
    assert item.caption == park.caption and max(item.image.size) <= 220
    sheet = contact_sheet([item, item], "Found", thumbnail=220)
    assert (np.asarray(sheet) == COLOURS[0]).all(axis=-1).any()  # not resampled on the way
    assert "data:image/png" in Report("Found").gallery([item]).html()
    file = io.BytesIO()
    marked(np.asarray(park.image), things).save(file, format="PNG")
    assert file.getvalue().startswith(b"\x89PNG")
