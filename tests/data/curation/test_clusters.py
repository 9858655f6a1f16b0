"""k-means and pairs of near vectors, against scikit-learn and the comparison of all pairs."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from sightline.core.errors import ConfigError, DataError
from sightline.data.curation import clusters
from sightline.data.curation.clusters import (
    checked_vectors,
    kmeans,
    nearest_centroid,
    similar_pairs,
)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def blobs(count=300, centers=6, spread=0.3, seed=0):
    rows, labels = make_blobs(count, 8, centers=centers, cluster_std=spread, random_state=seed)
    return unit(rows), labels


def inertia(vectors, centroids):
    return float((1 - nearest_centroid(vectors, centroids)[1]).sum())


def test_kmeans_finds_the_clusters_that_are_there():
    vectors, truth = blobs()
    labels, _ = nearest_centroid(vectors, kmeans(vectors, 6))
    for label in range(6):
        assert len(set(truth[labels == label].tolist())) == 1


def test_kmeans_is_as_good_as_scikit_learn():
    vectors = unit(np.random.default_rng(0).normal(size=(400, 5)))
    peer = KMeans(12, n_init=1, random_state=0).fit(vectors)
    ours = inertia(vectors, kmeans(vectors, 12))
    assert ours <= 1.05 * inertia(vectors, unit(peer.cluster_centers_))


def test_centroids_are_mean_directions_and_kmeans_is_deterministic():
    vectors, _ = blobs()
    first, again = kmeans(vectors, 6, seed=3), kmeans(vectors, 6, seed=3)
    np.testing.assert_array_equal(first, again)
    labels, _ = nearest_centroid(vectors, first)
    for label in range(6):
        np.testing.assert_allclose(
            first[label], unit(vectors[labels == label].sum(0)[None])[0], atol=1e-5
        )


def test_as_many_clusters_as_vectors_and_copies():
    vectors = unit(np.eye(4)[[0, 1, 2, 3, 3, 3]].astype(np.float32))
    found = kmeans(vectors, 6)
    assert np.isfinite(found).all()
    assert inertia(vectors, found) < 1e-6
    with pytest.raises(ConfigError, match="7 clusters of 6 vectors: give a number from 1 to 6"):
        kmeans(vectors, 7)


def test_near_pairs_are_those_of_the_full_comparison(monkeypatch):
    vectors, _ = blobs(200)
    products = vectors @ vectors.T
    expected = {(i, j) for i, j in np.argwhere(products >= 0.99).tolist() if i < j}
    monkeypatch.setattr(clusters, "_CELLS_AT_ONCE", 500)
    found = [*similar_pairs(vectors, None, 0.99)]
    assert {p for i, j in found for p in zip(i.tolist(), j.tolist(), strict=True)} == expected
    across = [*similar_pairs(vectors[:80], vectors[80:], 0.99)]
    assert {
        (a, b + 80) for i, j in across for a, b in zip(i.tolist(), j.tolist(), strict=True)
    } == {(i, j) for i, j in expected if i < 80 <= j}


def test_many_vectors_are_compared_in_clusters_and_few_twins_are_missed(monkeypatch):
    monkeypatch.setattr(clusters, "EXHAUSTIVE", 500)
    monkeypatch.setattr(clusters, "CLUSTER_SIZE", 200)
    random = np.random.default_rng(0)
    bases = unit(random.normal(size=(1000, 24)))
    twins = unit(bases + 0.03 * random.normal(size=bases.shape))
    vectors = np.concatenate([bases, twins])
    found = {
        pair
        for i, j in similar_pairs(vectors, None, 0.95)
        for pair in zip(i.tolist(), j.tolist(), strict=True)
    }
    planted = {(i, i + 1000) for i in range(1000) if bases[i] @ twins[i] >= 0.95}
    assert len(planted) > 900
    assert len(found & planted) >= 0.97 * len(planted)
    assert all(vectors[i] @ vectors[j] >= 0.9499 for i, j in found)
    across = {p for i, j in similar_pairs(bases, twins, 0.95)
              for p in zip(i.tolist(), j.tolist(), strict=True)}  # fmt: skip
    assert sum((i, i) in across for i, _ in planted) >= 0.97 * len(planted)


def test_equal_vectors_reach_a_cosine_of_one():
    vectors = unit(np.random.default_rng(0).normal(size=(5, 300)))[[0, 0, 1]]
    (pair,) = similar_pairs(vectors, None, 1.0)
    assert [side.tolist() for side in pair] == [[0], [1]]


def test_vectors_are_checked():
    rows = np.array([[3.0, 4.0], [np.nan, np.nan]])
    np.testing.assert_allclose(checked_vectors(rows, 2), [[0.6, 0.8], [np.nan, np.nan]], rtol=1e-6)
    with pytest.raises(DataError, match=r"shape \[2, 2\] for 3 records: give one row each"):
        checked_vectors(rows, 3)
    with pytest.raises(DataError, match="vector 1 is all zeros"):
        checked_vectors(np.array([[1.0, 0.0], [0.0, 0.0]]), 2)
