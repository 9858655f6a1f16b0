"""Pillow's resampling as matrix products: windows, weights, rounding and order of the axes.

The weights are integers over 2^22 and the pixels 8 bits, so every sum is exact in float64 and the
result is Pillow's to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Band = tuple[int, int, np.ndarray]
"""First and last input index, and the weights of the outputs that they feed."""

# Pillow keeps filter weights as integers with this many bits after the point.
_FRACTION = 1 << 22
# Outputs per matrix product: narrow enough that a band of the input, not all of it, is read.
_BAND = 32


def rows_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether Pillow 13 shrinks the height before the width; its rounding between shows which.

    Found by trial over sizes and filters; earlier versions always begin with the width.
    """
    return height - new_height > max(0, 2 * (width - new_width))


def resample(pixels: Tensor, axis: int, target: int, filter: str) -> Tensor:
    """Resample axis -2 (rows) or -1 (columns) of uint8[..., H, W] to `target`."""
    return apply(pixels, axis, bands(pixels.shape[axis], target, filter, 0, target), 0)


def apply(pixels: Tensor, axis: int, windows: list[Band], start: int) -> Tensor:
    """Weigh axis -2 or -1 of uint8[..., H, W], whose first index there is `start`."""
    import torch

    exact = torch.float32 if pixels.device.type == "mps" else torch.float64
    parts = []
    for low, high, weights in windows:
        band = pixels.narrow(axis, low - start, high - low).to(exact)
        matrix = torch.from_numpy(weights).to(device=pixels.device, dtype=exact)
        sums = matrix.T.matmul(band) if axis == -2 else band.matmul(matrix)
        # Half rounds up, as an integer shift does; torch.round would go to even.
        parts.append(sums.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(parts, axis)


@lru_cache(maxsize=64)
def bands(length: int, target: int, filter: str, begin: int, end: int) -> list[Band]:
    """Input slices with the weights float64[slice, up to _BAND] of the outputs that they feed."""
    starts, taps = filter_weights(length, target, filter, begin, end)
    result = []
    for first in range(0, end - begin, _BAND):
        last = min(first + _BAND, end - begin)
        low = starts[first]
        high = max(starts[i] + len(taps[i]) for i in range(first, last))
        matrix = np.zeros((high - low, last - first))
        for i in range(first, last):
            matrix[starts[i] - low : starts[i] - low + len(taps[i]), i - first] = taps[i]
        result.append((low, high, matrix))
    return result


def filter_weights(
    length: int, target: int, filter: str, begin: int, end: int
) -> tuple[list[int], list[np.ndarray]]:
    """For outputs `begin` to `end` of `target`: first input pixel and weights of the window.

    The window widens with the reduction (that is the antialiasing), the weights are normalised to
    sum one and rounded to 22 bits after the point.
    """
    shape, reach = _SHAPES[filter]
    scale = length / target
    stretch = max(scale, 1.0)
    starts, taps = [], []
    for index in range(begin, end):
        center = (index + 0.5) * scale
        low = max(int(center - reach * stretch + 0.5), 0)
        high = min(int(center + reach * stretch + 0.5), length)
        window = shape((np.arange(low, high) - center + 0.5) / stretch)
        window = window / (window.sum() or 1.0)
        starts.append(low)
        rounded = np.trunc(window * _FRACTION + np.copysign(0.5, window))
        taps.append(rounded / _FRACTION)
    return starts, taps


def nearest_indices(length: int, target: int, part: slice = slice(None)) -> np.ndarray:
    """The source index of each output: Pillow adds the step up, so the rounding adds up too."""
    scale = length / target
    steps = np.full(target, scale)
    steps[0] = scale * 0.5
    indices: np.ndarray = np.add.accumulate(steps)[part].astype(np.int64)
    return np.minimum(indices, length - 1)


def _box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _hamming(x: np.ndarray) -> np.ndarray:
    inside = np.abs(x) < 1.0
    return np.where(inside, np.sinc(x) * (0.54 + 0.46 * np.cos(math.pi * x)), 0.0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


_SHAPES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
