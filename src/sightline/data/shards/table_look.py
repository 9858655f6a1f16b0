"""Where a table holds its pictures: what the schema of Parquet and Arrow files says.

The column of pictures is a struct {bytes, path} or plain bytes. Needs pyarrow, which the extra
`datasets` brings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sightline.core.errors import DataError
from sightline.core.lazy import require

PICTURE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "photo", "bytes",
                 "imagebytes", "pixelvalues", "digit")  # fmt: skip
PURPOSE = "reading Parquet and Arrow tables"


def arrow() -> Any:
    """The package pyarrow.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return require("pyarrow", "datasets", PURPOSE)


@dataclass(frozen=True)
class TableLook:
    """What a schema says: the column of pictures, and the names that class numbers stand for."""

    pictures: str | None
    """The column that holds encoded pictures; None where the table only names them."""
    is_struct: bool
    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]]


def look_at(schema: Any) -> TableLook:
    """Read a schema, with the notes that `datasets` leaves in its metadata.

    Raises:
        DataError: several columns of pictures.
    """
    types = arrow().types
    features = _features(schema)
    named = [name for name, kind in features.items() if _kind(kind) == "Image"]
    binary = [f.name for f in schema if _is_binary(types, f.type)]
    structs = [f.name for f in schema if types.is_struct(f.type) and _has_bytes(types, f.type)]
    found = [name for name in named if name in (*structs, *binary)] or structs
    if not found:
        found = [n for n in binary if _plain(n) in PICTURE_NAMES]
    if len(found) > 1:
        known = [n for n in found if _plain(n) in PICTURE_NAMES[:1]]
        if len(known) != 1:
            raise DataError(
                f"several columns hold pictures: {', '.join(found)}: keep one of them, or name it "
                "'image'"
            )
        found = known
    classes = {
        name: tuple(map(str, kind["names"]))
        for name, kind in features.items()
        if _kind(kind) == "ClassLabel" and isinstance(kind.get("names"), list)
    }
    picture = found[0] if found else None
    return TableLook(picture, picture in structs, tuple(schema.names), classes)


def _features(schema: Any) -> dict[str, Any]:
    said = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(said).get("info", {}).get("features", {})
    except (ValueError, AttributeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> str | None:
    return feature.get("_type") if isinstance(feature, dict) else None


def _is_binary(types: Any, kind: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _has_bytes(types: Any, kind: Any) -> bool:
    return any(f.name == "bytes" and _is_binary(types, f.type) for f in kind)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
