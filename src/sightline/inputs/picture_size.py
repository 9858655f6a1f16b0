"""Width and height of a picture from its header, without decoding it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sightline.core.errors import ImageError
from sightline.core.interfaces import StoredPicture
from sightline.inputs.images import orientation_of, read_image
from sightline.inputs.strictness import strict_pillow

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class Size(NamedTuple):
    """Pixels, as stored: a photograph on its side is not turned upright."""

    width: int
    height: int


def picture_size(image: Any, upright: bool = False) -> Size:
    """The size of a path, bytes, a PIL image, an array, or a picture inside a larger file.

    Only the header is read, so that a file that breaks off later has a size.

    Args:
        upright: after the EXIF orientation, as pictures are decoded and boxes are counted.

    Raises:
        ImageError: there is no header that could be read.
    """
    if isinstance(image, np.ndarray):
        return Size(image.shape[1], image.shape[0])
    if isinstance(image, Image.Image):
        return _size(image, upright)
    if isinstance(image, Path) and not image.is_file():
        raise ImageError(f"{image.name}: there is no such file", "image_not_found")
    data = image.read_stored() if isinstance(image, StoredPicture) else image
    try:
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        with strict_pillow(), Image.open(source, formats=_FORMATS) as opened:
            return _size(opened, upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # a format that only our reader knows, or an error that it words for people
        name = getattr(image, "name", None)
        height, width = read_image(data, name=str(name) if name else None).shape[:2]
        return Size(width, height)


def _size(image: Image.Image, upright: bool) -> Size:
    width, height = image.size
    on_its_side = upright and orientation_of(image) >= 5  # Exif 2.32, table 6
    return Size(height, width) if on_its_side else Size(width, height)
