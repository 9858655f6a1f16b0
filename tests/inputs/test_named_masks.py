"""Masks from words: names, names with a number, rows of numbers, and what is none of these."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFilter

from sightline.core.errors import ConfigError, SightlineError
from sightline.inputs.named_masks import MASKS, Mask, parse_filter, written


@pytest.mark.parametrize("name", [n for n in MASKS if n.startswith("pillow-") and "emb" not in n])
def test_numbers_are_pillows(name):
    theirs = getattr(ImageFilter, name.removeprefix("pillow-").upper().replace("-", "_"))
    size, scale, offset, numbers = theirs.filterargs
    (mask,) = MASKS[name]
    np.testing.assert_array_equal(mask.weights, np.reshape(numbers, size))
    assert (mask.divisor, mask.offset) == (scale, offset)


def test_the_printed_numbers():
    printed = {
        "sharpen": "0,-1,0;-1,5,-1;0,-1,0",
        "gaussian": "1,2,1;2,4,2;1,2,1/16",
        "laplacian": "0,1,0;1,-4,1;0,1,0",
        "edges": "-1,-1,-1;-1,8,-1;-1,-1,-1",
        "sobel-x": "-1,0,1;-2,0,2;-1,0,1",
        "sobel-y": "-1,-2,-1;0,0,0;1,2,1",
        "prewitt-x": "-1,0,1;-1,0,1;-1,0,1",
        "scharr-y": "-3,-10,-3;0,0,0;3,10,3",
        "blur": "1,1,1;1,1,1;1,1,1/9",
    }
    assert {name: written(MASKS[name][0]) for name in printed} == printed


@pytest.mark.parametrize("name", ["identity", "blur", "gaussian", "sharpen", "unsharp", "emboss"])
def test_brightness_is_kept(name):
    assert MASKS[name][0].total == 1


def test_rows_with_a_divisor_and_an_offset():
    (mask,) = parse_filter(" 1, 2 ,1;2,4,2;1,2,1 / 16 + 128 ").masks
    np.testing.assert_array_equal(mask.weights, [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert (mask.divisor, mask.offset) == (16, 128)
    (mask,) = parse_filter("1e-3,1e+2-5").masks
    np.testing.assert_array_equal(mask.weights, [[0.001, 100]])
    assert mask.offset == -5
    (mask,) = parse_filter("5").masks
    assert mask.shape == (1, 1)


def test_a_box_and_a_gaussian_of_any_size():
    assert parse_filter("box:4").masks[0].shape == (4, 4)
    assert parse_filter("gaussian:1.5").masks[0].shape == (13, 13)
    assert parse_filter("gaussian").masks[0].shape == (3, 3)
    assert parse_filter("gaussian:1.5").name == "gaussian:1.5"


def test_other_numbers_have_another_name():
    names = [parse_filter(text).name for text in ("1,2,1", "1,2,1/4", "1,2,1+4", "1;2;1", "1,2,3")]
    assert len(set(names)) == 5 and names[0].startswith("mask-1x3-")
    assert parse_filter("1.0, 2,+1").name == names[0]


@given(
    st.integers(1, 6), st.integers(1, 6), st.data(),
    st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-6), st.integers(-500, 500),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(rows, columns, data, divisor, offset):
    numbers = st.floats(-1e6, 1e6).map(lambda x: x if abs(x) > 1e-6 else 0.0)
    cells = data.draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    mask = Mask(np.reshape(cells, (rows, columns)), divisor, offset)
    (read,) = parse_filter(written(mask)).masks
    np.testing.assert_array_equal(read.weights, mask.weights)
    assert (read.divisor, read.offset) == (mask.divisor, mask.offset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty mask: give a name"),
        ("  ", "an empty mask: give a name"),
        ("sharpn", "unknown mask 'sharpn': did you mean 'sharpen'"),
        ("pillow", "unknown mask 'pillow'"),
        ("sharpen:3", "'sharpen' takes no number; box:5"),
        ("box:0", "box:0: the side of a box is a whole number from 1 to 201"),
        ("box:-3", "whole number from 1"),
        ("box:2.5", "whole number from 1"),
        ("box:", "whole number from 1"),
        ("box:99999999999999999999", "whole number from 1"),
        ("box:٣", "whole number from 1"),
        ("gaussian:nan", "number of pixels from 0.1 to 50"),
        ("gaussian:1e9", "number of pixels from 0.1 to 50"),
        ("gaussian:-1", "number of pixels from 0.1 to 50"),
        ("1,2;3", "row 2 of the mask has 1 numbers and row 1 has 2"),
        ("1,2;3,", "row 2 of the mask, place 2: nothing where a number"),
        (";", "nothing where a number is expected"),
        ("1,,2", "row 1 of the mask, place 2: nothing"),
        ("1,nan", "place 2: 'nan' where a number is expected"),
        ("inf,1", "place 1: 'inf' where a number"),
        ("1,1_0", "'1_0' where a number"),
        ("1,0x10", "'0x10' where a number"),
        ("1,2,1/0", "cannot be divided by 0"),
        ("1,2/3/4", "'2/3/4' where a number"),
        ("1/2,3", "'1/2' where a number"),
        ("1 2", "'1 2' where a number"),
        ("1,1e400", "'1e400' in the mask: numbers lie between"),
        ("1,1e-99", "numbers lie between"),
        ("1,2/1e-99", "numbers lie between"),
        ("1,2+1e9", "'\\+1e9' in the mask"),
        (",".join("1" * 34), "1 rows and 34 columns: at most 33"),
        (";".join("1" * 34), "34 rows and 1 columns: at most 33"),
        (",".join(["1"] * 10_000), "a mask of 19,999 letters: at most 33 rows"),
        ("x" * 300, "unknown mask 'xxxxxxxxxx"),
    ],
)
def test_hostile_text_is_one_clear_line(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_filter(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@given(st.text("0123456789.,;/+-eE nax:\n", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_filter_or_a_clear_refusal(text):
    try:
        masks = parse_filter(text).masks
    except SightlineError:
        return
    assert all(np.isfinite(mask.weights).all() for mask in masks)
