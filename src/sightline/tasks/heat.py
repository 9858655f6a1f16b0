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


def on_picture(cells: Tensor, box: Box, size: tuple[int, int]) -> NDArray[np.float32]:
    """Cells float[r, c] over a box of a picture, as heat float32[H, W] of 0..1.

    Linear between the centres of cells, then 0 for the coldest and 1 for the hottest pixel of the
    box, and 0 outside of it. What is below 0 spoke against and counts as 0. A map without
    differences says nothing and gives zeros, and so does one that is not finite.

    Args:
        box: (x1, y1, x2, y2) in pixels of the picture, which it may reach beyond.
        size: (H, W) of the picture.
    """
    values = cells.detach().double().cpu().numpy().clip(min=0)
    heat = np.zeros(size, np.float32)
    if not np.isfinite(values).all() or values.min() == values.max():
        return heat
    rows, down = _axis(size[0], box[1], box[3], values.shape[0])  # [h r]
    columns, across = _axis(size[1], box[0], box[2], values.shape[1])  # [w c]
    part = down @ values @ across.T  # [h w]
    low, high = part.min(initial=np.inf), part.max(initial=0)
    if high > low:
        heat[np.ix_(rows, columns)] = (part - low) / (high - low)
    return heat


def _axis(
    length: int, start: float, stop: float, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The pixels whose centres lie in a span, and how much of each cell they take, [n, cells]."""
    pixels = np.arange(length)
    pixels = pixels[(pixels + 0.5 >= start) & (pixels + 0.5 <= stop)]
    place = (pixels + 0.5 - start) / (stop - start) * cells - 0.5
    share = 1 - np.abs(place.clip(0, cells - 1)[:, None] - np.arange(cells))
    return pixels, share.clip(min=0)


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
