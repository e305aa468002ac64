"""Builds the table behind `cost`: which sizes each operation's MACs and each parameter's elements are products of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backbones.cost import CostTable
from backbones.graph import Group, TensorMap
from backbones.program import Shape, Step


def cost_table(
    groups: Sequence[Group],
    maps: Mapping[str, TensorMap],
    shapes: Mapping[str, Shape],
    parameters: Sequence[str],
    macs: Sequence[tuple[int, tuple[tuple[str, int] | NDArray[np.int64], ...], Step]],
) -> CostTable:
    """Builds the table.

    Args:
        groups: the prunable groups.
        maps: where their channels live.
        shapes: parameter or buffer name -> dense shape.
        parameters: the names among them that count.
        macs: (constant, sizes, step) of each counted operation; a size is a (tensor, dim) or the channel unit of
            each position of an activation's dimension.
    """
    ends = np.cumsum([group.size for group in groups], dtype=np.int64)
    rows: dict[bytes, int] = {}
    widths: list[NDArray[np.int64]] = [np.zeros(len(groups), dtype=np.int64)]
    fixed: list[int] = [1]  # size 0 is the constant 1

    def size(units: NDArray[np.int64]) -> int:
        shrinking = units[units >= 0]
        owners = np.bincount(np.searchsorted(ends, shrinking, side="right"), minlength=len(groups))
        stays = len(units) - len(shrinking)
        key = owners.tobytes() + stays.to_bytes(8, "little")
        if key not in rows:
            rows[key] = len(widths)
            widths.append(owners // np.array([max(1, group.size) for group in groups]))
            fixed.append(stays)
        return rows[key]

    def product(constant: int, dims: Sequence[tuple[str, int] | NDArray[np.int64]]) -> tuple[int, list[int]]:
        factors = []
        for dim in dims:
            if isinstance(dim, tuple) and (dim[0] not in maps or dim[1] not in maps[dim[0]].units):
                constant *= shapes[dim[0]][dim[1]]
            else:
                factors.append(size(maps[dim[0]].units[dim[1]] if isinstance(dim, tuple) else dim))
        return constant, factors

    ops = [product(constant, dims) for constant, dims, _ in macs]
    elements = [product(1, [(name, dim) for dim in range(len(shapes[name]))]) for name in parameters]
    return CostTable(
        np.array(widths).reshape(len(widths), len(groups)),
        np.array(fixed),
        np.array([constant for constant, _ in ops], dtype=np.int64),
        _padded([factors for _, factors in ops]),
        tuple(step.module for _, _, step in macs),
        np.array([constant for constant, _ in elements], dtype=np.int64),
        _padded([factors for _, factors in elements]),
        tuple(parameters),
        np.array([group.size for group in groups], dtype=np.int64),
    )


def _padded(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Rows of equal length, filled up with size 0, the constant 1."""
    length = max((len(row) for row in rows), default=1)
    return np.array([[*row, *[0] * (length - len(row))] for row in rows], dtype=np.int64).reshape(len(rows), length)
