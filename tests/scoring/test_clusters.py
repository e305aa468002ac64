from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster
from scipy.spatial.distance import pdist, squareform
from threadpoolctl import threadpool_limits

from backbones.errors import SecateurError
from scoring.clusters import (
    CLUSTERINGS,
    LINKAGES,
    cluster,
    condensed_distances,
    distance_sums,
    leaving_heights,
    merge_tree,
)

Matrix = NDArray[np.float64]


def sum_of_squares(points: Matrix, members: list[int]) -> float:
    return float(((points[members] - points[members].mean(0)) ** 2).sum())


def gap(points: Matrix, linkage: str, one: list[int], other: list[int]) -> float:
    """The distance of two clusters by the definition of each linkage."""
    between = squareform(pdist(points))[np.ix_(one, other)]
    if linkage == "ward":
        growth = sum_of_squares(points, one + other) - sum_of_squares(points, one) - sum_of_squares(points, other)
        return float(np.sqrt(2 * growth))
    return float(between.mean() if linkage == "average" else between.max())


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("seed", range(4))
def test_merges_follow_their_definition(linkage: str, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(9, 4))
    tree = merge_tree(pdist(points), linkage)
    clusters: dict[int, list[int]] = {i: [i] for i in range(9)}
    for row, (left, right, height, size) in enumerate(tree):
        gaps = {
            pair: gap(points, linkage, clusters[pair[0]], clusters[pair[1]])
            for pair in itertools.combinations(clusters, 2)
        }
        assert min(gaps, key=lambda pair: gaps[pair]) == tuple(sorted((int(left), int(right))))
        assert height == pytest.approx(min(gaps.values()))
        clusters[9 + row] = clusters.pop(int(left)) + clusters.pop(int(right))
        assert len(clusters[9 + row]) == size


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(0, 50), st.sampled_from(sorted(LINKAGES)), st.floats(0, 4), st.booleans())
def test_leaving_heights_name_the_representatives_of_every_cut(
    n: int, seed: int, linkage: str, cut: float, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 3, (n, 2)).astype(float) if ties else rng.normal(size=(n, 2))
    worth = rng.integers(0, 4, n) if ties else rng.random(n)
    order = np.argsort(-worth, kind="stable")
    tree = merge_tree(pdist(points), linkage)
    heights = leaving_heights(tree, order)
    below = np.nextafter(cut, -1)  # fcluster joins at heights <= t, a cut joins below it
    labels = fcluster(tree, below, "distance") if n > 1 else np.ones(1)
    wanted = [min(np.flatnonzero(labels == label), key=lambda i: (-worth[i], i)) for label in np.unique(labels)]
    assert sorted(wanted) == np.flatnonzero(heights >= cut).tolist()
    assert np.isinf(heights[order[0]])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 99))
def test_distances(n: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, columns))
    points[n // 2] = points[0]
    np.testing.assert_allclose(condensed_distances([(points, 1.0)]), pdist(points), atol=1e-12)
    np.testing.assert_allclose(distance_sums(points), squareform(pdist(points)).sum(0) if n > 1 else [0], atol=1e-12)


def test_distances_in_many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).normal(size=(23, 50)).astype(np.float32)
    other = np.random.default_rng(1).normal(size=(23, 8)).astype(np.float32)
    monkeypatch.setattr("scoring.clusters.BLOCK_ROWS", 5)
    monkeypatch.setattr("scoring.clusters.BLOCK_COLUMNS", 7)
    both = np.concatenate([0.5 * points.astype(np.float64), 2.0 * other.astype(np.float64)], axis=1)
    np.testing.assert_allclose(condensed_distances([(points, 0.5), (other, 2.0)]), pdist(both), rtol=1e-9)
    np.testing.assert_allclose(distance_sums(points), squareform(pdist(points.astype(np.float64))).sum(0), rtol=1e-9)


@pytest.mark.parametrize("columns", [3, 576, 4608])
def test_equal_filters_have_no_distance_at_all(columns: int) -> None:
    row = np.random.default_rng(0).normal(size=columns).astype(np.float32)
    distances = squareform(condensed_distances([(np.stack([row, row, -row, 0 * row, 0 * row, row * 1.001]), 1.0)]))
    assert distances[0, 1] == 0
    assert distances[3, 4] == 0
    assert distances[0, 2] == pytest.approx(2 * np.linalg.norm(row))
    assert distances[0, 5] == pytest.approx(1e-3 * np.linalg.norm(row), rel=1e-3)


def blobs(seed: int = 0) -> tuple[Matrix, NDArray[np.int64]]:
    """Three clusters of five far apart."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 5)
    return np.eye(3, 6)[labels] * 20 + rng.normal(size=(15, 6)), labels


def same_partition(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    return bool(((one[:, None] == one) == (other[:, None] == other)).all())


@pytest.mark.parametrize("method", CLUSTERINGS)
def test_clear_clusters_are_found(method: str) -> None:
    points, labels = blobs()
    assert same_partition(cluster(method, points, 3), labels)


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("clusters", [2, 4, 7])
def test_agglomerative_is_the_cut_linkage(linkage: str, clusters: int) -> None:
    points = np.random.default_rng(3).normal(size=(10, 4))
    wanted = fcluster(merge_tree(pdist(points), linkage), clusters, "maxclust")
    assert same_partition(cluster("agglomerative", points, clusters, linkage=linkage), wanted)


def best_two_means(points: Matrix) -> float:
    """Least sum of squares over all partings into two."""
    n = len(points)
    sides = (list(side) for size in range(1, n) for side in itertools.combinations(range(n), size))
    return min(
        sum_of_squares(points, side) + sum_of_squares(points, [i for i in range(n) if i not in side]) for side in sides
    )


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_puts_every_point_to_its_nearest_centre(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(20, 4))
    labels = cluster("kmeans", points, 5)
    centres = np.stack([points[labels == label].mean(0) for label in range(5)])
    assert (((points[:, None] - centres) ** 2).sum(2).argmin(1) == labels).all()


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_finds_the_best_of_all_partings(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(8, 2))
    points[5:] += 2
    labels = cluster("kmeans", points, 2)
    found = sum(sum_of_squares(points, np.flatnonzero(labels == label).tolist()) for label in (0, 1))
    assert found == pytest.approx(best_two_means(points))


@pytest.mark.parametrize("method", CLUSTERINGS)
@pytest.mark.parametrize("clusters", [1, 2, 5, 6])
def test_few_equal_and_zero_filters(method: str, clusters: int) -> None:
    points = np.zeros((6, 3))
    points[:2] = 1.0
    labels = cluster(method, points, clusters)
    assert labels.shape == (6,)
    assert 1 <= len(set(labels.tolist())) <= clusters
    assert cluster(method, np.zeros((6, 3)), clusters).shape == (6,)
    assert cluster(method, np.ones((1, 3)), 1).tolist() == [0]


@pytest.mark.parametrize("method", CLUSTERINGS)
def test_clusters_do_not_depend_on_the_cores(method: str) -> None:
    points = np.random.default_rng(0).normal(size=(40, 30))
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            found.append(cluster(method, points, 9, seed=5).tolist())
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == 9


def test_filters_far_apart_stay_one_graph() -> None:
    points = np.zeros((30, 2))
    points[:, 0] = np.arange(30) * 1e-3
    points[29] = 1e6
    assert len(set(cluster("spectral", points, 2).tolist())) == 2


@pytest.mark.parametrize(
    ("method", "clusters", "linkage", "message"),
    [
        ("k-means", 2, "average", r"unknown clustering 'k-means'; did you mean 'kmeans'\?"),
        ("kmeans", 2, "avg", "unknown linkage 'avg'"),
        ("kmeans", 0, "average", "1 <= clusters <= 4 must hold, but got clusters=0"),
        ("kmeans", 5, "average", "1 <= clusters <= 4 must hold, but got clusters=5"),
    ],
)
def test_wrong_arguments(method: str, clusters: int, linkage: str, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        cluster(method, np.eye(4), clusters, linkage=linkage)
