"""Rows as Arrow tables and back, and the schema that holds what the creator says about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.search.store import Fields, Rows

ABOUT = b"sightline"
"""Key in the schema's metadata."""


def schema_of(dim: int, fields: Fields, about: Mapping[str, Any]) -> Any:
    """The schema of a table with vectors float32[D] and these fields."""
    import pyarrow as pa

    kinds = {"text": pa.string(), "whole": pa.int64(), "time": pa.int64(), "flag": pa.bool_(),
             "raw": pa.binary()}  # fmt: skip
    columns = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        *(pa.field(name, kinds[kind]) for name, kind in fields.items()),
    ]
    text = json.dumps({"fields": dict(fields), "about": dict(about)})
    return pa.schema(columns, metadata={ABOUT: text.encode()})


def told_about(schema: Any) -> tuple[Fields, Mapping[str, Any]] | None:
    """The fields and what the creator said; None for the schema of somebody else's table."""
    told = json.loads((schema.metadata or {}).get(ABOUT, b"null"))
    if not isinstance(told, dict) or not {"fields", "about"} <= set(told):
        return None
    return told["fields"], told["about"]


def arrow_of(rows: Rows, schema: Any) -> Any:
    """Rows as a table of that schema."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(rows.vectors, np.float32).ravel())
    columns = {
        "id": pa.array(rows.ids, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, schema.field("vector").type.list_size),
        **{name: pa.array(rows.fields[name], schema.field(name).type) for name in rows.fields},
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def vectors_of(column: Any) -> NDArray[np.float32]:
    """A column of vectors as float32[N, D]."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(-1, column.type.list_size)
