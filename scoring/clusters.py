"""Which filters of a group say the same: pairwise distances, hierarchical merging, clusterings into a given number.

Distances are Euclidean, computed on one core at a time and bit-equal on any number of cores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.spatial.distance import pdist, squareform
from threadpoolctl import threadpool_limits

from backbones.cost_table import Ints
from backbones.errors import SecateurError, check_name
from scoring.channel_weights import Floats, Weights, row_norms

#: Rows a task and columns a product: fixed, so that sums are formed in the same order whatever the number of workers.
BLOCK_ROWS = 512
BLOCK_COLUMNS = 512

#: Squared distances below this share of the squared norms are rounding: the filters count as equal.
EQUAL_SHARE = 1e-12

#: Ways to measure the distance of two clusters; merge heights never fall from one merge to the next.
LINKAGES: Mapping[str, str] = {
    "average": "mean distance between the members (UPGMA)",
    "complete": "largest distance between the members",
    "ward": "growth of the sum of squares (Ward 1963)",
}

#: Keeps the graph of a spectral clustering in one piece when filters are very far apart.
LEAST_AFFINITY = 1e-12

Blocks = list[tuple[Weights, float]]


def block_starts(size: int) -> range:
    """The first rows of the tasks that `later_distances` is cut into."""
    return range(0, size, BLOCK_ROWS)


def later_distances(blocks: Blocks, start: int) -> Floats:
    """Distances of rows `start ... start + BLOCK_ROWS - 1` to all later rows, in the order of scipy's condensed form.

    Args:
        blocks: (n, k) blocks and their scales; row i's feature vector is the concatenation of `scale * block[i]`.
        start: first row.
    """
    distances = _distances(blocks, start)
    return distances[np.triu(np.ones(distances.shape, dtype=np.bool_), 1)]


def condensed_distances(blocks: Blocks) -> Floats:
    """(n * (n - 1) / 2,) distances in scipy's condensed form."""
    return np.concatenate([later_distances(blocks, start) for start in block_starts(len(blocks[0][0]))])


def distance_sums(block: Weights) -> Floats:
    """(n,) sum of the distances from each row of (n, k) to all rows."""
    n = len(block)
    sums = np.zeros(n)
    for start in block_starts(n):
        distances = _distances([(block, 1.0)], start)
        rows = len(distances)
        sums[start : start + rows] += distances.sum(1)
        sums[start + rows :] += distances[:, rows:].sum(0)
    return sums


def _distances(blocks: Blocks, start: int) -> Floats:
    """(rows, n - start) distances of a task's rows to themselves and all later ones, by |a|^2 + |b|^2 - 2ab."""
    later = len(blocks[0][0]) - start
    rows = min(BLOCK_ROWS, later)
    products, squares = np.zeros((rows, later)), np.zeros(later)
    for block, scale in blocks:
        squares += (scale * row_norms(block[start:])) ** 2
        _add_products(products, block[start:], scale**2)
    sums = squares[:rows, None] + squares
    squared = np.subtract(sums, np.multiply(products, 2.0, out=products), out=products)
    squared[squared <= EQUAL_SHARE * sums] = 0.0
    return np.asarray(np.sqrt(squared, out=squared))


def _add_products(products: Floats, block: Weights, factor: float) -> None:
    """Adds `factor` times the (rows, n) products of the first rows with all n, summed in float64.

    Buffers are filled again and again: fresh ones of this size cost as much in page faults as the products do.
    """
    rows, n = products.shape
    columns = min(BLOCK_COLUMNS, block.shape[1])
    part, square, rest = np.empty((n, columns)), np.empty((rows, rows)), np.empty((rows, n - rows))
    for column in range(0, block.shape[1], BLOCK_COLUMNS):
        piece = part[:, : min(BLOCK_COLUMNS, block.shape[1] - column)]
        piece[...] = block[:, column : column + BLOCK_COLUMNS]
        head, tail = piece[:rows], piece[rows:]
        np.matmul(head, head.T, out=square)  # of one matrix with itself: half the work
        np.matmul(head, tail.T, out=rest)
        products[:, :rows] += np.multiply(square, factor, out=square)
        products[:, rows:] += np.multiply(rest, factor, out=rest)


def merge_tree(distances: Floats, linkage: str) -> Floats:
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


def leaving_heights(tree: Floats, order: Ints) -> Floats:
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


def kmeans(points: Floats, clusters: int, linkage: str, seed: int) -> Ints:
    """Lloyd's algorithm from ten k-means++ starts; `linkage` does not matter."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal filters: fewer clusters than asked for
        return np.asarray(KMeans(clusters, n_init=10, random_state=seed).fit_predict(points), dtype=np.int64)


def agglomerative(points: Floats, clusters: int, linkage: str, seed: int) -> Ints:
    """Hierarchical merging with the given linkage until `clusters` are left; `seed` does not matter."""
    from sklearn.cluster import AgglomerativeClustering

    return np.asarray(AgglomerativeClustering(clusters, linkage=linkage).fit_predict(points), dtype=np.int64)


def spectral(points: Floats, clusters: int, linkage: str, seed: int) -> Ints:
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
CLUSTERINGS: Mapping[str, Callable[[Floats, int, str, int], Ints]] = {
    "kmeans": kmeans,
    "agglomerative": agglomerative,
    "spectral": spectral,
}


def cluster(method: str, points: Floats, clusters: int, *, linkage: str = "average", seed: int = 0) -> Ints:
    """Parts filters into at most the given number of clusters (fewer only where filters are equal).

    Args:
        method: a key of `CLUSTERINGS`.
        points: (n, k) feature vectors.
        clusters: their number, 1 to n.
        linkage: how "agglomerative" merges, a key of `LINKAGES`.
        seed: what "kmeans" and "spectral" draw by.

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
