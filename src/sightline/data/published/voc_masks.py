"""VOC's pictures of objects and classes, whose colours are numbers.

    SegmentationObject/000032.png   number k covers the k-th object of Annotations/000032.xml
    SegmentationClass/000032.png    number k covers the k-th of the twenty classes

Number 255 is what nobody decided: a border around each object and things too small. Here it is
outside of everything; VOC's own score leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import DataError, ImageError
from sightline.core.outputs import Box
from sightline.inputs import run_lengths
from sightline.inputs.folders import shown_name
from sightline.inputs.images import read_image

OBJECTS, CLASSES = "SegmentationObject", "SegmentationClass"
NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""The classes; their numbers begin at 1."""
VOID = 255


class NumberedPixels(Mapping[str, Any]):
    """The pixels of one number in a picture of numbers, as run lengths; read when asked for.

    Args:
        path: the picture.
        number: 1 to 254.
        box: where the pixels are looked for; None for everywhere.
    """

    def __init__(self, path: Path, number: int, box: Box | None = None) -> None:
        self.path, self.number, self.box = path, number, box

    @cached_property
    def _runs(self) -> dict[str, Any]:
        mask = _numbers(self.path) == self.number
        if self.box is not None:
            inside = np.zeros_like(mask)
            x1, y1, x2, y2 = (max(0, round(side)) for side in self.box)
            inside[y1:y2, x1:x2] = True
            mask &= inside
        return run_lengths.encode(mask)

    def __getitem__(self, name: str) -> Any:
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)


def outline_of(root: Path, stem: str, number: int, name: str, box: Box) -> NumberedPixels | None:
    """The pixels of an object of a picture; None where nobody drew them.

    Where only classes were drawn, those of its class inside its box.

    Args:
        number: of the object among those of the picture, from 0.
    """
    objects, classes = (root / folder / f"{stem}.png" for folder in (OBJECTS, CLASSES))
    if objects.is_file():
        return NumberedPixels(objects, number + 1)
    if name in NAMES and classes.is_file():
        return NumberedPixels(classes, NAMES.index(name) + 1, box)
    return None


def colours() -> NDArray[np.uint8]:
    """uint8[256, 3]: the colour of each number.

    The bits of a number go to red, green and blue in turn, the lowest to the highest ones.
    """
    numbers = np.arange(256)
    table = np.zeros((256, 3), np.uint8)
    for place in range(8):
        table[:, place % 3] |= ((numbers >> place & 1) << (7 - place // 3)).astype(np.uint8)
    return table


@lru_cache(maxsize=8)
def _numbers(path: Path) -> NDArray[np.uint8]:
    """uint8[H, W], of a picture in VOC's colours, or of one whose greys are the numbers.

    Raises:
        DataError: it cannot be read, or has other colours.
    """
    try:
        pixels = read_image(path)
    except ImageError as error:
        raise DataError(f"{shown_name(path)}: a mask cannot be read: {error}") from error
    grey = pixels[..., 0]
    known = (grey <= len(NAMES)) | (grey == VOID)
    if known.all() and (pixels == grey[..., None]).all():
        return grey
    table = _packed(colours())
    order = np.argsort(table)
    found = _packed(pixels)
    numbers = order[np.searchsorted(table[order], found).clip(max=len(table) - 1)]
    if (table[numbers] != found).any():
        raise DataError(f"{shown_name(path)}: has colours that stand for no number in VOC")
    return numbers.astype(np.uint8)


def _packed(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[..., 3] to one number a colour."""
    return pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
