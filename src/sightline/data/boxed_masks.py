"""Masks with their boxes: of drawn parks, regions, pictures of masks, and plain shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sightline.core.errors import DataError, ImageError
from sightline.core.outputs import Box
from sightline.data.park.scenes import scene
from sightline.data.regions import Region
from sightline.inputs.images import read_image

PARK_SIZES = (48, 64, 80)
"""Pixels of scenes that take turns: their objects are 7 to 30 pixels long."""
SHAPE_SIDES = (8, 96)
"""Pixels of the shorter side of the square that a plain shape is drawn into, and of the longest."""
INSIDE = 128
"""Grey level from which on a picture of a mask says inside."""


class BoxedMask(NamedTuple):
    """One object's mask and its box."""

    mask: NDArray[np.bool_]
    """bool[H, W]"""
    box: Box
    name: str = ""
    """What is shown, where that is known."""

    @property
    def side(self) -> float:
        """Pixels of the longer side of the box."""
        x1, y1, x2, y2 = self.box
        return max(x2 - x1, y2 - y1)


@lru_cache(maxsize=64)  # who goes through the objects one by one asks for a scene again and again
def park_masks(seed: int, split: str = "train", size: int | None = None) -> tuple[BoxedMask, ...]:
    """The masks of the objects of a drawn park, in painting order.

    Args:
        size: pixels of the square scene; None takes one of `PARK_SIZES` in turn with the seeds.
    """
    side = PARK_SIZES[seed % len(PARK_SIZES)] if size is None else size
    return tuple(BoxedMask(o.mask, o.box, o.name) for o in scene(seed, split, side).objects)


def plain_shape(generator: np.random.Generator) -> BoxedMask:
    """A turned ellipse or a polygon of three to eight corners, of any size and place.

    The corners are at sorted angles around a centre, at distances of their own, so that polygons
    are seldom convex and never cross themselves.
    """
    low, high = (math.log(side) for side in SHAPE_SIDES)
    while True:
        side = round(math.exp(generator.uniform(low, high)))
        corners = int(generator.integers(2, 9))
        points = _ellipse(generator, side) if corners == 2 else _polygon(generator, side, corners)
        canvas = Image.new("1", (side, side))
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=1)
        mask = np.asarray(canvas)
        if mask.any():
            return BoxedMask(mask, extents(mask), "ellipse" if corners == 2 else "polygon")


def mask_picture(image: Any) -> BoxedMask:
    """A picture of a mask, light inside and dark outside, with the extents of the light.

    Args:
        image: anything that can be read as a picture.

    Raises:
        ImageError: it cannot be read, or no pixel is light.
    """
    mask = read_image(image).max(axis=2) >= INSIDE
    if not mask.any():
        raise ImageError(
            f"no pixel of this picture of a mask has a level of {INSIDE} or more: inside is light",
            "image_empty",
        )
    return BoxedMask(mask, extents(mask))


def region_mask(region: Region) -> BoxedMask:
    """What is inside the outline of a region, with its extents; of polygons only as much of the
    picture as they reach.

    Raises:
        ImageError: an outline that cannot be drawn, or that covers no pixel.
    """
    outline = region.outline
    try:
        if isinstance(outline, Mapping):
            height, width = outline["size"]
        else:
            numbers = [np.asarray(polygon, np.float64) for polygon in outline or ()]
            width, height = (
                math.ceil(max(1.0, *(n[axis::2].max() for n in numbers))) for axis in (0, 1)
            )
        mask = region.mask(height, width)
    except (DataError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ImageError(f"region {region.label!r}: {error}", "image_undecodable") from None
    if not mask.any():
        raise ImageError(f"region {region.label!r} covers no pixel", "image_empty")
    return BoxedMask(mask, extents(mask), region.label)


def extents(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around the pixels of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _ellipse(generator: np.random.Generator, side: int) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    radii = side * generator.uniform(0.1, 0.5, size=2)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii  # [64 2]
    turn = generator.uniform(0, math.pi)
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return circle @ turned.T + side / 2


def _polygon(generator: np.random.Generator, side: int, corners: int) -> NDArray[np.float64]:
    angles = np.sort(generator.uniform(0, 2 * math.pi, corners))
    radii = side * generator.uniform(0.15, 0.5, corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + side / 2
