"""Kinds as small arrays: how much of each ink covers each pixel, kept for reuse.

Colour is applied when an object is painted, so that the cache holds shapes only. All sums are
whole numbers below 2^24, which float32 represents exactly: the pictures do not depend on the
order in which a machine adds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.data.park import shapes

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (212, 34, 38),
    "orange": (246, 134, 18),
    "yellow": (250, 220, 40),
    "green": (34, 146, 58),
    "blue": (36, 88, 214),
    "purple": (130, 48, 172),
    "pink": (250, 142, 190),
    "brown": (124, 74, 36),
    "black": (30, 30, 34),
    "white": (248, 248, 248),
}
_LIGHT_INK, _DARK_INK = (238, 228, 208), (62, 58, 62)
_CACHED_SIDE = 40


class Sprite(NamedTuple):
    """One kind at one size: [h, w] is the smallest array that holds it with its soft edge."""

    cover: NDArray[np.float32]
    """float32[h * w, 5]: fine pixels of each ink (main, shade, light, dark, outline)."""
    empty: NDArray[np.float32]
    """float32[h, w, 1]: fine pixels left free."""
    mask: NDArray[np.bool_]
    """bool[h, w]: at least half covered."""
    box: tuple[int, int, int, int]
    """Extents of the mask inside the array, x2 and y2 exclusive."""
    area: int
    """Pixels in the mask."""
    fine: int
    """Fine pixels in one pixel."""


def sprite(kind: str, side: int, flip: bool) -> Sprite:
    """The sprite of a kind whose longer side is `side` pixels, mirrored where `flip`."""
    return _small(kind, side, flip) if side <= _CACHED_SIDE else _large(kind, side, flip)


@lru_cache(maxsize=4096)
def _small(kind: str, side: int, flip: bool) -> Sprite:
    return _build(kind, side, flip)


@lru_cache(maxsize=64)
def _large(kind: str, side: int, flip: bool) -> Sprite:
    return _build(kind, side, flip)


def _build(kind: str, side: int, flip: bool) -> Sprite:
    factor = 8 if side <= _CACHED_SIDE else 4
    margin = max(round(0.5 * factor), round(0.018 * side * factor))
    inks = np.asarray(shapes.index_picture(kind, side * factor, margin))
    inks = _with_outline(inks[:, ::-1] if flip else inks, margin)
    cover = _coverage(inks, factor)
    fine = factor * factor
    filled = cover.sum(axis=-1)
    x1, y1, x2, y2 = _extents(filled > 0)
    cover, filled = cover[y1:y2, x1:x2], filled[y1:y2, x1:x2]
    mask = 2 * filled >= fine
    return Sprite(
        cover=cover.reshape(-1, 5).astype(np.float32),
        empty=(fine - filled).astype(np.float32)[..., None],
        mask=mask,
        box=_extents(mask),
        area=int(mask.sum()),
        fine=fine,
    )


def _with_outline(inks: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Surround everything drawn by a line of the given width, on the free side."""
    wide = inks > 0
    for turn in (0, 1):
        reached = 0
        while reached < radius:  # doubling: after 1, 2, 4, ... the width grows as a power of two
            step = min(max(1, reached), radius - reached)
            grown = wide.copy()
            grown[step:] |= wide[:-step]
            grown[:-step] |= wide[step:]
            wide, reached = grown, reached + step
        wide = np.ascontiguousarray(wide.T) if turn == 0 else wide.T
    return np.where((inks == 0) & wide, np.uint8(shapes.OUTLINE), inks)


def _coverage(inks: NDArray[np.uint8], factor: int) -> NDArray[np.int64]:
    """int64[side, side, 5]: fine pixels of each ink in each pixel."""
    unit = 255 // factor**2  # a block's mean is then a whole number, a multiple of the count
    picture = Image.fromarray(inks)
    layers = []
    for ink in range(1, 6):
        only = picture.point([unit * factor**2 if value == ink else 0 for value in range(256)])
        layers.append(np.asarray(only.reduce(factor)) // unit)
    return np.stack(layers, axis=-1).astype(np.int64)


def _extents(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def ink_colours(colour: str, tint: tuple[int, int, int]) -> NDArray[np.float32]:
    """float32[5, 3]: what each ink looks like on an object of this colour, shifted by a tint."""
    shifted = (value + shift for value, shift in zip(PALETTE[colour], tint, strict=True))
    base = [min(255, max(0, value)) for value in shifted]
    light, dark = _LIGHT_INK, _DARK_INK
    shade = tuple(value * 3 // 4 for value in base)
    outline = tuple(value * 2 // 5 for value in base)
    if colour == "black":  # the darker tone of black is a lighter one
        shade, dark, outline = (70, 70, 78), (104, 104, 112), (0, 0, 0)
    elif colour == "white":
        shade, light, outline = (208, 210, 216), (176, 180, 190), (92, 94, 102)
    return np.array([base, shade, light, dark, outline], dtype=np.float32)


def paint(
    canvas: NDArray[np.float32], drawn: Sprite, x: int, y: int, inks: NDArray[np.float32]
) -> None:
    """Lay a sprite over a canvas float32[H, W, 3] of whole numbers, its corner at (x, y)."""
    height, width = drawn.mask.shape
    part = canvas[y : y + height, x : x + width]
    mixed = part * drawn.empty
    mixed += (drawn.cover @ inks).reshape(height, width, 3)
    mixed += drawn.fine // 2
    mixed /= drawn.fine  # a power of two, so this is exact
    np.floor(mixed, out=part)
