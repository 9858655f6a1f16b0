"""Vectors and ids on disk: kept whole through kills and power cuts, searched exactly or by index.

`store` says what any store can do, `lance` does it with LanceDB in one folder, `manifests` guards
that folder, `filters` reads what a person types into typed conditions. Knows no model and no
picture: what a row means, and which fields it has, is told by the caller.
"""

from sightline.core.lazy import lazy_names

_PUBLIC = {
    "LanceStore": "sightline.search.lance",
    "Rows": "sightline.search.store",
    "VectorStore": "sightline.search.store",
    "parse_filter": "sightline.search.filters",
    "repair": "sightline.search.repair",
}

__getattr__ = lazy_names(__name__, _PUBLIC)
