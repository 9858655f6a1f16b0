"""Polygons to masks, pixel for pixel as the COCO tools fill them.

Their rule (`rleFrPoly` of `maskApi.c`), which decides pixels along every edge: corners are rounded
to fifths of a pixel; the outline is walked in steps of a fifth, the shorter direction rounded half
up; where the walk crosses the middle of a column, everything below changes between inside and
outside (even-odd rule). Rounding is C's truncation of x + 0.5, towards zero for what lies left of
or above the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import DataError
from sightline.inputs.limits import MAX_PIXELS, MAX_SIDE

_FINE = 5
"""Steps a pixel of the walk along the outline."""
_LONGEST = 500_000
"""Pixels that one outline may be long; a walk of so many takes about 200 MB."""


def fill(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    """The union of polygons as bool[H, W]; of none, a mask without set pixels.

    A pixel whose centre is inside is set; what lies outside of the picture is cut off.

    Args:
        polygons: each [x1, y1, x2, y2, ...] in pixels, closed by itself, at least three corners.
        height: of the picture.
        width: of the picture.

    Raises:
        DataError: no polygons of finite numbers, corners far outside of any picture, an outline too
            long to walk, or a picture larger than one may be.
    """
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise DataError(
            f"a mask of {height:,} x {width:,} pixels is not possible; 1 to {MAX_PIXELS:,} are"
        )
    mask = np.zeros((height, width), bool)
    if not isinstance(polygons, Sequence | np.ndarray) or isinstance(polygons, str | bytes):
        raise DataError(f"polygons must be a list of lists of numbers, not {str(polygons)[:60]}")
    for place, polygon in enumerate(polygons, start=1):
        _add(mask, _corners(polygon, place))
    return mask


def _corners(polygon: Any, place: int) -> NDArray[np.float64]:
    """float64[n, 2] of one polygon that can be walked."""
    try:
        numbers = np.asarray(polygon)
        numbers = numbers.astype(np.float64) if numbers.dtype.kind in "iuf" else np.zeros(0)
    except ValueError:  # lists of different lengths inside
        numbers = np.zeros(0)
    if numbers.ndim != 1 or len(numbers) < 6 or len(numbers) % 2:
        raise DataError(
            f"polygon {place} must be numbers [x1, y1, x2, y2, ...] of at least three corners: "
            f"{str(polygon)[:60]}"
        )
    corners = numbers.reshape(-1, 2)
    if not (np.abs(corners) <= MAX_SIDE).all():  # NaN is not either
        raise DataError(
            f"polygon {place} has a corner that is not a number within {MAX_SIDE:,} pixels"
        )
    length = np.abs(corners - np.roll(corners, -1, axis=0)).max(axis=1).sum()
    if length > _LONGEST:
        raise DataError(
            f"the outline of polygon {place} is {length:,.0f} pixels long; at most {_LONGEST:,} "
            "are walked"
        )
    return corners


def _add(mask: NDArray[np.bool_], corners: NDArray[np.float64]) -> None:
    """Set the pixels of one polygon; only the columns it reaches are touched."""
    height, width = mask.shape
    across, down = _walk(corners)
    crossing = across[1:] != across[:-1]
    before, after = across[:-1][crossing], across[1:][crossing]
    column = (np.where(after < before, after, after - 1) + 0.5) / _FINE - 0.5
    row = np.minimum(down[:-1][crossing], down[1:][crossing])
    row = np.ceil(((row + 0.5) / _FINE - 0.5).clip(0, height))
    at_centre = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    columns, rows = (part[at_centre].astype(np.int64) for part in (column, row))
    if not len(columns):
        return
    first, size = columns.min(), (np.ptp(columns) + 1) * height
    changes = np.bincount((columns - first) * height + rows, minlength=size)[:size] % 2
    inside = np.logical_xor.accumulate(changes.astype(bool)).reshape((height, -1), order="F")
    mask[:, first : first + inside.shape[1]] |= inside


def _walk(corners: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The outline in fifths of a pixel, a step along the longer direction of each edge a point.

    An edge is always walked from its lower end of that direction, so that both polygons beside a
    shared edge round alike, and read backwards where the polygon goes the other way.
    """
    start = (_FINE * corners + 0.5).astype(np.int64)  # towards zero, as C does
    stop = np.roll(start, -1, axis=0)
    flat = np.abs(stop - start)[:, 0] >= np.abs(stop - start)[:, 1]
    longer = np.where(flat[:, None], [0, 1], [1, 0])  # [n 2]: the columns as (longer, shorter)
    start, stop = (np.take_along_axis(ends, longer, axis=1) for ends in (start, stop))
    backwards = start[:, 0] > stop[:, 0]
    low = np.where(backwards[:, None], stop, start)
    high = np.where(backwards[:, None], start, stop)
    steps = high[:, 0] - low[:, 0]
    slope = (high[:, 1] - low[:, 1]) / np.maximum(steps, 1)
    counts = steps + 1
    edge = np.repeat(np.arange(len(corners)), counts)
    place = np.arange(len(edge)) - np.repeat(counts.cumsum() - counts, counts)
    step = np.where(backwards[edge], steps[edge] - place, place)
    along = low[edge, 0] + step
    beside = (low[edge, 1] + slope[edge] * step + 0.5).astype(np.int64)
    return np.where(flat[edge], along, beside), np.where(flat[edge], beside, along)
