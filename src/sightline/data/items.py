"""Records with the encoded bytes of their pictures, ready to be written somewhere else."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sightline.core.errors import ImageError
from sightline.core.interfaces import StoredPicture
from sightline.data.records import Record
from sightline.inputs.folders import shown_name
from sightline.inputs.formats import identify
from sightline.inputs.limits import MAX_BYTES

if TYPE_CHECKING:
    from sightline.data.records import Picture

_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WebP": "webp", "GIF": "gif", "BMP": "bmp",
             "TIFF": "tif", "AVIF": "avif", "HEIC": "heic"}  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """A picture's bytes and the suffix of their format."""

    data: bytes
    suffix: str


@dataclass(frozen=True)
class Item:
    """A record with its pictures' bytes, and its number among those that are written."""

    number: int
    record: Record
    pictures: tuple[Encoded, ...]

    @property
    def data(self) -> bytes:
        """The bytes of its first picture."""
        return self.pictures[0].data

    @property
    def suffix(self) -> str:
        """The suffix of its first picture."""
        return self.pictures[0].suffix


def item_of(number: int, record: Record) -> Item:
    """Read all pictures of a record.

    Raises:
        ImageError: one of them cannot be read, or is no picture.
    """
    return Item(number, record, tuple(_encoded(picture) for picture in record.pictures))


def picture_bytes(record: Record) -> bytes:
    """The encoded bytes of a record's picture: as they are stored, or PNG of one in memory.

    Raises:
        ImageError: the file is not there or larger than pictures are.
    """
    return _bytes_of(record.image)


def _encoded(picture: Picture) -> Encoded:
    data = _bytes_of(picture)
    return Encoded(data, _SUFFIXES[identify(data)])


def _bytes_of(image: Picture) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, os.PathLike):
        return _file_bytes(Path(image))
    if isinstance(image, StoredPicture):
        return image.read_stored()
    drawn = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG")
    return buffer.getvalue()


def _file_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ImageError(f"{shown_name(path)}: there is no such file", "image_not_found")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(f"{shown_name(path)}: too many bytes", "image_too_large")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{shown_name(path)}: cannot be read ({error.strerror})", "image_not_found"
        ) from None
