"""Pictures that are written as base64 text inside of tables and JSON."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from sightline.core.errors import DataError, ImageError
from sightline.data.shards.ranges import StoredRange
from sightline.inputs.limits import MAX_BYTES

_DATA = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


@dataclass(frozen=True)
class EncodedRange:
    """A picture that is a range of base64 text in a file; decoded when it is asked for."""

    text: StoredRange

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.text.name

    def read_stored(self) -> bytes:
        """The bytes of the picture.

        Raises:
            ImageError: no base64, too much of it, or the file is gone or has changed.
        """
        return _decoded(self.text.read_stored())


def is_data_address(text: str) -> bool:
    """Whether a text is a picture written out: `data:image/png;base64,...`."""
    return text[:5].lower() == "data:"


def from_data_address(text: str, where: str) -> bytes:
    """The bytes of `data:image/png;base64,...`.

    Raises:
        DataError: another kind of data, or no base64.
    """
    head = _DATA.match(text)
    if head is None:
        raise DataError(
            f"{where}: {text[:40]!r} is no picture in base64 (data:image/png;base64,...)"
        )
    try:
        return _decoded(text[head.end() :].encode("utf-8", "replace"))
    except ImageError as error:
        raise DataError(f"{where}: {error}") from None


def _decoded(text: bytes) -> bytes:
    if len(text) > MAX_BYTES * 4 // 3:
        raise ImageError("more base64 than a picture may have", "image_too_large")
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ImageError(f"its base64 is damaged ({error})", "image_undecodable") from None
