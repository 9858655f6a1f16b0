"""The nearest of a collection: exact cosine search from words or pictures, to pictures or words."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sightline.core.errors import ConfigError, DataError
from sightline.core.outputs import Hit
from sightline.tasks import embeddings as collections_of
from sightline.tasks.batching import as_texts, is_single
from sightline.tasks.embed import embed_images, embed_texts
from sightline.tasks.embeddings import Embeddings, Kind

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model

_GRID = 2.0**20


def retrieve(
    model: Model,
    queries: Any,
    gallery: Embeddings | Any,
    k: int = 10,
    *,
    query_kind: Kind | None = None,
    gallery_kind: Kind = "image",
    batch_size: int = 32,
) -> list[list[Hit]]:
    """The k best of the gallery for each query, best first, with their cosines.

    Args:
        model: what embeds the queries (and the gallery, unless it is saved).
        queries: one or many. A string is a text unless `query_kind` says that it is a picture's
            path; a `Path`, bytes, PIL image or array is a picture.
        gallery: `Embeddings`, the path of a saved file, a folder of pictures, or a list.
        k: hits per query; a smaller gallery gives fewer.
        query_kind: "text" or "image", where the queries do not show it.
        gallery_kind: what a list holds: pictures, or texts.
        batch_size: pictures through the network at once.

    Returns:
        One list of hits per query; equal cosines stand in the gallery's order.

    Raises:
        UnsupportedTaskError: words asked of a model that reads none.
        DataError: a gallery of another model, or nothing in it.
        ImageError: a picture that cannot be read.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"k must be a whole number of at least 1, not {k!r}")
    asked = embed_queries(model, queries, query_kind, batch_size)
    collection = _collection(model, gallery, gallery_kind, batch_size)
    scores, places = top_k(asked, collection.vectors, k)
    return [
        [Hit(collection.ids[place], score) for score, place in zip(row, found, strict=True)]
        for row, found in zip(scores.tolist(), places.tolist(), strict=True)
    ]


def top_k(queries: Tensor, gallery: Tensor, k: int, chunk: int = 65_536) -> tuple[Tensor, Tensor]:
    """The k largest dot products of each query with the gallery, exactly, in bounded memory.

    Scores are put on a grid of 2^-20 first: a product's last bits depend on where a row stands in
    its block, and equal pictures must not change places for that. NaN ranks last, as -inf.

    Args:
        queries: float32[Q, D].
        gallery: float32[N, D], walked `chunk` rows at a time.
        k: how many; at most N come back.
        chunk: rows at a time.

    Returns:
        scores float32[Q, min(k, N)] in falling order and int64 places in the gallery; equal scores
        stand in the gallery's order.
    """
    best = torch.empty(len(queries), 0)
    places = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(gallery), chunk):
        block = gallery[start : start + chunk]
        scores = ((queries @ block.T) * _GRID).round() / _GRID  # [Q n]
        scores = scores.nan_to_num(nan=-math.inf)
        here = _first_places(scores, min(k, len(block)))  # [Q k]
        best = torch.cat([best, scores.gather(1, here)], dim=1)
        places = torch.cat([places, here + start], dim=1)
        # Earlier chunks stand first, so a stable sort keeps the gallery's order among equals.
        best, order = best.sort(dim=1, descending=True, stable=True)
        best, places = best[:, :k], places.gather(1, order[:, :k])
    return best, places


def _first_places(scores: Tensor, k: int) -> Tensor:
    """Places of the k largest of each row, in rising order; among equals the earlier ones."""
    least = scores.topk(k, dim=1).values[:, -1:]  # [Q 1]
    above = scores > least
    ties = scores == least
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (ties & (ties.cumsum(dim=1) <= room))  # exactly k a row
    return chosen.nonzero()[:, 1].view(len(scores), k)


def embed_queries(
    model: Model, queries: Any, kind: Kind | None = None, batch_size: int = 32
) -> Tensor:
    """Vectors float32[Q, D] of words or pictures, told apart as in `retrieve`."""
    if kind not in (None, "text", "image"):
        raise ConfigError(f"query_kind must be 'text' or 'image', not {kind!r}")
    listed = [queries] if is_single(queries) else list(queries)
    words = kind == "text" or (
        kind is None and bool(listed) and all(isinstance(query, str) for query in listed)
    )
    if words:
        return embed_texts(model, as_texts(listed, "queries"))
    if kind is None and any(isinstance(query, str) for query in listed):
        raise ConfigError("queries mix strings and pictures: say query_kind='text' or 'image'")
    return embed_images(model, listed, batch_size)


def _collection(model: Model, gallery: Any, kind: Kind, batch_size: int) -> Embeddings:
    if kind not in ("text", "image"):
        raise ConfigError(f"gallery_kind must be 'text' or 'image', not {kind!r}")
    if isinstance(gallery, Embeddings) or _is_saved(gallery):
        saved = gallery if isinstance(gallery, Embeddings) else Embeddings.load(gallery)
        saved.check_model(model)
        collection = saved
    elif kind == "text":
        collection = collections_of.of_texts(model, gallery)
    else:
        collection = _of_pictures(model, gallery, batch_size)
    if not collection.ids:
        raise DataError("the gallery is empty: give a folder or a list with something in it")
    return collection


def _is_saved(gallery: Any) -> bool:
    return isinstance(gallery, (str, os.PathLike)) and Path(gallery).suffix == ".safetensors"


def _of_pictures(
    model: Model, gallery: str | os.PathLike[str] | Iterable[Any], batch_size: int
) -> Embeddings:
    from sightline.inputs.images import find_images

    sources = find_images(gallery) if isinstance(gallery, (str, os.PathLike)) else gallery
    collection, failed = collections_of.of_images(model, sources, batch_size=batch_size)
    if failed:
        raise failed[0].error
    return collection
