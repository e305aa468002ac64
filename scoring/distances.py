"""Pairwise Euclidean distances between the filters of a group, on one core at a time and bit-equal on any number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scoring.slices import Floats, row_norms

#: Rows a task and columns a product: fixed, so that sums are formed in the same order whatever the number of workers.
ROWS = 512
COLUMNS = 512

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
    distances = _distances(blocks, start)
    return distances[np.triu(np.ones(distances.shape, dtype=np.bool_), 1)]


def condensed(blocks: Blocks) -> NDArray[np.float64]:
    """(n * (n - 1) / 2,) distances in scipy's condensed form."""
    return np.concatenate([upper(blocks, start) for start in starts(len(blocks[0][0]))])


def distance_sums(block: Floats) -> NDArray[np.float64]:
    """(n,) sum of the distances from each row of (n, k) to all rows."""
    n = len(block)
    sums = np.zeros(n)
    for start in starts(n):
        distances = _distances([(block, 1.0)], start)
        rows = len(distances)
        sums[start : start + rows] += distances.sum(1)
        sums[start + rows :] += distances[:, rows:].sum(0)
    return sums


def _distances(blocks: Blocks, start: int) -> Matrix:
    """(rows, n - start) distances of a task's rows to themselves and all later ones, by |a|^2 + |b|^2 - 2ab."""
    later = len(blocks[0][0]) - start
    rows = min(ROWS, later)
    products, squares = np.zeros((rows, later)), np.zeros(later)
    for block, scale in blocks:
        squares += (scale * row_norms(block[start:])) ** 2
        _add_products(products, block[start:], scale**2)
    sums = squares[:rows, None] + squares
    squared = np.subtract(sums, np.multiply(products, 2.0, out=products), out=products)
    squared[squared <= EQUAL * sums] = 0.0
    return np.asarray(np.sqrt(squared, out=squared))


def _add_products(products: Matrix, block: Floats, factor: float) -> None:
    """Adds `factor` times the (rows, n) products of the first rows with all n, summed in float64.

    Buffers are filled again and again: fresh ones of this size cost as much in page faults as the products do.
    """
    rows, n = products.shape
    columns = min(COLUMNS, block.shape[1])
    part, square, rest = np.empty((n, columns)), np.empty((rows, rows)), np.empty((rows, n - rows))
    for column in range(0, block.shape[1], COLUMNS):
        piece = part[:, : min(COLUMNS, block.shape[1] - column)]
        piece[...] = block[:, column : column + COLUMNS]
        head, tail = piece[:rows], piece[rows:]
        np.matmul(head, head.T, out=square)  # of one matrix with itself: half the work
        np.matmul(head, tail.T, out=rest)
        products[:, :rows] += np.multiply(square, factor, out=square)
        products[:, rows:] += np.multiply(rest, factor, out=rest)
