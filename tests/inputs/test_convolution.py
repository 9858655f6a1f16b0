"""Masks over pictures: the printed formula, its laws, and scipy, numpy and Pillow as witnesses."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage, signal

from sightline.core.errors import ConfigError, ImageError
from sightline.inputs import convolution
from sightline.inputs.convolution import apply_filter, convolve, correlate, filter_picture
from sightline.inputs.filter_masks import Filter, Mask
from sightline.inputs.grey_levels import as_picture, to_grey
from sightline.inputs.named_masks import MASKS, box, gaussian, parse_filter

LINEAR = {name: masks[0] for name, masks in MASKS.items() if len(masks) == 1}
SHAPES = [(1, 1), (3, 3), (1, 4), (2, 2), (4, 3), (5, 2), (7, 7), (6, 9)]
PADDED = {"reflect": "reflect", "edge": "edge", "zero": "constant", "wrap": "wrap"}


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def picture(height=24, width=31, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def delta(side=15):
    dot = np.zeros((side, side), np.uint8)
    dot[side // 2, side // 2] = 1
    return dot


def around_the_dot(answer, mask):
    """The part of an answer to `delta` that a mask of that size covers, its centre on the dot."""
    middle = len(answer) // 2
    (rows, columns), (up, left) = mask.shape, mask.centre
    return answer[middle - up : middle - up + rows, middle - left : middle - left + columns]


def by_loops(pixels, mask, border, turned=True):
    """The formula as it is printed, one pixel at a time."""
    (rows, columns), (cy, cx) = mask.shape, mask.centre
    pad = rows + columns
    wide = np.pad(pixels.astype(float), pad, PADDED[border])
    answer = np.zeros(pixels.shape)
    sign = -1 if turned else 1
    for y, x in np.ndindex(*pixels.shape):
        for u, v in np.ndindex(rows, columns):
            place = (pad + y + sign * (u - cy), pad + x + sign * (v - cx))
            answer[y, x] += mask.weights[u, v] * wide[place]
    return answer / mask.divisor + mask.offset


# The formula


@pytest.mark.parametrize("name", LINEAR)
def test_a_bright_pixel_becomes_the_mask(name):
    mask = LINEAR[name]
    answer = convolve(delta(), mask)
    expected = mask.weights / mask.divisor + mask.offset
    np.testing.assert_allclose(around_the_dot(answer, mask), expected, atol=1e-5)
    assert np.count_nonzero(answer - mask.offset) == np.count_nonzero(mask.weights)


@pytest.mark.parametrize("name", LINEAR)
def test_correlation_gives_the_mask_turned(name):
    mask = LINEAR[name]
    expected = mask.weights[::-1, ::-1] / mask.divisor + mask.offset
    np.testing.assert_allclose(around_the_dot(correlate(delta(), mask), mask), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["sobel-x", "sobel-y", "prewitt-x", "scharr-y", "emboss"])
def test_forgetting_to_turn_the_mask_is_noticed(name):
    answer = around_the_dot(correlate(delta(), LINEAR[name]), LINEAR[name])
    assert np.abs(answer - LINEAR[name].weights).max() > 1


def test_the_sign_of_an_edge():
    """Brighter to the right: positive under Sobel's mask as printed, negative once it is turned."""
    ramp = np.tile(np.arange(12.0), (9, 1))
    assert correlate(ramp, LINEAR["sobel-x"])[4, 5] == 8
    assert convolve(ramp, LINEAR["sobel-x"])[4, 5] == -8
    assert convolve(ramp, LINEAR["sobel-y"])[4, 5] == 0


@pytest.mark.parametrize("border", PADDED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_size_equals_the_formula_over_numpys_padding(shape, border):
    pixels, mask = random(9, 11), Mask(random(*shape, seed=2), 3.0, 0.5)
    np.testing.assert_allclose(convolve(pixels, mask, border), by_loops(pixels, mask, border))
    turned = by_loops(pixels, mask, border, turned=False)
    np.testing.assert_allclose(correlate(pixels, mask, border), turned)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scipy_agrees(shape):
    pixels, weights = random(13, 10), random(*shape, seed=3)
    for mode, border in (("same", "zero"), ("valid", "valid")):
        expected = signal.convolve2d(pixels, weights, mode)
        np.testing.assert_allclose(convolve(pixels, weights, border), expected, atol=1e-12)
    expected = signal.correlate2d(pixels, weights, "valid")
    np.testing.assert_allclose(correlate(pixels, weights, "valid"), expected, atol=1e-12)


def test_a_mask_larger_than_the_picture():
    pixels, mask = random(3, 2), Mask(random(9, 7, seed=4))
    for border in PADDED:
        np.testing.assert_allclose(convolve(pixels, mask, border), by_loops(pixels, mask, border))
    np.testing.assert_array_equal(convolve(pixels, mask, "keep"), pixels)
    with pytest.raises(ConfigError, match="mask of 9x7 does not fit into a picture of 3x2"):
        convolve(pixels, mask, "valid")


# Laws


@pytest.mark.parametrize("name", LINEAR)
def test_a_flat_picture_is_scaled_by_the_sum_of_the_mask(name):
    mask = LINEAR[name]
    for border in ("reflect", "edge", "wrap", "valid"):
        answer = convolve(np.full((8, 9), 100, np.uint8), mask, border)
        np.testing.assert_allclose(answer, 100 * mask.total + mask.offset, rtol=1e-6, atol=1e-4)


def test_linear():
    a, b, mask = random(9, 8, 3), random(9, 8, 3, seed=5), random(3, 5, seed=6)
    both = convolve(2 * a - 3 * b, mask)
    np.testing.assert_allclose(both, 2 * convolve(a, mask) - 3 * convolve(b, mask), atol=1e-12)


def test_the_order_of_two_convolutions_does_not_matter():
    pixels, first, second = random(16, 18), random(3, 3, seed=7), random(5, 5, seed=8)
    one = convolve(convolve(pixels, first), second)[4:-4, 4:-4]
    other = convolve(convolve(pixels, second), first)[4:-4, 4:-4]
    np.testing.assert_allclose(one, other, atol=1e-12)
    at_once = convolve(pixels, signal.convolve2d(first, second))[4:-4, 4:-4]
    np.testing.assert_allclose(one, at_once, atol=1e-12)


def test_two_correlations_are_one_with_their_convolution():
    """Where the turned and the plain form differ: correlations do not chain by correlating."""
    pixels, first, second = random(16, 18), random(3, 3, seed=7), random(3, 3, seed=8)
    one = correlate(correlate(pixels, first), second)[4:-4, 4:-4]
    at_once = correlate(pixels, signal.convolve2d(first, second))[4:-4, 4:-4]
    np.testing.assert_allclose(one, at_once, atol=1e-12)


@pytest.mark.parametrize("mask", [gaussian(1.3), box(7), box(6)], ids=["gaussian", "box", "even"])
def test_a_product_of_two_lines_is_two_passes(mask):
    column = mask.weights[:, len(mask.weights) // 2][:, None]
    row = mask.weights[len(mask.weights) // 2][None]
    pixels = random(30, 26)
    twice = convolve(convolve(pixels, column), row / mask.divisor)
    np.testing.assert_allclose(convolve(pixels, mask), twice, atol=1e-12)
    np.testing.assert_allclose(
        convolve(pixels, mask, "zero"),
        signal.convolve2d(pixels, mask.weights / mask.divisor, "same"),
        atol=1e-12,
    )


def test_a_shifted_picture_gives_a_shifted_answer():
    pixels, mask = random(14, 15), random(4, 3, seed=9)
    moved = np.roll(pixels, (3, -2), axis=(0, 1))
    answer = np.roll(convolve(pixels, mask, "wrap"), (3, -2), axis=(0, 1))
    np.testing.assert_allclose(convolve(moved, mask, "wrap"), answer, atol=1e-12)


def test_channels_do_not_mix():
    pixels = picture()
    answer = convolve(pixels, LINEAR["sharpen"])
    for channel in range(3):
        alone = convolve(pixels[:, :, channel], LINEAR["sharpen"])
        np.testing.assert_array_equal(answer[:, :, channel], alone)


# Witnesses


@pytest.mark.parametrize("name", [name for name in MASKS if name.startswith("pillow-")])
def test_pillows_own_filters(name):
    """Equal to the pixel, its untouched border included.

    Pillow divides the mask by 6 or 100 beforehand, so that its exact halves fall either way.
    """
    theirs = getattr(ImageFilter, name.removeprefix("pillow-").upper().replace("-", "_"))
    pixels = picture(40, 47)
    expected = np.asarray(Image.fromarray(pixels).filter(theirs)).astype(int)
    answer = convolve(pixels, MASKS[name][0], "keep")
    halves = np.isclose(answer % 1, 0.5, atol=1e-4) & (MASKS[name][0].divisor in (6, 100))
    difference = np.abs(as_picture(answer) - expected)
    assert difference[~halves].max() == 0 and difference.max() <= 1
    assert halves.mean() < 0.2


def test_pillow_turns_a_mask_in_its_own_way():
    """Its emboss is neither of the two forms: the printed numbers, as a convolution, differ."""
    pixels = picture()
    size, scale, offset, numbers = ImageFilter.EMBOSS.filterargs
    printed = Mask(np.reshape(numbers, size), scale, offset)
    expected = np.asarray(Image.fromarray(pixels).filter(ImageFilter.EMBOSS))
    for form in (convolve, correlate):
        assert (as_picture(form(pixels, printed, "keep")) != expected).mean() > 0.5


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.7])
def test_gaussians_are_scipys(sigma):
    pixels = random(60, 50)
    expected = ndimage.gaussian_filter(pixels, sigma, mode="mirror", truncate=4.0)
    np.testing.assert_allclose(convolve(pixels, gaussian(sigma)), expected, atol=1e-12)
    assert gaussian(sigma).total == pytest.approx(1)


@pytest.mark.parametrize("name", ["sobel", "prewitt"])
def test_gradients_are_scipys(name):
    pixels = random(12, 13)
    parts = [getattr(ndimage, name)(pixels, axis, mode="mirror") for axis in (0, 1)]
    np.testing.assert_allclose(
        apply_filter(pixels, parse_filter(name)), np.hypot(*parts), atol=1e-12
    )


def test_grey_is_pillows():
    pixels = picture()
    np.testing.assert_array_equal(to_grey(pixels), Image.fromarray(pixels).convert("L"))


# Types, ranges and sizes


def test_numbers_keep_their_range_and_width():
    pixels = picture()
    of_bytes = convolve(pixels, LINEAR["unsharp"])
    of_ones = convolve((pixels / 255).astype(np.float32), LINEAR["unsharp"])
    assert of_bytes.dtype == of_ones.dtype == np.float32
    assert convolve(pixels.astype(float), LINEAR["blur"]).dtype == np.float64
    np.testing.assert_allclose(of_bytes / 255, of_ones, atol=1e-5)
    blurred = convolve((pixels / 255).astype(np.float32), LINEAR["blur"])
    np.testing.assert_array_equal(
        as_picture(blurred, full=1.0), as_picture(convolve(pixels, LINEAR["blur"]))
    )
    np.testing.assert_array_equal(convolve(pixels, LINEAR["identity"]), pixels)


def test_a_pixel_that_is_no_number_stays_within_the_mask():
    pixels = random(9, 9)
    pixels[4, 4] = np.nan
    answer = convolve(pixels, LINEAR["laplacian"])
    assert np.isnan(answer).sum() == 5
    assert as_picture(answer)[4, 4] == 0


@pytest.mark.parametrize("border", ["reflect", "edge", "zero", "wrap", "valid", "keep"])
def test_strips_leave_no_seam(border, monkeypatch):
    pixels = picture(61, 9)
    for chosen in ("edges", "sobel", "box:6", "1,2;3,4;5,6"):
        whole = apply_filter(pixels, parse_filter(chosen), border)
        monkeypatch.setattr(convolution, "_STRIP", 100)
        np.testing.assert_allclose(
            apply_filter(pixels, parse_filter(chosen), border), whole, atol=1e-4
        )
        drawn, ends = filter_picture(pixels, parse_filter(chosen), border)
        np.testing.assert_array_equal(drawn, as_picture(whole))
        assert ends == (pytest.approx(whole.min()), pytest.approx(whole.max()))
        monkeypatch.undo()


def test_memory_is_that_of_the_picture():
    pixels = np.zeros((900, 800, 3), np.uint8)
    for name in ("sharpen", "sobel", "gaussian:6"):
        tracemalloc.start()
        filter_picture(pixels, parse_filter(name))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 * pixels.nbytes + 8e6, name


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("clip", [0, 0, 0, 1, 128, 255, 255]),
        ("absolute", [255, 3, 0, 1, 128, 255, 255]),
        ("offset", [0, 126, 128, 129, 255, 255, 255]),
    ],
)
def test_how_answers_become_grey(shown, expected):
    values = np.array([[-300, -2.5, 0.25, 0.5, 127.5, 255, 300]])
    assert as_picture(values, shown).tolist() == [expected]


def test_stretching():
    assert as_picture(np.array([[-4.0, 0, 6]]), "stretch").tolist() == [[0, 102, 255]]
    assert as_picture(np.array([[7.0, 7]]), "stretch").tolist() == [[0, 0]]
    pixels, sobel = picture(), parse_filter("sobel-x")
    drawn, _ = filter_picture(pixels, sobel, shown="stretch")
    np.testing.assert_array_equal(drawn, as_picture(apply_filter(pixels, sobel), "stretch"))


# Refusals


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros(4), r"\[H, W\] or \[H, W, C\]: float64\[4\] arrived"),
        (np.zeros((2, 2), complex), r"complex128\[2, 2\] arrived"),
        ("photo.jpg", "str arrived"),
        (np.zeros((0, 3)), r"\[0, 3\] has no pixels"),
    ],
)
def test_what_is_no_picture(pixels, message):
    with pytest.raises(ImageError, match=message):
        convolve(pixels, LINEAR["blur"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1, 2], [3]], "all rows equally long|inhomogeneous"),
        ([1, 2, 3], r"rows and columns; an array of \[3\]"),
        ([[]], "rows and columns"),
        ([[np.nan]], "must be finite, and its divisor not 0"),
    ],
)
def test_what_is_no_mask(weights, message):
    with pytest.raises(ConfigError, match=message):
        Mask(weights)


def test_what_is_no_setting():
    with pytest.raises(ConfigError, match="divisor not 0"):
        Mask([[1]], 0.0)
    with pytest.raises(ConfigError, match="unknown border 'reflct': did you mean 'reflect'"):
        convolve(picture(), LINEAR["blur"], "reflct")
    with pytest.raises(ConfigError, match="unknown way to show 'abs'"):
        filter_picture(picture(), Filter("a", (LINEAR["blur"],)), shown="abs")
    with pytest.raises(ConfigError, match="must be above 0: 0 arrived"):
        as_picture(picture(), full=0)
