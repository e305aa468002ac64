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
    macs: Sequence[tuple[int, tuple[tuple[str, int], ...], Step]],
) -> CostTable:
    """Builds the table.

    Args:
        groups: the prunable groups.
        maps: where their channels live.
        shapes: parameter or buffer name -> dense shape.
        parameters: the names among them that count.
        macs: (constant, sizes as (tensor, dim), step) of each counted operation.
    """
    sizes: dict[tuple[str, int], int] = {}
    widths: list[NDArray[np.int64]] = []
    fixed: list[int] = []
    member_widths: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            member_widths.setdefault((member.tensor, member.dim), []).append((number, member.index.shape[1]))
    for name, tensor in maps.items():
        for dim, vector in tensor.units.items():
            row = np.zeros(len(groups), dtype=np.int64)
            for number, width in member_widths[name, dim]:
                row[number] += width
            sizes[name, dim] = len(widths)
            widths.append(row)
            fixed.append(int((vector < 0).sum()))
    one = len(widths)
    widths.append(np.zeros(len(groups), dtype=np.int64))
    fixed.append(1)

    def product(constant: int, dims: Sequence[tuple[str, int]]) -> tuple[int, list[int]]:
        factors = []
        for name, dim in dims:
            if (name, dim) in sizes:
                factors.append(sizes[name, dim])
            else:
                constant *= shapes[name][dim]
        return constant, (factors + [one] * 3)[: max(3, len(factors))]

    ops = [product(constant, dims) for constant, dims, _ in macs]
    elements = [product(1, [(name, dim) for dim in range(len(shapes[name]))]) for name in parameters]
    return CostTable(
        np.array(widths).reshape(len(widths), len(groups)),
        np.array(fixed),
        np.array([constant for constant, _ in ops], dtype=np.int64),
        np.array([factors for _, factors in ops], dtype=np.int64).reshape(len(ops), 3),
        tuple(step.module for _, _, step in macs),
        np.array([constant for constant, _ in elements], dtype=np.int64),
        np.array([factors for _, factors in elements], dtype=np.int64).reshape(len(elements), 3),
        tuple(parameters),
        np.array([group.size for group in groups], dtype=np.int64),
    )
