"""Maps of heat: from the cells of a network's grid to the pixels of the original picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sightline.core.outputs import Box

_FINEST = 256
"""Pixels of a side at which the hottest region is looked for."""


class Region(NamedTuple):
    """The connected part around the hottest pixel that has at least half of its heat."""

    box: Box
    centre: tuple[float, float]
    """(x, y), weighted by heat, in pixels of the original picture."""


def normalised(cells: Tensor) -> NDArray[np.float32]:
    """0 for the coldest and 1 for the hottest cell; what is below 0 spoke against and counts as 0.

    A map without differences says nothing and gives zeros, and so does one that is not finite.
    """
    values: NDArray[np.float32] = cells.detach().float().cpu().numpy().clip(min=0)
    low, high = values.min(), values.max()
    if not high > low or not np.isfinite(high):
        return np.zeros_like(values)
    return np.asarray((values - low) / (high - low), np.float32)


def on_picture(cells: NDArray[np.float32], box: Box, size: tuple[int, int]) -> NDArray[np.float32]:
    """Cells float32[r, c] over a box of a picture, as float32[H, W], 0 outside of the box.

    Linear between the centres of cells; the largest value becomes 1 where there is any.

    Args:
        box: (x1, y1, x2, y2) in pixels of the picture, which it may reach beyond.
        size: (H, W) of the picture.
    """
    down = _axis(size[0], box[1], box[3], cells.shape[0])  # [H r]
    across = _axis(size[1], box[0], box[2], cells.shape[1])  # [W c]
    heat = down @ cells @ across.T
    highest = heat.max()
    return heat / highest if highest > 0 else heat


def _axis(length: int, start: float, stop: float, cells: int) -> NDArray[np.float32]:
    """float32[length, cells]: how much of each cell a pixel takes; nothing outside the span."""
    centres = np.arange(length) + 0.5
    place = (centres - start) / (stop - start) * cells - 0.5
    share = 1 - np.abs(place.clip(0, cells - 1)[:, None] - np.arange(cells))
    inside = (centres >= start) & (centres <= stop)
    return (share.clip(min=0) * inside[:, None]).astype(np.float32)


def hottest_region(heat: NDArray[np.float32]) -> Region | None:
    """Where most of the heat is, found in steps of 1/256 of the longer side; None without heat."""
    if not heat.max() > 0:
        return None
    step = -(-max(heat.shape) // _FINEST)
    coarse = heat[::step, ::step]
    hot = coarse >= 0.5 * coarse.max()
    region = np.zeros_like(hot)
    region[np.unravel_index(coarse.argmax(), coarse.shape)] = True
    while True:
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        grown &= hot
        if (grown == region).all():
            break
        region = grown
    rows, columns = region.nonzero()
    weight = coarse[rows, columns]
    x, y = (float((part * weight).sum() / weight.sum() + 0.5) * step for part in (columns, rows))
    right = min(int(columns.max() + 1) * step, heat.shape[1])
    bottom = min(int(rows.max() + 1) * step, heat.shape[0])
    left, top = int(columns.min()) * step, int(rows.min()) * step
    return Region((float(left), float(top), float(right), float(bottom)), (x, y))
