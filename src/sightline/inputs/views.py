"""What is looked at of a picture, as a value that moves pixels, masks and boxes alike.

A view is a rectangle of the picture, mirrored or not, at some size. Augmentation draws a view and
asks it for everything, so that what a network sees and what it is told to say cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.core.errors import ConfigError, InputError
from sightline.core.outputs import Box, Detection, Segment
from sightline.inputs import run_lengths
from sightline.inputs.coordinates import clipped
from sightline.inputs.transforms import resize

Located = TypeVar("Located", Detection, Segment)

VISIBLE = 0.25
"""The least share of a thing that a view must show for it to be named, unless told otherwise."""


@dataclass(frozen=True)
class View:
    """A rectangle of a picture, perhaps mirrored left to right, resized.

    Attributes:
        window: (x1, y1, x2, y2) in whole pixels of the picture, x2 and y2 exclusive.
        size: (H, W) that the rectangle is resized to.
        mirrored: left and right change places.
        filter: how pixels are resampled; masks are always averaged over the pixels they shrink from
            and set where at least half of that is.
    """

    window: tuple[int, int, int, int]
    size: tuple[int, int]
    mirrored: bool = False
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.window
        if not (0 <= x1 < x2 and 0 <= y1 < y2) or min(self.size) < 1:
            raise ConfigError(
                f"a view needs a window (x1, y1, x2, y2) inside the picture and a size (H, W) of "
                f"at least one pixel: {self.window}, {self.size}"
            )

    def pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8[H, W, 3] of the picture as uint8[h, w, 3] of the view.

        Raises:
            InputError: the window reaches beyond the picture.
        """
        part = resize(np.ascontiguousarray(self._cut(pixels)), self.size, self.filter)
        return part[:, ::-1] if self.mirrored else part

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[H, W] of the picture as bool[h, w] of the view. Errors as in `pixels`."""
        part = Image.fromarray(self._cut(mask).astype(np.uint8) * 255)
        resized = part.resize((self.size[1], self.size[0]), Image.Resampling.BOX)
        seen = np.asarray(resized) >= 128
        return seen[:, ::-1] if self.mirrored else seen

    def box(self, box: Box) -> Box | None:
        """The part of a box that the view shows, in pixels of the view; None if it shows none."""
        x1, y1, x2, y2 = self.window
        left, right = max(box[0], x1), min(box[2], x2)
        top, bottom = max(box[1], y1), min(box[3], y2)
        if left >= right or top >= bottom:
            return None
        if self.mirrored:
            left, right = x1 + x2 - right, x1 + x2 - left
        down, across = self.size[0] / (y2 - y1), self.size[1] / (x2 - x1)
        box = (left - x1) * across, (top - y1) * down, (right - x1) * across, (bottom - y1) * down
        return clipped(box, self.size)  # rounding may reach beyond by the last digit

    def original(self, box: Box) -> Box:
        """A box of the view in pixels of the picture: what a network found there."""
        x1, y1, x2, y2 = self.window
        across, down = (x2 - x1) / self.size[1], (y2 - y1) / self.size[0]
        left, right = x1 + box[0] * across, x1 + box[2] * across
        if self.mirrored:
            left, right = x1 + x2 - right, x1 + x2 - left
        return left, y1 + box[1] * down, right, y1 + box[3] * down

    def located(self, things: Sequence[Located], visible: float = VISIBLE) -> list[Located]:
        """What of some things is in the view, in its pixels; the others are left out.

        Args:
            things: boxes, or boxes with masks, of the picture.
            visible: the least share that has to be inside: of the mask, or of the box where there
                is none. A mask's box becomes the one around what is left of it.

        Raises:
            ConfigError: a share that is none. InputError: a mask of another size than the window.
        """
        if not 0 <= visible <= 1:
            raise ConfigError(f"the visible share goes from 0 to 1: {visible}")
        return [seen for thing in things if (seen := self._seen(thing, visible)) is not None]

    def _seen(self, thing: Located, visible: float) -> Located | None:
        if isinstance(thing, Detection):
            box = self.box(thing.box)
            if box is None or _area(self.original(box)) < visible * _area(thing.box):
                return None
            return thing._replace(box=box)
        mask = self.mask(thing.mask)
        enough = self._cut(thing.mask).sum() >= visible * thing.mask.sum()
        if not mask.any() or not enough:
            return None
        return thing._replace(mask=mask, box=run_lengths.bounding_box(run_lengths.encode(mask)))

    def _cut(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        x1, y1, x2, y2 = self.window
        if array.shape[0] < y2 or array.shape[1] < x2:
            raise InputError(
                f"the window {self.window} reaches beyond a picture of {array.shape[1]} x "
                f"{array.shape[0]} pixels"
            )
        return array[y1:y2, x1:x2]


def whole(size: tuple[int, int], mirrored: bool = False) -> View:
    """All of a picture of a size (H, W), as large as it is."""
    return View((0, 0, size[1], size[0]), size, mirrored)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
