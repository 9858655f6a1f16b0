"""The size that a picture had before the data set was made, from its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.core.errors import DataError
from sightline.inputs.picture_size import Size

ORIGINAL_COLUMNS = ("original_width", "original_height")
"""Where img2dataset and DataComp keep the size that a picture had before it was reduced."""


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
