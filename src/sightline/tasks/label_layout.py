"""Where labels go beside the boxes that they name: inside the picture, and not over each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.core.outputs import Box

_OVER_LABEL, _OVER_BOX, _OVER_OWN = 1000.0, 2.0, 1.0
"""What it costs to cover all of a label's size of another label, another box, the own box."""
_AWAY = 0.02
"""What a label's height of distance from its box costs; so far away it costs a line as well."""
_GRID = 4096
"""Places tried all over the picture where there is no room beside the box."""


def place_labels(
    boxes: Sequence[Box], sizes: Sequence[tuple[int, int]], picture: tuple[int, int]
) -> list[tuple[int, int]]:
    """The left upper corner (x, y) of each label.

    From top to bottom each takes the cheapest place beside or on its box; where all of those would
    hide another label, the nearest free place in the picture. Labels hide each other only if there
    is no room left, and leave the picture only if they are larger than it.

    Args:
        boxes: what is named, in pixels of the picture.
        sizes: (width, height) of each label.
        picture: (width, height).
    """
    taken = np.zeros((0, 4))
    corners = [(0, 0)] * len(boxes)
    everything = np.reshape(boxes, (-1, 4)).astype(np.float64)
    for place in sorted(range(len(boxes)), key=lambda place: (boxes[place][1], boxes[place][0])):
        own, size = everything[place], sizes[place]
        rectangles = [
            (_OVER_LABEL, taken),
            (_OVER_BOX, np.delete(everything, place, axis=0)),
            (_OVER_OWN, own[None]),
        ]
        most = np.maximum(np.subtract(picture, size), 0)
        x, y = _beside(own, size).clip(0, most).round().T
        cost = _cost(x, y, own, size, rectangles, "nm,nm->n")
        if cost.min() >= _OVER_LABEL / 50:
            columns, rows = _everywhere(most, size[1])
            spread = _cost(columns, rows[:, None], own, size, rectangles, "rm,cm->rc")
            if spread.min() < cost.min():
                x, y = (part.ravel() for part in np.meshgrid(columns, rows))
                cost = spread.ravel()
        best = int(cost.argmin())
        corners[place] = int(x[best]), int(y[best])
        corner = np.array(corners[place])
        taken = np.concatenate([taken, np.concatenate([corner, corner + size])[None]])
    return corners


def _beside(box: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Corners [n, 2] of places around and on a box, the customary ones first."""
    x1, y1, x2, y2 = box
    wide, high = size
    return np.array(
        [
            (x1, y1 - high), (x1, y2), (x2 - wide, y1 - high), (x2 - wide, y2),
            (x1, y1), (x1, y2 - high), (x2, y1), (x1 - wide, y1), (x2, y2 - high),
            (x1 - wide, y2 - high), (x2 - wide, y1), (x2 - wide, y2 - high),
        ]
    )  # fmt: skip


def _everywhere(most: NDArray[np.int64], high: int) -> tuple[NDArray[np.float64], ...]:
    """The columns and rows of a grid of corners over the picture."""
    step = max(high / 2, float(most.prod() / _GRID) ** 0.5, 1)
    return tuple(np.arange(0, length + 1, step).round() for length in most)


def _cost(
    x: NDArray[np.float64], y: NDArray[np.float64], own: NDArray[np.float64],
    size: tuple[int, int], rectangles: Sequence[tuple[float, NDArray[np.float64]]], product: str,
) -> NDArray[np.float64]:  # fmt: skip
    """What it costs to stand at corners (x, y): pairs [n], or columns [c] and rows [r, 1].

    Args:
        own: the box that is named.
        size: (width, height) of the label.
        rectangles: what may be hidden [m, 4], with the cost of hiding as much as the label's size.
        product: how what is shared along y and along x becomes areas: on a grid it is a product of
            matrices, without a number for each corner and rectangle.
    """
    across = np.maximum(x - own[2], own[0] - x - size[0]).clip(min=0)
    down = np.maximum(y - own[3], own[1] - y - size[1]).clip(min=0)
    away = np.maximum(across, down) / size[1]
    cost = _AWAY * away + (away > 0.5)
    for weight, others in rectangles:
        wide = _shared(x.ravel(), size[0], others[:, 0], others[:, 2])
        high = _shared(y.ravel(), size[1], others[:, 1], others[:, 3])
        cost = cost + weight / (size[0] * size[1]) * np.einsum(product, high, wide, optimize=True)
    return cost + 1e-6 * np.arange(cost.size).reshape(cost.shape)  # the first of equal ones


def _shared(
    starts: NDArray[np.float64], length: int, low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How much of spans of one length [n] lies within others [m]: float64[n, m]."""
    stop = np.minimum(starts[:, None] + length, high)
    return np.asarray((stop - np.maximum(starts[:, None], low)).clip(min=0))
