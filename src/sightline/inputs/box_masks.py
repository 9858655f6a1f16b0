"""Masks in boxes: what a mask codec sees of a mask, and its answer back in the picture.

Source: pp/proj/paligemma/segmentation.py and evaluators/proj/paligemma/transfers/segmentation.py of
https://github.com/google-research/big_vision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.core.errors import InputError
from sightline.core.outputs import Box


def pixel_box(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """The box in whole pixels (x1, y1, x2, y2), each side rounded, a half to the even number.

    Raises:
        InputError: it covers no pixel, or leaves the picture.
    """
    sides = np.rint(np.asarray(box, np.float64))
    if sides.shape != (4,) or not np.isfinite(sides).all():
        raise InputError(f"a box is four finite numbers x1, y1, x2, y2: {box!r} arrived")
    x1, y1, x2, y2 = (int(side) for side in sides)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise InputError(
            f"box {tuple(float(side) for side in box)} is, rounded, no part of a picture of "
            f"{width} x {height} pixels: 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}"
        )
    return x1, y1, x2, y2


def crop_mask(mask: NDArray[np.bool_], box: Box, size: int) -> NDArray[np.float32]:
    """What is inside the box, squeezed to a square: float32[size, size], -1 outside to 1 inside.

    The box is rounded to pixels; bilinear with antialias, without rounding to 256 levels.

    Args:
        mask: bool[H, W].
        box: in pixels of the mask.
        size: of the square.

    Raises:
        InputError: a mask of another kind, or a box that is no part of it.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise InputError(f"a mask is bool[H, W]: {mask.dtype}{list(mask.shape)} arrived")
    x1, y1, x2, y2 = pixel_box(box, *mask.shape)
    inside = Image.fromarray(mask[y1:y2, x1:x2].astype(np.float32))
    square = inside.resize((size, size), Image.Resampling.BILINEAR)
    return np.float32(2) * (np.asarray(square) - np.float32(0.5))


def paste_mask(values: NDArray[np.float32], box: Box, height: int, width: int) -> NDArray[np.bool_]:
    """A codec's answer stretched over its box: bool[H, W], True where it is above 0.

    The box is rounded as in `crop_mask`, so that a mask comes back to where it was taken from. The
    reference evaluator cuts the fractions of a decoded box off instead: floor it first for that.

    Args:
        values: float32[h, w], about -1 to 1.
        box: in pixels of the picture.

    Raises:
        InputError: values of another kind, or a box that is no part of the picture.
    """
    if values.ndim != 2 or values.dtype != np.float32:
        raise InputError(
            f"a decoded mask is float32[h, w]: {values.dtype}{list(values.shape)} arrived"
        )
    x1, y1, x2, y2 = pixel_box(box, height, width)
    stretched = Image.fromarray(values).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR)
    canvas = np.zeros((height, width), dtype=np.bool_)
    canvas[y1:y2, x1:x2] = np.asarray(stretched) > 0
    return canvas
