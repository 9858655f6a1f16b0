"""Convolution masks over pictures: the printed formula, its twin in networks, and what borders do.

    convolution   g(x, y) = sum over u, v of k(u, v) f(x - u, y - v)
    correlation   g(x, y) = sum over u, v of k(u, v) f(x + u, y + v)

The formula is what textbooks print, and it turns the mask by 180 degrees against the picture; the
layers that deep learning calls convolutions compute the correlation. Symmetric masks cannot tell
the two apart; Sobel's change their sign.

u and v count from the centre of the mask: its middle, and where a side is even the place before
the middle (index (side - 1) // 2). Pictures are [H, W] or [H, W, C] with the channels last, and
every channel is filtered on its own. Values keep the range they came in (0..255 or 0..1);
`sightline.inputs.grey_levels` says how they become a picture to look at.

Letters of this file beside the legend: R rows and S columns of a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.core.errors import ConfigError, ImageError, unknown_name
from sightline.inputs.filter_masks import Filter, Mask
from sightline.inputs.grey_levels import Pixels, Shown, check_shown, grey_levels

Border = Literal["reflect", "edge", "zero", "wrap", "valid", "keep"]
"""What lies outside of the picture.

- "reflect": the picture mirrored, without its outermost pixels twice (numpy's "reflect");
- "edge": the nearest pixel, repeated;
- "zero": zeros;
- "wrap": the picture again, as on a torus;
- "valid": nothing: the result has only the places where the mask fits, R - 1 rows less;
- "keep": nothing: where the mask does not fit, the pixel stays as it was (Pillow's rule).
"""
_PADDED = {"reflect": "reflect", "edge": "edge", "zero": "constant", "wrap": "wrap"}
_STRIP = 1 << 18
"""Numbers at once: two such strips of float32 stay in a core's cache."""
_OUTSIDE = -1


class _Window(NamedTuple):
    """A mask as it is laid over the picture, and how far it reaches on each side."""

    weights: NDArray[np.float64]
    above: int
    left: int
    factors: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    """A column and a row whose product the weights are, where two passes cost less."""


class _Strip(NamedTuple):
    """A few rows of an answer."""

    start: int
    values: NDArray[Any]


def convolve(pixels: Pixels, mask: Mask | ArrayLike, border: Border = "reflect") -> NDArray[Any]:
    """The printed formula, with the mask turned: a single bright pixel becomes the mask.

    Args:
        pixels: [H, W] or [H, W, C]; floats keep their range.
        mask: any size, odd or even.
        border: what lies outside of the picture.

    Returns:
        float32 (float64 for float64) of the size of the picture; smaller with "valid".

    Raises:
        ImageError: an array that is no picture.
        ConfigError: an unknown border, or with "valid" a mask that does not fit into the picture.
    """
    return _whole(pixels, (_as_mask(mask),), border, turned=True)


def correlate(pixels: Pixels, mask: Mask | ArrayLike, border: Border = "reflect") -> NDArray[Any]:
    """What a convolutional layer computes: the mask laid over the picture as it is printed.

    `convolve` with the mask turned by 180 degrees; arguments and errors are the same.
    """
    return _whole(pixels, (_as_mask(mask),), border, turned=False)


def apply_filter(
    pixels: Pixels, chosen: Filter, border: Border = "reflect", correlation: bool = False
) -> NDArray[Any]:
    """The answer of a filter; of several masks, the root of the sum of squares.

    Raises:
        ImageError: an array that is no picture.
        ConfigError: an unknown border, or with "valid" a mask that does not fit into the picture.
    """
    return _whole(pixels, chosen.masks, border, turned=not correlation)


def filter_picture(
    pixels: NDArray[np.uint8],
    chosen: Filter,
    border: Border = "reflect",
    shown: Shown = "clip",
    correlation: bool = False,
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """`as_picture(apply_filter(...))` strip by strip: no float copy of the picture is made.

    Returns:
        The picture, and the smallest and the largest answer before they became grey levels.

    Raises:
        ImageError: an array that is no picture.
        ConfigError: an unknown border or rule, or a mask that does not fit.
    """
    check_shown(shown)
    turned = not correlation
    ends = (np.inf, -np.inf)
    if shown == "stretch":
        for strip in _answers(pixels, chosen.masks, border, turned):
            ends = _wider(ends, strip.values)
    limits, ends = ends, (np.inf, -np.inf)
    result = np.empty(_size(pixels, chosen.masks, border), np.uint8)
    for strip in _answers(pixels, chosen.masks, border, turned):
        ends = _wider(ends, strip.values)
        rows = slice(strip.start, strip.start + len(strip.values))
        result[rows] = grey_levels(strip.values, shown, 255.0, limits)
    return result, ends


# Where the numbers are made


def _whole(pixels: Pixels, masks: Sequence[Mask], border: Border, turned: bool) -> NDArray[Any]:
    result = np.empty(_size(pixels, masks, border), _float_type(pixels))
    for strip in _answers(pixels, masks, border, turned):
        result[strip.start : strip.start + len(strip.values)] = strip.values
    return result


def _answers(
    pixels: Pixels, masks: Sequence[Mask], border: Border, turned: bool
) -> Iterator[_Strip]:
    """Strips of the answer from top to bottom; the masks of one filter have one size."""
    streams = [_strips(pixels, mask, border, turned) for mask in masks]
    for strips in zip(*streams, strict=True):
        start, first = strips[0]
        if len(strips) == 1:
            values = first
        else:
            values = np.sqrt(sum(np.square(strip.values) for strip in strips))
        if border == "keep":
            _restore(values, start, pixels, _window(masks[0], turned))
        yield _Strip(start, values)


def _strips(pixels: Pixels, mask: Mask, border: Border, turned: bool) -> Iterator[_Strip]:
    """One mask over the picture, a few rows at a time."""
    window, kind = _window(mask, turned), _float_type(pixels)
    high, wide = _size(pixels, (mask,), border)[:2]
    rows = _sources(pixels.shape[0], high, window.above, mask.shape[0], border)
    columns = _sources(pixels.shape[1], wide, window.left, mask.shape[1], border)
    channels = int(np.prod(pixels.shape[2:]))
    step = max(mask.shape[0], _STRIP // max(1, len(columns) * channels))
    for start, end in pairwise([*range(0, high, step), high]):
        part = _taken(pixels, rows[start : end + mask.shape[0] - 1], columns, kind)
        values = _slide(part, window, (end - start, wide))
        if mask.divisor != 1:
            values /= mask.divisor
        if mask.offset:
            values += mask.offset
        yield _Strip(start, values)


def _slide(part: NDArray[Any], window: _Window, size: tuple[int, int]) -> NDArray[Any]:
    """The weighted sum over every position of the window that lies inside the part."""
    high, wide = size
    if window.factors is not None:
        column, row = window.factors
        across = _sum([(w, part[u : u + high]) for u, w in enumerate(column)])
        return _sum([(w, across[:, v : v + wide]) for v, w in enumerate(row)])
    return _sum(
        [
            (weight, part[u : u + high, v : v + wide])
            for (u, v), weight in np.ndenumerate(window.weights)
        ]
    )


def _sum(taps: list[tuple[Any, NDArray[Any]]]) -> NDArray[Any]:
    """The sum of weight times values; a weight of 0 costs nothing and spreads no NaN."""
    total = np.zeros_like(taps[0][1])
    product = np.empty_like(total)
    for weight, values in taps:
        if weight:
            total += np.multiply(values, total.dtype.type(weight), out=product)
    return total


def _taken(
    pixels: Pixels, rows: NDArray[np.intp], columns: NDArray[np.intp], kind: Any
) -> NDArray[Any]:
    """The rows and columns of a padded picture, from the picture."""
    part = pixels[rows][:, columns].astype(kind)
    part[rows == _OUTSIDE] = 0
    part[:, columns == _OUTSIDE] = 0
    return part


def _sources(length: int, result: int, before: int, side: int, border: Border) -> NDArray[np.intp]:
    """Which pixel stands at each place of the padded axis; `_OUTSIDE` for a zero."""
    places = np.arange(length)
    if border == "valid":
        return places
    if border == "keep":  # what is computed at the border is replaced afterwards
        border = "edge"
    after = result + side - 1 - length - before
    extra = {"constant_values": _OUTSIDE} if border == "zero" else {}
    padded: NDArray[np.intp] = np.pad(places, (before, after), _PADDED[border], **extra)  # type: ignore[call-overload]
    return padded


def _window(mask: Mask, turned: bool) -> _Window:
    rows, columns = mask.shape
    above, left = mask.centre
    weights = mask.weights
    if turned:
        weights, above, left = weights[::-1, ::-1], rows - 1 - above, columns - 1 - left
    return _Window(weights, above, left, _factors(weights))


def _factors(weights: NDArray[np.float64]) -> Any:
    """Column and row of weights that are a product, where two passes save work."""
    if np.count_nonzero(weights) <= 2 * sum(weights.shape):
        return None
    u, v = np.unravel_index(np.abs(weights).argmax(), weights.shape)
    column, row = weights[:, v], weights[u] / weights[u, v]
    same = np.allclose(np.outer(column, row), weights, rtol=1e-12, atol=1e-12 * abs(weights[u, v]))
    return (column, row) if same else None


def _restore(values: NDArray[Any], start: int, pixels: Pixels, window: _Window) -> None:
    """Put the picture back where the mask did not fit."""
    (rows, columns), (height, width) = window.weights.shape, pixels.shape[:2]
    original = pixels[start : start + len(values)]
    down = np.arange(start, start + len(values))
    outside = (down < window.above) | (down >= height - (rows - 1 - window.above))
    values[outside] = original[outside]
    across = np.arange(width)
    outside = (across < window.left) | (across >= width - (columns - 1 - window.left))
    values[:, outside] = original[:, outside]


# What is allowed


def _size(pixels: Pixels, masks: Sequence[Mask], border: Border) -> tuple[int, ...]:
    """The shape of the answer."""
    if not isinstance(pixels, np.ndarray) or pixels.ndim not in (2, 3) or pixels.dtype.kind not in (
        "buif"
    ):  # fmt: skip
        arrived = (
            f"{pixels.dtype}{list(pixels.shape)}"
            if isinstance(pixels, np.ndarray)
            else type(pixels).__name__
        )
        raise ImageError(
            f"a picture to filter is a numpy array of numbers, [H, W] or [H, W, C]: {arrived} "
            "arrived",
            "image_unsupported",
        )
    if 0 in pixels.shape:
        raise ImageError(f"a picture of {list(pixels.shape)} has no pixels", "image_empty")
    if border not in get_args(Border):
        raise ConfigError(unknown_name("border", str(border), get_args(Border)))
    if border != "valid":
        return pixels.shape
    rows, columns = masks[0].shape
    height, width = pixels.shape[:2]
    if rows > height or columns > width:
        raise ConfigError(
            f"a mask of {rows}x{columns} does not fit into a picture of {height}x{width}: with the "
            "border 'valid' nothing would be left; take another border"
        )
    return height - rows + 1, width - columns + 1, *pixels.shape[2:]


def _as_mask(mask: Mask | ArrayLike) -> Mask:
    return mask if isinstance(mask, Mask) else Mask(np.asarray(mask, np.float64))


def _float_type(pixels: Pixels) -> Any:
    wide = isinstance(pixels, np.ndarray) and pixels.dtype.kind in "uif" and pixels.itemsize > 4
    return np.dtype(np.float64 if wide else np.float32)


def _wider(ends: tuple[float, float], values: NDArray[Any]) -> tuple[float, float]:
    return min(ends[0], float(values.min())), max(ends[1], float(values.max()))
