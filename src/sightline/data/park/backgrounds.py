"""The ground that objects stand on: muted places with a sky, some with water or a path.

Tones are duller than any object colour; noise and a tint per scene keep them from being constant.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.random import PCG64
from numpy.typing import NDArray

Tone = tuple[int, int, int]

_CACHED_PIXELS = 512 * 512


class Place(NamedTuple):
    """Tones from top to bottom, and where water lies below the horizon (fractions of the rest)."""

    sky_top: Tone
    sky_low: Tone
    ground_far: Tone
    ground_near: Tone
    water: tuple[float, float] | None = None
    path: Tone | None = None


_DAY, _DAY_LOW = (158, 188, 208), (204, 216, 220)
_GRASS_FAR, _GRASS = (164, 184, 142), (136, 164, 112)
_WATER_FAR, _WATER_NEAR = (150, 180, 190), (112, 150, 170)

PLACES: dict[str, Place] = {
    "meadow": Place(_DAY, _DAY_LOW, _GRASS_FAR, _GRASS),
    "beach": Place(_DAY, _DAY_LOW, (214, 202, 170), (200, 184, 146), water=(0.0, 0.4)),
    "pond": Place(_DAY, _DAY_LOW, _GRASS_FAR, _GRASS, water=(0.22, 0.62)),
    "lake": Place((176, 190, 204), (214, 216, 214), _GRASS_FAR, _GRASS, water=(0.05, 0.66)),
    "path": Place(_DAY, _DAY_LOW, _GRASS_FAR, _GRASS, path=(190, 178, 156)),
    "snow": Place((184, 194, 206), (208, 214, 222), (214, 220, 228), (226, 230, 234)),
    "dusk": Place((122, 116, 148), (190, 158, 156), (124, 130, 120), (104, 114, 100)),
    "square": Place((170, 188, 204), (204, 212, 216), (178, 176, 172), (162, 160, 158)),
}
HORIZONS = (0.36, 0.42, 0.48, 0.54)
"""Where the sky may end, as a fraction of the height."""


def water_band(name: str, horizon: float) -> tuple[float, float] | None:
    """Top and bottom of the water as fractions of the height; None where there is none."""
    water = PLACES[name].water
    if water is None:
        return None
    return horizon + water[0] * (1 - horizon), horizon + water[1] * (1 - horizon)


def background(
    name: str, height: int, width: int, horizon: int, tint: Tone, grain: tuple[int, int]
) -> NDArray[np.float32]:
    """float32[H, W, 3] of whole numbers 0..255: a place under one light.

    Args:
        horizon: index into HORIZONS.
        tint: added to the three channels.
        grain: corner of the noise, each below the side of the picture.
    """
    large = height * width > _CACHED_PIXELS
    base = (_draw if large else _drawn)(name, height, width, horizon)
    noise = _noise(height, width)
    row, column = grain[0] % height, grain[1] % width
    picture = base.astype(np.float32)
    picture += noise[row : row + height, column : column + width]
    picture += np.array(tint, dtype=np.float32)
    return np.clip(picture, 0, 255, out=picture)


def _rows(top: Tone, bottom: Tone, count: int) -> NDArray[np.int64]:
    """int64[count, 1, 3]: from one tone to the other, in whole numbers."""
    steps = np.arange(count)[:, None, None]
    change = np.subtract(bottom, top) * steps // max(1, count - 1)
    rows: NDArray[np.int64] = np.array(top, dtype=np.int64) + change
    return rows


def _draw(name: str, height: int, width: int, horizon: int) -> NDArray[np.uint8]:
    place, level = PLACES[name], round(HORIZONS[horizon] * height)
    picture = np.empty((height, width, 3), dtype=np.int64)
    picture[:level] = _rows(place.sky_top, place.sky_low, level)
    picture[level:] = _rows(place.ground_far, place.ground_near, height - level)
    band = water_band(name, HORIZONS[horizon])
    if band is not None:
        first, last = round(band[0] * height), round(band[1] * height)
        picture[first:last] = _rows(_WATER_FAR, _WATER_NEAR, last - first)
    if place.path is not None:
        _lay_path(picture, level, place.path)
    return picture.astype(np.uint8)


def _lay_path(picture: NDArray[np.int64], level: int, tone: Tone) -> None:
    """A path from the horizon to the lower edge, wider as it comes nearer."""
    height, width, _ = picture.shape
    for row in range(level, height):
        near = (row - level) / (height - level)
        centre, half = width * (0.56 - 0.16 * near), width * (0.03 + 0.15 * near)
        picture[row, max(0, round(centre - half)) : round(centre + half)] = tone


@lru_cache(maxsize=64)
def _drawn(name: str, height: int, width: int, horizon: int) -> NDArray[np.uint8]:
    return _draw(name, height, width, horizon)


@lru_cache(maxsize=4)
def _noise(height: int, width: int) -> NDArray[np.int8]:
    """int8[2H, 2W, 1]: about -9..9, fine grain on soft blotches, repeated twice each way."""
    words = PCG64(17).random_raw(height * width // 8 + 1)
    fine = words.astype("<u8").view(np.uint8)[: height * width].reshape(height, width)
    coarse = fine[: (height + 7) // 8, : (width + 7) // 8].astype(np.int64)
    blotches = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    for axis in (0, 1):
        shifted = np.stack([np.roll(blotches, step, axis) for step in range(-3, 4)])
        blotches = shifted.sum(axis=0) // 7
    noise = (fine.astype(np.int64) % 9 - 4) + (blotches - 128) // 20
    return np.tile(noise, (2, 2)).astype(np.int8)[..., None]
