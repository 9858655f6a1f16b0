"""What covering a part of a picture costs its score (Zeiler and Fergus 2014, arXiv:1311.2901).

It asks the network nothing but answers, so it works for every network, and needs one answer for
each place of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.core.errors import ConfigError, unknown_name

Fill = Literal["blur", "grey"]
PARTS = 4
"""A window is this part of the shorter side, unless its size is given."""


@dataclass(frozen=True)
class Occlusion:
    """How a picture is covered, in pixels of the picture as the network gets it.

    Raises:
        ConfigError: a size below 1, a stride that leaves gaps, or an unknown fill.
    """

    window: int | None = None
    """Side of the square; None: a quarter of the shorter side."""
    stride: int | None = None
    """From one place to the next; None: half a window."""
    fill: Fill = "blur"
    """What covers: the picture itself, blurred beyond recognition, or its mean colour."""
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.fill not in get_args(Fill):
            raise ConfigError(unknown_name("fill", self.fill, get_args(Fill)))
        sizes = [self.batch_size, *(s for s in (self.window, self.stride) if s is not None)]
        if min(sizes) < 1 or (self.window and self.stride and self.stride > self.window):
            raise ConfigError(
                f"window {self.window}, stride {self.stride}, batch_size {self.batch_size}: each "
                "must be at least 1, and a stride at most a window, or gaps would stay uncovered"
            )

    def sizes(self, height: int, width: int) -> tuple[int, int]:
        """Window and stride for a picture of this size."""
        window = self.window or max(2, round(min(height, width) / PARTS))
        return window, min(self.stride or max(1, window // 2), window)


def lost_by_covering(
    score: Callable[[Tensor], Tensor], picture: Tensor, options: Occlusion
) -> tuple[Tensor, float]:
    """By how much the score falls when a pixel is covered, and the score of the whole picture.

    A pixel has the mean of all windows that cover it; windows reach beyond the edges, so that
    every pixel is covered equally often.

    Args:
        score: pictures float[B, C, H, W] to float[B].
        picture: float[C, H, W].

    Returns:
        float32[H, W], below 0 where covering raised the score; the score.
    """
    height, width = picture.shape[-2:]
    window, stride = options.sizes(height, width)
    cover = _cover(picture, window, options.fill)
    whole = float(score(picture[None])[0])
    fallen, times = torch.zeros(height, width), torch.zeros(height, width)
    places = list(_places(height, width, window, stride))
    for first in range(0, len(places), options.batch_size):
        chunk = places[first : first + options.batch_size]
        batch = picture.repeat(len(chunk), 1, 1, 1)
        for covered, (rows, columns) in zip(batch, chunk, strict=True):
            covered[:, rows, columns] = cover[:, rows, columns]
        for value, (rows, columns) in zip(score(batch).tolist(), chunk, strict=True):
            fallen[rows, columns] += whole - value
            times[rows, columns] += 1
    return fallen / times, whole


def _places(height: int, width: int, window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    for top in range(stride - window, height, stride):
        for left in range(stride - window, width, stride):
            yield (slice(max(0, top), top + window), slice(max(0, left), left + window))


def _cover(picture: Tensor, window: int, fill: Fill) -> Tensor:
    """float[C, H, W] that is laid over."""
    if fill == "grey":
        return picture.mean(dim=(1, 2), keepdim=True).expand_as(picture)
    return blurred(picture, window)


def blurred(picture: Tensor, width: int) -> Tensor:
    """float[C, H, W] without anything finer than `width` pixels."""
    rows, columns = (max(1, round(side / width)) for side in picture.shape[-2:])
    small = F.adaptive_avg_pool2d(picture[None], (rows, columns))
    return F.interpolate(small, picture.shape[-2:], mode="bilinear", align_corners=False)[0]
