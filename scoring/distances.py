"""Pairwise Euclidean distances between the filters of a group, on one core at a time and bit-equal on any number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.slices import Floats, row_norms

#: Rows a task and columns a product: fixed, so that sums are formed in the same order whatever the number of workers.
ROWS = 1024
COLUMNS = 2048

#: Squared distances below this share of the squared norms are rounding: the filters count as equal.
EQUAL = 1e-12

Blocks = list[tuple[Floats, float]]
Matrix = NDArray[np.float64]


def starts(size: int) -> range:
    """The first rows of the tasks that `upper` is cut into."""
    return range(0, size, ROWS)


def upper(blocks: Blocks, start: int) -> NDArray[np.float64]:
    """Distances of rows `start ... start + ROWS - 1` to all later rows, in the order of scipy's condensed form.

    Args:
        blocks: (n, k) blocks and their scales; row i's feature vector is the concatenation of `scale * block[i]`.
        start: first row.
    """
    stop = min(start + ROWS, len(blocks[0][0]))
    distances = _distances(blocks, start, stop, start)
    return distances[np.triu(np.ones(distances.shape, dtype=np.bool_), 1)]


def condensed(blocks: Blocks) -> NDArray[np.float64]:
    """(n * (n - 1) / 2,) distances in scipy's condensed form."""
    return np.concatenate([upper(blocks, start) for start in starts(len(blocks[0][0]))])


def distance_sums(block: Floats) -> NDArray[np.float64]:
    """(n,) sum of the distances from each row of (n, k) to all rows."""
    n = len(block)
    sums = np.zeros(n)
    for start in starts(n):
        stop = min(start + ROWS, n)
        distances = _distances([(block, 1.0)], start, stop, start)
        sums[start:stop] += distances.sum(1)
        sums[stop:] += distances[:, stop - start :].sum(0)
    return sums


def _distances(blocks: Blocks, start: int, stop: int, first: int) -> Matrix:
    """(stop - start, n - first) distances by |a|^2 + |b|^2 - 2ab, products in float64."""
    n = len(blocks[0][0])
    products = np.zeros((stop - start, n - first))
    squares = np.zeros(n)
    for block, scale in blocks:
        squares += (scale * row_norms(block)) ** 2
        for column in range(0, block.shape[1], COLUMNS):
            part: NDArray[Any] = block[first:, column : column + COLUMNS].astype(np.float64) * scale
            products += part[start - first : stop - first] @ part.T
    sums = squares[start:stop, None] + squares[None, first:]
    squared = sums - 2.0 * products
    squared[squared <= EQUAL * sums] = 0.0
    return np.asarray(np.sqrt(squared))
