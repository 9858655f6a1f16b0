"""Numbers of places against the published processors, and what holds for any box."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor
from transformers.models.fuyu.processing_fuyu import (
    scale_bbox_to_transformed_image,
    scale_point_to_transformed_image,
)

from sightline.core.errors import InputError
from sightline.core.outputs import Box
from sightline.inputs.coordinates import FLORENCE2, FUYU, PALIGEMMA, Convention, clipped

EXACT = [PALIGEMMA, *(dataclasses.replace(each, cut_to=0) for each in (FLORENCE2, FUYU))]
ALL = [PALIGEMMA, FLORENCE2, FUYU, *EXACT[1:]]
SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
by_name = pytest.mark.parametrize("convention", ALL, ids=lambda c: f"{c.name}-{c.cut_to}")


@st.composite
def boxes(draw: st.DrawFn, beyond: float = 0.0) -> tuple[Box, tuple[int, int]]:
    height, width = draw(SIZES)
    share = st.floats(-beyond, 1 + beyond)
    x1, x2 = sorted((draw(share) * width, draw(share) * width))
    y1, y2 = sorted((draw(share) * height, draw(share) * height))
    return (x1, y1, x2, y2), (height, width)


@by_name
@settings(deadline=None)
@given(boxes())
def test_a_box_comes_back_within_half_a_step(
    convention: Convention, drawn: tuple[Box, tuple[int, int]]
) -> None:
    box, size = drawn
    back = convention.decode(convention.encode(box, size), size)
    for axis, (given_value, read) in enumerate(zip(box, back, strict=True)):
        half = convention.step(size)[1 - axis % 2] / 2
        # What is cut to whole pixels may lose as much again, towards 0.
        assert -half - convention.cut_to - 1e-9 <= read - given_value <= half + 1e-9


@by_name
@settings(deadline=None)
@given(boxes(beyond=2.0))
def test_nothing_ever_lies_outside_of_the_picture(
    convention: Convention, drawn: tuple[Box, tuple[int, int]]
) -> None:
    box, (height, width) = drawn
    numbers = convention.encode(box, (height, width))
    assert all(0 <= number < convention.count for number in numbers)
    assert convention.in_range(numbers, convention.order, (height, width))
    x1, y1, x2, y2 = convention.decode(numbers, (height, width))
    assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height
    assert all(isinstance(value, float) for value in (x1, y1, x2, y2))


@pytest.mark.parametrize("convention", EXACT, ids=lambda c: c.name)
@settings(deadline=None)
@given(SIZES, st.integers(0, 1023))
def test_every_number_comes_back_as_itself(
    convention: Convention, size: tuple[int, int], number: int
) -> None:
    number = min(number, *convention.largest(size))
    numbers = (number,) * 4
    assert convention.encode(convention.decode(numbers, size), size) == numbers


@settings(deadline=None)
@given(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)))
def test_paligemma_numbers_shares_as_big_vision_does(shares: tuple[float, ...]) -> None:
    """`pp/proj/paligemma/segmentation.py`: clip(round(box * 1023)), its box in y x y x."""
    x1, x2 = sorted(shares[:2])
    y1, y2 = sorted(shares[2:])
    box = (x1 * 4096, y1 * 2048, x2 * 4096, y2 * 2048)  # powers of two: the shares stay exact
    theirs = np.clip(np.round(np.array([y1, x1, y2, x2]) * 1023), 0, 1023).astype(int)
    assert PALIGEMMA.encode(box, (2048, 4096)) == tuple(theirs)
    back = theirs / 1023 * [2048, 4096, 2048, 4096]  # the evaluator's way back
    assert PALIGEMMA.decode(theirs.tolist(), (2048, 4096)) == tuple(back[[1, 0, 3, 2]])


def test_the_whole_picture_stays_the_whole_picture() -> None:
    for width in range(1, 2000, 7):
        numbers = PALIGEMMA.encode((0, 0, width, 5), (5, width))
        assert numbers == (0, 0, 1023, 1023)
        assert PALIGEMMA.decode(numbers, (5, width)) == (0, 0, width, 5)


@settings(deadline=None)
@given(boxes(beyond=0.5))
def test_florence_numbers_are_those_of_its_processor(drawn: tuple[Box, tuple[int, int]]) -> None:
    box, (height, width) = drawn
    theirs = Florence2PostProcessor.__new__(Florence2PostProcessor)
    theirs.quantize_bins = (1000, 1000)
    wide = torch.tensor([box], dtype=torch.float64)
    numbers = theirs.quantize(wide, (width, height))
    assert FLORENCE2.encode(box, (height, width)) == tuple(numbers[0].tolist())
    exact = numbers.double()
    back = theirs.dequantize(exact, (width, height))[0].tolist()
    assert FLORENCE2.decode(numbers[0].tolist(), (height, width)) == tuple(back)
    points = [(box[0], box[1]), (box[2], box[3])]
    corners = theirs.quantize(wide.view(2, 2), (width, height)).flatten().tolist()
    assert FLORENCE2.encode_points(points, (height, width)) == tuple(corners)


@pytest.mark.parametrize(("side", "changed"), [(640, 640), (768, 608), (1001, 499), (1920, 0)])
def test_whole_pixels_do_not_come_back_as_the_same_numbers(side: int, changed: int) -> None:
    """Counted once outside with the published code; middles of bins always do (tested above)."""
    size = (side, side)
    found = sum(
        FLORENCE2.encode(FLORENCE2.decode((n,) * 4, size), size) != (n,) * 4 for n in range(1000)
    )
    assert found == changed


@settings(deadline=None)
@given(boxes())
def test_fuyu_numbers_are_those_of_its_processor(drawn: tuple[Box, tuple[int, int]]) -> None:
    (x1, y1, x2, y2), (height, width) = drawn
    scale = min(1.0, 1080 / height, 1920 / width)
    theirs = scale_bbox_to_transformed_image(y1, x1, y2, x2, scale)
    ours = FUYU.encode((x1, y1, x2, y2), (height, width))
    assert np.abs(np.subtract(ours, theirs)).max() <= 1  # a half, multiplied in another order
    if scale == 1:
        assert ours == tuple(theirs)
        assert FUYU.encode_points([(x1, y1)], (height, width)) == tuple(
            scale_point_to_transformed_image(x1, y1, 1.0)
        )
        back = [2 * int(float(number)) for number in theirs]
        limits = [height, width, height, width]
        top, left, bottom, right = (min(v, m) for v, m in zip(back, limits, strict=True))
        assert FUYU.decode(theirs, (height, width)) == (left, top, right, bottom)


def test_a_large_picture_is_numbered_as_it_is_shrunk() -> None:
    assert FUYU.encode((0, 0, 3840, 2160), (2160, 3840)) == (0, 0, 540, 960)
    assert FUYU.decode((0, 0, 540, 960), (2160, 3840)) == (0, 0, 3840, 2160)
    assert FUYU.step((2160, 3840)) == (4, 4) and FUYU.step((300, 300)) == (2, 2)


def test_another_family_s_order_is_another_box() -> None:
    """The mistake to be caught: the same numbers read with x and y exchanged."""
    box, size = (100.0, 20.0, 300.0, 90.0), (200, 400)
    swapped = dataclasses.replace(PALIGEMMA, order=("x1", "y1", "x2", "y2"))
    numbers = PALIGEMMA.encode(box, size)
    assert PALIGEMMA.decode(numbers, size) == pytest.approx(box, abs=0.5)
    assert swapped.decode(numbers, size) != pytest.approx(box, abs=5)


def test_the_divisor_of_demonstrations_ends_before_the_edge() -> None:
    demo = dataclasses.replace(PALIGEMMA, divisor=1024)
    assert demo.encode((0, 0, 1024, 1024), (1024, 1024)) == (0, 0, 1023, 1023)
    assert demo.decode((0, 0, 1023, 1023), (1024, 1024)) == (0, 0, 1023, 1023)


def test_polygons_go_there_and_back() -> None:
    polygon = [(10.0, 20.0), (300.0, 25.0), (150.0, 190.0)]
    for convention in EXACT:
        numbers = convention.encode_points(polygon, (200, 400))
        back = convention.decode_points(numbers, (200, 400))
        assert (
            np.abs(np.subtract(back, polygon)).max() <= max(convention.step((200, 400))) / 2 + 1e-9
        )
    assert PALIGEMMA.encode_points([(400, 0)], (200, 400)) == (0, 1023)  # y first
    assert PALIGEMMA.spelled((0, 1023)) == "<loc0000><loc1023>"
    assert FLORENCE2.spelled((0, 999)) == "<loc_0><loc_999>"


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((1, 2, 3), "4 finite numbers are needed"),
        ((1, 2, 3, float("nan")), "4 finite numbers are needed"),
        ((1, 2, 3, float("inf")), "4 finite numbers are needed"),
        ((3, 2, 1, 4), "x1 <= x2 and y1 <= y2"),
        ((1, 4, 3, 2), "x1 <= x2 and y1 <= y2"),
    ],
)
def test_what_is_no_box_is_refused(box: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        PALIGEMMA.encode(box, (10, 10))


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="at least one pixel"):
        PALIGEMMA.encode((0, 0, 1, 1), (0, 10))
    with pytest.raises(InputError, match="points take two numbers each, 3 arrived"):
        PALIGEMMA.decode_points((1, 2, 3), (10, 10))
    with pytest.raises(InputError, match="must name each of x1, y1, x2, y2 once"):
        dataclasses.replace(PALIGEMMA, order=("x1", "y1", "x2", "x2"))
    assert clipped((-5, 2, 30, 40), (10, 20)) == (0, 2, 20, 10)
