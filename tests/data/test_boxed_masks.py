"""Masks with their boxes, whatever they are of."""

import numpy as np
import pytest

from sightline.core.errors import ImageError
from sightline.data.boxed_masks import (
    extents,
    mask_picture,
    park_masks,
    plain_shape,
    region_mask,
)
from sightline.data.park.scenes import scene
from sightline.data.regions import Region
from sightline.inputs import run_lengths


def test_objects_of_a_park_are_those_of_its_scene():
    found, drawn = park_masks(7, "test", 64), scene(7, "test", 64)
    assert len(found) == len(drawn.objects)
    for item, thing in zip(found, drawn.objects, strict=True):
        assert np.array_equal(item.mask, thing.mask) and item.box == thing.box == extents(item.mask)
    assert {len(park_masks(seed)[0].mask) for seed in range(3)} == {48, 64, 80}


def test_plain_shapes_are_of_all_sizes_and_follow_their_generator():
    shapes = [plain_shape(generator := np.random.default_rng(seed)) for seed in range(60)]
    assert {shape.name for shape in shapes} == {"ellipse", "polygon"}
    assert all(shape.mask.any() and shape.box == extents(shape.mask) for shape in shapes)
    assert min(s.side for s in shapes) < 10 and max(s.side for s in shapes) > 40
    again = plain_shape(np.random.default_rng(59))
    assert np.array_equal(again.mask, shapes[-1].mask)
    assert generator is not None


def test_a_picture_of_a_mask_is_light_inside():
    pixels = np.zeros((9, 12, 3), np.uint8)
    pixels[2:5, 3:10] = 200
    found = mask_picture(pixels)
    assert found.box == (3, 2, 10, 5) and found.side == 7
    assert found.mask.sum() == 21
    with pytest.raises(ImageError, match="inside is light"):
        mask_picture(np.full((4, 4, 3), 100, np.uint8))


def test_a_region_is_what_its_outline_covers():
    square = Region("cup", (0.0, 0.0, 9.0, 9.0), ((3.0, 2.0, 10.0, 2.0, 10.0, 5.0, 3.0, 5.0),))
    found = region_mask(square)
    assert (found.box, found.name, found.mask.sum()) == ((3, 2, 10, 5), "cup", 21)
    mask = np.zeros((9, 12), np.bool_)
    mask[2:5, 3:10] = True
    runs = region_mask(Region("cup", (0.0, 0.0, 1.0, 1.0), run_lengths.encode(mask)))
    assert np.array_equal(runs.mask, mask) and runs.box == found.box


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (None, "'cup'"),
        ({"size": [3, 3], "counts": [9]}, "'cup' covers no pixel"),
        ({"counts": [9]}, "'cup'"),
        (((1.0, 1.0, 2.0),), "polygon 1"),
        (((0.0, 0.0, 1e12, 0.0, 5.0, 5.0),), "pixels"),
    ],
)
def test_an_outline_that_cannot_be_drawn_is_named(outline, message):
    with pytest.raises(ImageError, match=message):
        region_mask(Region("cup", (0.0, 0.0, 5.0, 5.0), outline))
