"""Pictures of no scene that are as varied as scenes: discs of every size, one in front of another.

The dead leaves model has the edges, flat regions and scale invariance of photographs (Lee, Mumford
& Huang 2001, "Occlusion models for natural images", International Journal of Computer Vision 41,
section 4). Needs no data, so it serves where typical pictures must be shown to a network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

DISCS = 400
SMALLEST, LARGEST = 2.0, 80.0
"""Radii in pixels; their density falls with the cube, which is what makes scales alike."""


def dead_leaves(count: int, side: int = 224, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures uint8[side, side, 3], always the same ones for a seed.

    Every other one has little contrast, as fog or an empty sky.
    """
    generator = np.random.default_rng(seed)
    return [_picture(generator, side, contrast=(1.0, 0.3)[n % 2]) for n in range(count)]


def _picture(generator: np.random.Generator, side: int, contrast: float) -> NDArray[np.uint8]:
    base = generator.uniform(0, 255, 3)
    picture = Image.new("RGB", (side, side), _colour(base, base, contrast))
    draw = ImageDraw.Draw(picture)
    quantile = generator.uniform(size=DISCS)
    # The inverse of the cumulated density of r^-3 between both ends.
    radii = (SMALLEST**-2 - quantile * (SMALLEST**-2 - LARGEST**-2)) ** -0.5 * side / 224
    centres = generator.uniform(0, side, (DISCS, 2))
    colours = generator.uniform(0, 255, (DISCS, 3))
    for radius, (x, y), colour in zip(radii.tolist(), centres.tolist(), colours, strict=True):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=_colour(colour, base, contrast))
    return np.asarray(picture)


def _colour(
    colour: NDArray[np.float64], base: NDArray[np.float64], contrast: float
) -> tuple[int, int, int]:
    red, green, blue = (base + contrast * (colour - base)).round().astype(int).tolist()
    return red, green, blue
