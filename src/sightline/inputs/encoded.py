"""Pictures written out as text: base64, and addresses that hold it (RFC 2397)."""

from __future__ import annotations

import base64
import binascii

from sightline.core.errors import ImageError
from sightline.inputs.limits import MAX_BYTES


def is_data_address(source: object) -> bool:
    """Whether a text is a picture written out: `data:image/png;base64,...`."""
    return isinstance(source, str) and source[:5].lower() == "data:"


def from_data_address(address: str) -> bytes:
    """The bytes of `data:image/png;base64,...`.

    Raises:
        ImageError: another kind of data, or damaged base64.
    """
    head, _, text = address.partition(",")
    kind = head[5:].lower()
    if not kind.endswith(";base64") or not kind.startswith(("image/", ";")):
        raise ImageError(
            f"{head[:40]!r} holds no picture in base64 (data:image/png;base64,...)",
            "image_unsupported",
        )
    return from_base64(text.encode("utf-8", "replace"))


def from_base64(text: bytes) -> bytes:
    """The bytes that base64 stands for; blanks and line breaks in it are passed over.

    Raises:
        ImageError: no base64, or more of it than a picture may have.
    """
    if len(text) > MAX_BYTES * 4 // 3:
        raise ImageError("more base64 than a picture may have", "image_too_large")
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ImageError(f"its base64 is damaged ({error})", "image_undecodable") from None
