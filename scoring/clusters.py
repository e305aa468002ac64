"""Which filters of a group say the same: hierarchical merging, and clusterings into a given number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage as scipy_linkage

from scoring.names import check_name

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Ways to measure the distance of two clusters; merge heights never fall from one merge to the next.
LINKAGES: Mapping[str, str] = {
    "average": "mean distance between the members (UPGMA)",
    "complete": "largest distance between the members",
    "ward": "growth of the sum of squares (Ward 1963)",
}


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
