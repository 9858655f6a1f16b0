"""Masks cut out of boxes and pasted back, beside the resampling's own definition in numpy."""

import numpy as np
import pytest

from sightline.core.errors import InputError
from sightline.inputs.box_masks import crop_mask, paste_mask, pixel_box


def triangle(length, target):
    """float64[target, length]: bilinear weights with antialias, each row of sum one."""
    scale = length / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / reach
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resampled(values, height, width):
    rows, columns = triangle(values.shape[0], height), triangle(values.shape[1], width)
    return rows @ values.astype(np.float64) @ columns.T


def drawn(height=50, width=70, seed=0):
    return np.random.default_rng(seed).random((height, width)) < 0.5


@pytest.mark.parametrize("box", [(10, 5, 20, 40), (0, 0, 70, 50), (3, 4, 4, 5), (1, 2, 69, 9)])
def test_a_crop_is_the_antialiased_box_from_minus_one_to_one(box):
    mask = drawn()
    x1, y1, x2, y2 = box
    expected = 2 * (resampled(mask[y1:y2, x1:x2], 64, 64) - 0.5)
    found = crop_mask(mask, box, 64)
    assert (found.dtype, found.shape) == (np.float32, (64, 64))
    assert np.abs(found - expected).max() < 1e-5


def test_a_large_crop_is_averaged_and_not_sampled():
    stripes = np.zeros((256, 256), np.bool_)
    stripes[:, ::2] = True
    found = crop_mask(stripes, (0, 0, 256, 256), 64)
    assert np.abs(found).max() < 0.2  # a bilinear sample of four pixels would say -1 or 1


def test_boxes_are_rounded_and_a_half_goes_to_the_even_side():
    assert pixel_box((0.5, 1.5, 10.4, 10.6), 20, 20) == (0, 2, 10, 11)
    mask = drawn()
    assert np.array_equal(
        crop_mask(mask, (9.6, 4.9, 20.2, 39.7), 64), crop_mask(mask, (10, 5, 20, 40), 64)
    )


@pytest.mark.parametrize("box", [(10, 5, 31, 40), (0, 0, 70, 50), (3, 4, 4, 5), (60, 1, 70, 3)])
def test_a_paste_is_the_stretched_mask_above_zero_in_its_box(box):
    values = np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32)
    x1, y1, x2, y2 = box
    canvas = paste_mask(values, box, 50, 70)
    assert (canvas.dtype, canvas.shape) == (np.bool_, (50, 70))
    expected = resampled(values, y2 - y1, x2 - x1)
    sure = np.abs(expected) > 1e-4
    assert np.array_equal(canvas[y1:y2, x1:x2][sure], (expected > 0)[sure])
    canvas[y1:y2, x1:x2] = False
    assert not canvas.any()


def test_another_threshold_gives_another_mask():
    """Planted: a half instead of 0, and probabilities that are stretched before they are asked."""
    values = np.random.default_rng(3).normal(0.2, 2.0, (64, 64)).astype(np.float32)
    ours = paste_mask(values, (0, 0, 33, 33), 33, 33)
    stretched = resampled(values, 33, 33)
    assert (ours == (stretched > 0)).mean() > 0.999
    assert (ours == (stretched > 0.5)).mean() < 0.95
    assert (ours == (resampled(1 / (1 + np.exp(-values)), 33, 33) > 0.5)).mean() < 0.99


def located(box, height, width):
    """The four numbers of PaliGemma's box tokens: y1 x1 y2 x2, in 1023rds of the picture."""
    x1, y1, x2, y2 = box
    return [round(v * 1023) for v in (y1 / height, x1 / width, y2 / height, x2 / width)]


def unlocated(numbers, height, width, divisor=1023, order=(1, 0, 3, 2)):
    x1, y1, x2, y2 = (numbers[i] / divisor for i in order)
    sides = (x1 * width, y1 * height, x2 * width, y2 * height)
    return tuple(min(side, limit) for side, limit in zip(sides, (width, height) * 2, strict=True))


def test_a_mask_comes_back_from_its_box_tokens_and_from_no_others():
    """Planted: another divisor, and x before y."""
    height, width, box = 200, 300, (120.0, 40.0, 260.0, 90.0)
    rows, columns = np.mgrid[:height, :width]
    mask = ((columns - 190) / 70) ** 2 + ((rows - 65) / 25) ** 2 < 1
    values, numbers = crop_mask(mask, box, 64), located(box, height, width)

    def back(**mistake):
        pasted = paste_mask(values, unlocated(numbers, height, width, **mistake), height, width)
        return (pasted & mask).sum() / (pasted | mask).sum()

    assert back() > 0.97
    assert back(divisor=1000) < 0.9
    assert back(order=(0, 1, 2, 3)) < 0.5


def test_what_is_no_mask_or_no_box_is_refused():
    mask = drawn()
    with pytest.raises(InputError, match=r"a mask is bool\[H, W\]: float32\[50, 70\] arrived"):
        crop_mask(mask.astype(np.float32), (0, 0, 5, 5), 64)
    with pytest.raises(InputError, match=r"a decoded mask is float32\[h, w\]: bool\[50, 70\]"):
        paste_mask(mask, (0, 0, 5, 5), 50, 70)
    for box in ((5, 5, 5, 9), (9, 5, 5, 9), (-3, 0, 5, 5), (0, 0, 71, 5), (2.2, 0, 2.4, 5)):
        with pytest.raises(InputError, match=r"is, rounded, no part of a picture of 70 x 50"):
            crop_mask(mask, box, 64)
    for box in ((0, 0, 5), (0, 0, float("nan"), 5)):
        with pytest.raises(InputError, match="a box is four finite numbers"):
            crop_mask(mask, box, 64)
