"""Width and height of a picture from its header, without decoding it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sightline.core.errors import DataError, ImageError
from sightline.core.interfaces import StoredPicture
from sightline.inputs.images import read_image
from sightline.inputs.strictness import strict_pillow

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
ORIGINAL_COLUMNS = ("original_width", "original_height")
"""Where img2dataset and DataComp keep the size that a picture had before it was reduced."""


class Size(NamedTuple):
    """Pixels, as stored: a photograph on its side is not turned upright."""

    width: int
    height: int


def picture_size(image: Any) -> Size:
    """The size of a path, bytes, a PIL image, an array, or a picture inside a larger file.

    Only the header is read, so that a file that breaks off later has a size.

    Raises:
        ImageError: there is no header that could be read.
    """
    if isinstance(image, np.ndarray):
        return Size(image.shape[1], image.shape[0])
    if isinstance(image, Image.Image):
        return Size(*image.size)
    if isinstance(image, Path) and not image.is_file():
        raise ImageError(f"{image.name}: there is no such file", "image_not_found")
    data = image.read_stored() if isinstance(image, StoredPicture) else image
    try:
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        with strict_pillow(), Image.open(source, formats=_FORMATS) as opened:
            return Size(*opened.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # a format that only our reader knows, or an error that it words for people
        name = getattr(image, "name", None)
        height, width = read_image(data, name=str(name) if name else None).shape[:2]
        return Size(width, height)


def original_size(id: str, columns: Mapping[str, Any]) -> Size:
    """The size that the columns `original_width` and `original_height` tell.

    Raises:
        DataError: they are not there, or not positive whole numbers.
    """
    try:
        width, height = (int(columns[name]) for name in ORIGINAL_COLUMNS)
    except (KeyError, TypeError, ValueError):
        width = height = 0
    if width < 1 or height < 1:
        raise DataError(
            f"record {id!r}: no size in its columns {' and '.join(ORIGINAL_COLUMNS)}: "
            "read the sizes of the files instead"
        )
    return Size(width, height)
