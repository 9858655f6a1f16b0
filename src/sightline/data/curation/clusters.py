"""Vectors in clusters: k-means, the nearest centroid, and pairs of vectors that are alike.

Pairs are found as SemDeDup does (Abbas et al., "SemDeDup: Data-efficient learning at web-scale
through semantic deduplication", arXiv 2303.09540): k-means first, then all pairs within a cluster.
Up to `EXHAUSTIVE` vectors all pairs are compared instead, and none is missed; above, every vector
is compared in its two nearest clusters, because twins may lie on two sides of a border.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError, DataError

EXHAUSTIVE = 20_000
CLUSTER_SIZE = 2_000
CLUSTERS_EACH = 2
_CELLS_AT_ONCE = 1 << 22
_ROUNDING = 1e-6  # of a product of float32 unit vectors

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]


def kmeans(vectors: Vectors, clusters: int, seed: int = 0, rounds: int = 25) -> Vectors:
    """Centroids float32[K, D] of unit vectors float32[N, D]: Lloyd's algorithm on the sphere.

    A vector belongs to the centroid with the largest product, a centroid is the mean direction of
    its vectors (spherical k-means, Dhillon and Modha 2001). Starts from K vectors drawn with
    chances that grow with the distance from those drawn before (k-means++, Arthur and
    Vassilvitskii 2007). A cluster that runs empty takes the vector that fits its own worst.

    Raises:
        ConfigError: fewer than one cluster, or more than there are vectors.
    """
    if not 1 <= clusters <= len(vectors):
        raise ConfigError(
            f"{clusters} clusters of {len(vectors)} vectors: give a number from 1 to {len(vectors)}"
        )
    random = np.random.default_rng(seed)
    centroids = _first_centroids(vectors, clusters, random)
    labels = np.full(len(vectors), -1)
    for _ in range(rounds):
        found, products = nearest_centroid(vectors, centroids)
        if np.array_equal(found, labels):
            break
        labels = found
        centroids = _means(vectors, labels, products, centroids)
    return centroids


def nearest_centroid(vectors: Vectors, centroids: Vectors) -> tuple[Numbers, NDArray[np.float32]]:
    """Number int64[N] of the centroid with the largest product, and that product float32[N]."""
    labels = np.empty(len(vectors), np.int64)
    best = np.empty(len(vectors), np.float32)
    step = max(1, _CELLS_AT_ONCE // max(1, len(centroids)))
    for start in range(0, len(vectors), step):
        products = vectors[start : start + step] @ centroids.T
        found = products.argmax(axis=1)
        labels[start : start + step] = found
        best[start : start + step] = products[np.arange(len(found)), found]
    return labels, best


def similar_pairs(
    left: Vectors, right: Vectors | None, cosine: float, seed: int = 0
) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs (i, j) of unit vectors whose product is at least `cosine`; a pair may recur.

    Args:
        left: float32[N, D].
        right: float32[M, D] to compare with, or None for pairs i < j within `left`.
        cosine: inclusive.
        seed: of the clusters that more than `EXHAUSTIVE` vectors are parted into.
    """
    total = len(left) + (0 if right is None else len(right))
    everything = np.arange(len(left)), np.arange(0 if right is None else len(right))
    if total <= EXHAUSTIVE:
        yield from _compare(left, right, *everything, cosine)
        return
    both = left if right is None else np.concatenate([left, right])
    random = np.random.default_rng(seed)
    clusters = -(-total // CLUSTER_SIZE)
    sample = random.choice(total, min(total, clusters * 256), replace=False)
    centroids = kmeans(both[np.sort(sample)], clusters, seed)
    mine = _own_clusters(left, centroids)
    theirs = mine if right is None else _own_clusters(right, centroids)
    for cluster in range(clusters):
        i = np.flatnonzero((mine == cluster).any(axis=1))
        j = np.flatnonzero((theirs == cluster).any(axis=1))
        yield from _compare(left, right, i, j, cosine)


def checked_vectors(vectors: NDArray[np.floating], count: int) -> Vectors:
    """Vectors of length one, float32[N, D]; rows of NaN (no vector there) stay so.

    Raises:
        DataError: not one row a record, or a row without direction.
    """
    if vectors.ndim != 2 or len(vectors) != count:
        raise DataError(
            f"vectors of shape {list(vectors.shape)} for {count} records: give one row each"
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if (lengths == 0).any():
        raise DataError(f"vector {int(np.argmin(lengths))} is all zeros: embed the pictures again")
    return (vectors / lengths).astype(np.float32)


def _compare(
    left: Vectors, right: Vectors | None, i: Numbers, j: Numbers, cosine: float
) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs among the rows i of `left` and the rows j of `right`, some rows at a time."""
    columns = i if right is None else j
    if not len(columns):
        return
    those = (left if right is None else right)[columns]
    step = max(1, _CELLS_AT_ONCE // len(columns))
    for start in range(0, len(i), step):
        rows = i[start : start + step]
        near = left[rows] @ those.T >= cosine - _ROUNDING
        if right is None:
            near &= rows[:, None] < columns[None]
        row, column = np.nonzero(near)
        if len(row):
            yield rows[row], columns[column]


def _own_clusters(vectors: Vectors, centroids: Vectors) -> Numbers:
    """The nearest clusters int64[N, 2] of each vector."""
    each = min(CLUSTERS_EACH, len(centroids))
    found = np.empty((len(vectors), each), np.int64)
    step = max(1, _CELLS_AT_ONCE // len(centroids))
    for start in range(0, len(vectors), step):
        products = vectors[start : start + step] @ centroids.T
        found[start : start + step] = np.argpartition(-products, each - 1, axis=1)[:, :each]
    return found


def _first_centroids(vectors: Vectors, clusters: int, random: np.random.Generator) -> Vectors:
    chosen = [int(random.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < clusters:
        # squared distance of unit vectors, up to a factor of two
        distance = np.minimum(distance, np.maximum(1 - vectors @ vectors[chosen[-1]], 0))
        total = distance.sum()
        weights = distance / total if total > 0 else np.full(len(vectors), 1 / len(vectors))
        chosen.append(int(random.choice(len(vectors), p=weights)))
    return vectors[chosen]


def _means(
    vectors: Vectors, labels: Numbers, products: NDArray[np.float32], before: Vectors
) -> Vectors:
    sums = np.zeros(before.shape, np.float64)
    np.add.at(sums, labels, vectors)
    empty = np.bincount(labels, minlength=len(before)) == 0
    if empty.any():
        sums[empty] = vectors[np.argsort(products, kind="stable")[: empty.sum()]]
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    unit = np.divide(sums, lengths, out=before.astype(np.float64), where=lengths > 1e-12)
    return unit.astype(np.float32)
