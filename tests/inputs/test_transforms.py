"""Resampling against Pillow itself, geometry against small cases worked by hand."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.core.errors import ConfigError, ImageError
from sightline.inputs import transforms
from tests.inputs.pictures import CONTENTS, SIZES, picture

TARGETS = [(1, 1), (224, 224), (37, 91), (5, 3), (300, 200), (449, 1)]


def pillow(pixels: np.ndarray, size: tuple[int, int], filter: str) -> np.ndarray:
    resampling = getattr(Image.Resampling, filter.upper())
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), resampling))


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("filter", transforms.FILTERS)
def test_tensors_are_resampled_as_pillow_does(filter) -> None:
    for (height, width), content, size in itertools.product(SIZES, CONTENTS[:3], TARGETS):
        if content != "noise" and height * width > 50_000:
            continue  # the small ones show the same in less time
        pixels = picture(height, width, content)
        ours = transforms.resize_tensor(as_tensor(pixels), size, filter)
        found = ours[0].permute(1, 2, 0).numpy()
        assert difference(found, pillow(pixels, size, filter)) <= 1, (height, width, content, size)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(sizes=st.tuples(*[st.integers(1, 70)] * 4), filter=st.sampled_from(transforms.FILTERS))
def test_tensors_are_resampled_as_pillow_does_at_any_size(sizes, filter) -> None:
    pixels = picture(sizes[0], sizes[1])
    ours = transforms.resize_tensor(as_tensor(pixels), sizes[2:], filter)
    assert difference(ours[0].permute(1, 2, 0).numpy(), pillow(pixels, sizes[2:], filter)) <= 1


def test_another_filter_would_be_noticed() -> None:
    pixels = picture(480, 640)
    ours = transforms.resize(pixels, (224, 224), "bilinear")
    assert difference(ours, pillow(pixels, (224, 224), "bicubic")) > 1


def test_a_batch_is_resampled_picture_by_picture() -> None:
    pair = torch.cat([as_tensor(picture(40, 50)), as_tensor(picture(40, 50, "gradient"))])
    both = transforms.resize_tensor(pair, (30, 20), "bicubic")
    assert both.is_contiguous() and both.shape == (2, 3, 30, 20)
    assert torch.equal(both[1:], transforms.resize_tensor(pair[1:], (30, 20), "bicubic"))


@pytest.mark.parametrize("filter", transforms.FILTERS)
def test_arrays_are_resampled_by_pillow(filter) -> None:
    pixels = picture(97, 61)
    assert np.array_equal(
        transforms.resize(pixels, (50, 70), filter), pillow(pixels, (50, 70), filter)
    )


def test_views_are_resampled_like_their_copies() -> None:
    view = picture(60, 90)[::2, ::-3]
    same = transforms.resize(view.copy(), (10, 12), "bicubic")
    assert np.array_equal(transforms.resize(view, (10, 12), "bicubic"), same)


@pytest.mark.parametrize(("height", "width", "target", "longest", "expected"), [
    (480, 640, 224, None, (224, 298)),
    (640, 480, 224, None, (298, 224)),
    (1, 500, 224, None, (224, 112000)),
    (7, 3, 5, None, (11, 5)),
    (480, 640, 224, 256, (192, 256)),
    (1, 1000, 10, 20, (1, 20)),
])  # fmt: skip
def test_the_longer_side_is_rounded_down(height, width, target, longest, expected) -> None:
    assert transforms.shortest_side(height, width, target, longest) == expected


def test_a_longest_side_below_the_shortest_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"longest side \(224\) must exceed the shortest \(224\)"):
        transforms.shortest_side(10, 20, 224, 224)


def test_an_odd_remainder_is_cut_at_the_bottom_and_right() -> None:
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    assert np.array_equal(transforms.center_crop(pixels, (2, 1)), pixels[1:3, 1:2])


def test_a_small_picture_is_padded_with_black_at_the_top_and_left_first() -> None:
    pixels = np.full((2, 5, 3), 9, np.uint8)
    cropped = transforms.center_crop(pixels, (5, 2))
    assert cropped.shape == (5, 2, 3)
    assert cropped[:, 0, 0].tolist() == [0, 0, 9, 9, 0]


@pytest.mark.parametrize("filter", transforms.FILTERS)
def test_a_long_thin_picture_is_cropped_without_being_blown_up(filter) -> None:
    for height, width in [(30, 2000), (2000, 30), (3, 100), (33, 1001)]:
        pixels = picture(height, width)
        resized = transforms.shortest_side(height, width, 56)
        whole = transforms.center_crop(transforms.resize(pixels, resized, filter), (56, 48))
        part = transforms.resize_and_crop(pixels, resized, (56, 48), filter)
        assert difference(part, whole) <= 1


def test_the_longest_thin_picture_takes_little_memory() -> None:
    import tracemalloc

    pixels = picture(1, 16_384, "gradient")
    tracemalloc.start()
    result = transforms.resize_and_crop(pixels, (224, 224 * 16_384), (224, 224), "bicubic")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.shape == (224, 224, 3) and peak < 100e6


def test_normalising_is_one_multiply_add() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    mean, std = (0.48, 0.45, 0.4), (0.26, 0.27, 0.28)
    found = transforms.normalize(pixels, mean, std)
    shape = (1, 3, 1, 1)
    exact = (pixels.double() / 255 - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(
        shape
    )
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, atol=1e-5)


@pytest.mark.parametrize("resize", [
    lambda: transforms.resize(picture(4, 4), (2, 2), "bicubik"),
    lambda: transforms.resize_tensor(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), (2, 2), "bicubik"),
])  # fmt: skip
def test_an_unknown_filter_is_refused(resize) -> None:
    with pytest.raises(ConfigError, match="unknown filter 'bicubik': did you mean 'bicubic'"):
        resize()


@pytest.mark.parametrize(("pixels", "message"), [
    (np.zeros((4, 4, 3), np.float32), r"not float32\[4, 4, 3\]"),
    (np.zeros((4, 4), np.uint8), r"not uint8\[4, 4\]"),
    (np.zeros((4, 4, 4), np.uint8), r"not uint8\[4, 4, 4\]"),
    (np.zeros((0, 4, 3), np.uint8), "has no pixels"),
    ([[1]], "not list"),
])  # fmt: skip
def test_pixels_of_another_kind_are_refused(pixels, message) -> None:
    with pytest.raises(ImageError, match=message):
        transforms.resize(pixels, (2, 2), "bicubic")


def test_tensors_of_another_kind_are_refused() -> None:
    with pytest.raises(ImageError, match=r"uint8\[B, C, H, W\], not torch.float32\[1, 3, 4, 4\]"):
        transforms.resize_tensor(torch.zeros(1, 3, 4, 4), (2, 2), "bicubic")
