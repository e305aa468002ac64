"""Which filters of a group say the same: hierarchical merging, and clusterings into a given number."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.spatial.distance import pdist, squareform
from threadpoolctl import threadpool_limits

from backbones.errors import SecateurError
from backbones.names import check_name

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Ways to measure the distance of two clusters; merge heights never fall from one merge to the next.
LINKAGES: Mapping[str, str] = {
    "average": "mean distance between the members (UPGMA)",
    "complete": "largest distance between the members",
    "ward": "growth of the sum of squares (Ward 1963)",
}

#: Keeps the graph of a spectral clustering in one piece when filters are very far apart.
LEAST_AFFINITY = 1e-12


def merge_tree(distances: NDArray[np.float64], linkage: str) -> Matrix:
    """The merges of hierarchical clustering, in scipy's form.

    Args:
        distances: (n * (n - 1) / 2,) condensed Euclidean distances.
        linkage: a key of `LINKAGES`.

    Returns:
        (n - 1, 4): the two clusters merged (n + i is the cluster made by row i), their height, the number of members.

    Raises:
        SecateurError: for an unknown linkage.
    """
    check_name("linkage", linkage, LINKAGES)
    if distances.size == 0:
        return np.zeros((0, 4))
    return np.asarray(scipy_linkage(distances, linkage), dtype=np.float64)


def leaving_heights(tree: Matrix, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """At which height each filter stops to represent its cluster.

    A cluster is represented by its best filter. Clusters only grow with the height, so a filter that lost to a better
    one never comes back: cutting the tree at any height h leaves exactly the filters with a leaving height >= h.

    Args:
        tree: (n - 1, 4) merges with non-falling heights.
        order: (n,) the filters, best first.

    Returns:
        (n,) heights; infinite for the best filter of all.
    """
    n = len(order)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    best = [*place.tolist(), *([0] * (n - 1))]
    heights = [np.inf] * n
    for row, (left, right, height, _) in enumerate(tree.tolist()):
        one, other = best[int(left)], best[int(right)]
        best[n + row] = min(one, other)
        heights[max(one, other)] = height
    return np.asarray(heights)[place]


def kmeans(points: Matrix, clusters: int, linkage: str, seed: int) -> Labels:
    """Lloyd's algorithm from ten k-means++ starts; `linkage` does not matter."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal filters: fewer clusters than asked for
        return np.asarray(KMeans(clusters, n_init=10, random_state=seed).fit_predict(points), dtype=np.int64)


def agglomerative(points: Matrix, clusters: int, linkage: str, seed: int) -> Labels:
    """Hierarchical merging with the given linkage until `clusters` are left; `seed` does not matter."""
    from sklearn.cluster import AgglomerativeClustering

    return np.asarray(AgglomerativeClustering(clusters, linkage=linkage).fit_predict(points), dtype=np.int64)


def spectral(points: Matrix, clusters: int, linkage: str, seed: int) -> Labels:
    """Spectral clustering with the affinity exp(-d^2 / 2), d over the mean distance; `linkage` does not matter."""
    from sklearn.cluster import SpectralClustering

    distances = pdist(points)
    if not distances.any():
        return np.zeros(len(points), dtype=np.int64)
    affinity = squareform(np.maximum(np.exp(-0.5 * (distances / distances.mean()) ** 2), LEAST_AFFINITY))
    np.fill_diagonal(affinity, 1.0)
    model = SpectralClustering(clusters, affinity="precomputed", assign_labels="cluster_qr", random_state=seed)
    return np.asarray(model.fit_predict(affinity), dtype=np.int64)


#: Clusterings into a given number of clusters, by scikit-learn.
CLUSTERINGS: Mapping[str, Callable[[Matrix, int, str, int], Labels]] = {
    "kmeans": kmeans,
    "agglomerative": agglomerative,
    "spectral": spectral,
}


def cluster(method: str, points: Matrix, clusters: int, *, linkage: str = "average", seed: int = 0) -> Labels:
    """Parts filters into at most the given number of clusters (fewer only where filters are equal).

    Args:
        method: a key of `CLUSTERINGS`.
        points: (n, k) feature vectors.
        clusters: their number, 1 to n.
        linkage: of `agglomerative`, a key of `LINKAGES`.
        seed: of `kmeans` and `spectral`.

    Returns:
        (n,) cluster numbers, the same on any number of cores.

    Raises:
        SecateurError: for unknown names and a number of clusters out of range.
    """
    check_name("clustering", method, CLUSTERINGS)
    check_name("linkage", linkage, LINKAGES)
    n = len(points)
    if not 1 <= clusters <= n:
        raise SecateurError(f"1 <= clusters <= {n} must hold, but got clusters={clusters}")
    if clusters in (1, n):
        return np.arange(n) if clusters == n else np.zeros(n, dtype=np.int64)
    with threadpool_limits(1):
        return CLUSTERINGS[method](points, clusters, linkage, seed)
