"""Pixels to pixels: pure functions named by what they do.

Arrays are uint8[H, W, 3], tensors uint8[B, C, H, W]; a size is (height, width). Pillow's
resampling is the reference that published checkpoints were trained behind: `resize` calls it,
`resize_tensor` computes the same numbers on tensors, so that it can run on an accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sightline.core.errors import ConfigError, ImageError, unknown_name
from sightline.inputs import resampling

if TYPE_CHECKING:
    from torch import Tensor

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""In the order of Pillow's numbers, which published files use: `FILTERS[3]` is "bicubic"."""


def shortest_side(
    height: int, width: int, target: int, max_size: int | None = None
) -> tuple[int, int]:
    """The size whose shorter side is `target` at the same aspect: (height, width).

    The longer side is rounded down. With `max_size`, a longer side beyond it is cut to it and the
    shorter one follows. The rule of CLIP's published preprocessing.

    Raises:
        ConfigError: `max_size` does not leave room for the shorter side.
    """
    if max_size is not None and max_size <= target:
        raise ConfigError(f"the longest side ({max_size}) must exceed the shortest ({target})")
    short, long = min(height, width), max(height, width)
    new_short, new_long = target, int(target * long / short)
    if max_size is not None and new_long > max_size:
        new_short, new_long = max(1, int(max_size * new_short / new_long)), max_size
    return (new_long, new_short) if width <= height else (new_short, new_long)


def resize(pixels: np.ndarray, size: tuple[int, int], filter: str) -> np.ndarray:
    """Resample uint8[H, W, 3] to uint8[h, w, 3] with Pillow.

    Args:
        size: (height, width) of the result.
        filter: one of `FILTERS`.

    Raises:
        ConfigError: an unknown filter.
        ImageError: pixels that are not uint8[H, W, 3].
    """
    if filter not in FILTERS:
        raise ConfigError(unknown_name("filter", filter, FILTERS))
    check_pixels(pixels)
    if pixels.shape[:2] == tuple(size):
        return pixels
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    kind = Image.Resampling(FILTERS.index(filter))
    return np.asarray(picture.resize((size[1], size[0]), kind))


def resize_and_crop(
    pixels: np.ndarray, resized: tuple[int, int], size: tuple[int, int], filter: str
) -> np.ndarray:
    """`center_crop(resize(pixels, resized, filter), size)` in bounded memory.

    A long thin picture would be blown up to many times the crop (1 x 16,384 to 224 x 3.7 million):
    there only the part that survives the crop is computed, to the same values.

    Raises:
        ConfigError: an unknown filter.
        ImageError: pixels that are not uint8[H, W, 3].
    """
    if resized[0] * resized[1] <= 4 * size[0] * size[1]:
        return center_crop(resize(pixels, resized, filter), size)
    if filter not in FILTERS:
        raise ConfigError(unknown_name("filter", filter, FILTERS))
    check_pixels(pixels)
    rows = _centered(resized[0], size[0])[1]
    columns = _centered(resized[1], size[1])[1]
    if filter == "nearest":
        kept = pixels[resampling.nearest_indices(pixels.shape[0], resized[0], rows)]
        kept = kept[:, resampling.nearest_indices(pixels.shape[1], resized[1], columns)]
    else:
        kept = _resample_part(pixels, resized, rows, columns, filter)
    return center_crop(kept, size)


def _resample_part(
    pixels: np.ndarray, resized: tuple[int, int], rows: slice, columns: slice, filter: str
) -> np.ndarray:
    """`resize(pixels, resized, filter)[rows, columns]`, from the source pixels that they need."""
    import torch

    height, width = pixels.shape[:2]
    down = resampling.bands(height, resized[0], filter, rows.start, rows.stop)
    across = resampling.bands(width, resized[1], filter, columns.start, columns.stop)
    top, left = down[0][0], across[0][0]
    source = pixels[top : down[-1][1], left : across[-1][1]].transpose(2, 0, 1)
    part = torch.from_numpy(np.ascontiguousarray(source))
    for axis in (-2, -1) if resampling.rows_first(height, width, *resized) else (-1, -2):
        bands, start = (down, top) if axis == -2 else (across, left)
        if pixels.shape[axis + 2] != resized[axis + 2]:
            part = resampling.apply(part, axis, bands, start)
    return part.permute(1, 2, 0).numpy()


def check_pixels(pixels: np.ndarray) -> None:
    """Refuse what is not uint8[H, W, 3] with at least one pixel.

    Raises:
        ImageError: says what arrived.
    """
    if not isinstance(pixels, np.ndarray):
        arrived = type(pixels).__name__
    elif pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        arrived = f"{pixels.dtype}{list(pixels.shape)}"
    elif 0 in pixels.shape:
        raise ImageError(f"a picture of {list(pixels.shape)} has no pixels", "image_empty")
    else:
        return
    raise ImageError(
        f"pixels must be a numpy array uint8[H, W, 3], not {arrived}: "
        "sightline.inputs.images.read_image makes one from any picture",
        "image_unsupported",
    )


def center_crop(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle (height, width) of uint8[H, W, 3], with black where the picture is smaller.

    An odd remainder goes to the bottom and right when cutting, to the top and left when padding,
    as in CLIP's published preprocessing.
    """
    rows, from_rows = _centered(pixels.shape[0], size[0])
    columns, from_columns = _centered(pixels.shape[1], size[1])
    if (rows.stop - rows.start, columns.stop - columns.start) == tuple(size):
        return pixels[from_rows, from_columns]
    result = np.zeros((size[0], size[1], pixels.shape[2]), pixels.dtype)
    result[rows, columns] = pixels[from_rows, from_columns]
    return result


def centre_start(length: int, target: int) -> int:
    """Where the middle `target` of a side of `length` begins: before 0 where it is shorter."""
    return (length - target) // 2


def _centered(length: int, target: int) -> tuple[slice, slice]:
    """Where the kept part lies in the result and in the source, along one axis."""
    start = centre_start(length, target)
    if target <= length:
        return slice(0, target), slice(start, start + target)
    return slice(-start, length - start), slice(0, length)


def normalize(
    pixels: Tensor, mean: Sequence[float], std: Sequence[float], rescale: float = 1 / 255
) -> Tensor:
    """(pixels * rescale - mean) / std over channels, as one multiply-add: float32[B, C, H, W].

    Args:
        pixels: [B, C, H, W] of any number type; a float32 tensor is changed in place.
    """
    import torch

    scale, shift = affine(mean, std, rescale)
    shape = (1, len(scale), 1, 1)
    factor = torch.tensor(scale, dtype=torch.float32, device=pixels.device).reshape(shape)
    offset = torch.tensor(shift, dtype=torch.float32, device=pixels.device).reshape(shape)
    return pixels.to(torch.float32).mul_(factor).add_(offset)


def affine(
    mean: Sequence[float], std: Sequence[float], rescale: float
) -> tuple[list[float], list[float]]:
    """Factors and offsets, one a channel, with x * factor + offset = (x * rescale - mean) / std."""
    factors = [rescale / s for s in std]
    offsets = [-m / s for m, s in zip(mean, std, strict=True)]
    return factors, offsets


def resize_tensor(pixels: Tensor, size: tuple[int, int], filter: str) -> Tensor:
    """Resample uint8[B, C, H, W] to uint8[B, C, h, w] as Pillow would, on the tensor's device.

    Antialiased and separable: one axis, rounded to 8 bits, then the other, with Pillow's filter
    support, 22-bit weights and order. The sums are exact in float64, so the result equals
    Pillow's; devices without float64 (Apple's GPU) compute in float32 and may differ by one level
    where a sum lies on a rounding border.

    Raises:
        ConfigError: an unknown filter.
        ImageError: a tensor that is not uint8[B, C, H, W].
    """
    import torch

    if filter not in FILTERS:
        raise ConfigError(unknown_name("filter", filter, FILTERS))
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        raise ImageError(
            f"pixels must be a tensor uint8[B, C, H, W], not {pixels.dtype}{list(pixels.shape)}",
            "image_unsupported",
        )
    height, width = size
    if filter == "nearest":
        rows = torch.from_numpy(resampling.nearest_indices(pixels.shape[2], height)).to(
            pixels.device
        )
        columns = torch.from_numpy(resampling.nearest_indices(pixels.shape[3], width)).to(
            pixels.device
        )
        return pixels[:, :, rows][:, :, :, columns]
    rows_first = resampling.rows_first(pixels.shape[2], pixels.shape[3], height, width)
    for axis in (-2, -1) if rows_first else (-1, -2):
        if pixels.shape[axis] != size[axis + 2]:
            pixels = resampling.resample(pixels, axis, size[axis + 2], filter)
    return pixels.contiguous()
