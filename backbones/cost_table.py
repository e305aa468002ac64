"""The table behind the cost of a structure: which sizes each operation's MACs and each parameter's elements multiply.

One multiply-add is one MAC. Convolutions, linear layers, matrix products and attention count; normalisation,
activations, pooling and biases do not. All figures are for one sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
"""An array of whole numbers: sizes, positions, counts of channels."""
Extent = tuple[str, int] | Ints
"""One factor of a product: a dimension of a parameter, or the channel unit of each position of an activation's."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one forward pass of one sample takes.

    Attributes:
        macs: multiply-adds (FLOPs are 2 x MACs).
        params: number of parameter elements (buffers not counted), tied parameters once.
        latency: seconds a batch, when measured.
        memory: peak activation bytes, when measured.
    """

    macs: int
    params: int
    latency: float | None = None
    memory: int | None = None


@dataclass(frozen=True, eq=False)
class CostTable:
    """Every product of sizes that the cost is a sum of, as functions of the number of kept channels per group.

    A *size* is `fixed + widths @ kept`; size 0 is the constant 1. Row i of a product table multiplies a constant
    with the sizes it names.

    Attributes:
        widths: (sizes, groups) positions that one channel of a group takes in each size.
        fixed: (sizes,) positions that always stay.
        op_constants, op_sizes: (ops,) and (ops, factors) the MACs of each counted operation.
        op_layers: the module each operation belongs to.
        tensor_constants, tensor_sizes: (tensors,) and (tensors, factors) the elements of each parameter.
        tensor_names: the parameters in that order.
        dense_kept: (groups,) number of channels of each group.
    """

    widths: Ints
    fixed: Ints
    op_constants: Ints
    op_sizes: Ints
    op_layers: tuple[str, ...]
    tensor_constants: Ints
    tensor_sizes: Ints
    tensor_names: tuple[str, ...]
    dense_kept: Ints

    def sizes(self, kept: Ints) -> Ints:
        """(sizes,) for (groups,) kept channel counts."""
        return self.widths @ kept + self.fixed

    def op_macs(self, kept: Ints) -> Ints:
        """(ops,) MACs of each operation."""
        return np.asarray(self.op_constants * self.sizes(kept)[self.op_sizes].prod(1), dtype=np.int64)

    def evaluate(self, kept: Ints) -> Cost:
        """The cost for (groups,) kept channel counts."""
        sizes = self.sizes(kept)
        macs = self.op_constants @ sizes[self.op_sizes].prod(1)
        params = self.tensor_constants @ sizes[self.tensor_sizes].prod(1)
        return Cost(int(macs), int(params))

    def evaluate_many(self, kept: Ints) -> Ints:
        """(rows, 2) MACs and parameters for (rows, groups) kept channel counts."""
        sizes = kept @ self.widths.T + self.fixed
        macs = sizes[:, self.op_sizes].prod(2) @ self.op_constants
        params = sizes[:, self.tensor_sizes].prod(2) @ self.tensor_constants
        return np.stack([macs, params], axis=1)

    @cached_property
    def dense(self) -> Cost:
        """The cost of the whole network."""
        return self.evaluate(self.dense_kept)


@dataclass(frozen=True, slots=True, eq=False)
class CountedOperation:
    """The MACs of one operation of the traced forward pass, as a product.

    Attributes:
        constant: what no pruning changes (kernel size, output positions).
        extents: the sizes that `constant` is multiplied with.
        layer: path of the module that the operation stands in.
    """

    constant: int
    extents: tuple[Extent, ...]
    layer: str


def build_cost_table(
    sizes: Sequence[int],
    units: Mapping[str, Mapping[int, Ints]],
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Sequence[str],
    operations: Sequence[CountedOperation],
) -> CostTable:
    """Finds the sizes that repeat and writes every product in terms of them.

    Args:
        sizes: channels of each group; the units of a group are numbered behind those of the groups before it.
        units: parameter or buffer -> dimension -> the channel unit of each position (-1: always stays).
        shapes: parameter or buffer -> dense shape.
        parameters: the names in `shapes` whose elements count.
        operations: what takes MACs.
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    rows: dict[bytes, int] = {}
    widths: list[Ints] = [np.zeros(len(sizes), dtype=np.int64)]
    fixed: list[int] = [1]  # size 0 is the constant 1

    def size_row(positions: Ints) -> int:
        shrinking = positions[positions >= 0]
        owners = np.bincount(np.searchsorted(ends, shrinking, side="right"), minlength=len(sizes))
        stays = len(positions) - len(shrinking)
        key = owners.tobytes() + stays.to_bytes(8, "little")
        if key not in rows:
            rows[key] = len(widths)
            widths.append(owners // np.maximum(1, np.array(sizes, dtype=np.int64)))
            fixed.append(stays)
        return rows[key]

    def product(constant: int, extents: Sequence[Extent]) -> tuple[int, list[int]]:
        factors = []
        for extent in extents:
            if not isinstance(extent, tuple):
                factors.append(size_row(extent))
            elif extent[1] in units.get(extent[0], {}):
                factors.append(size_row(units[extent[0]][extent[1]]))
            else:
                constant *= shapes[extent[0]][extent[1]]
        return constant, factors

    macs = [product(operation.constant, operation.extents) for operation in operations]
    elements = [product(1, [(name, dim) for dim in range(len(shapes[name]))]) for name in parameters]
    return CostTable(
        np.array(widths).reshape(len(widths), len(sizes)),
        np.array(fixed),
        np.array([constant for constant, _ in macs], dtype=np.int64),
        _padded([factors for _, factors in macs]),
        tuple(operation.layer for operation in operations),
        np.array([constant for constant, _ in elements], dtype=np.int64),
        _padded([factors for _, factors in elements]),
        tuple(parameters),
        np.array(sizes, dtype=np.int64),
    )


def _padded(rows: Sequence[Sequence[int]]) -> Ints:
    """(rows, longest row) the rows, filled up with size 0, the constant 1."""
    length = max((len(row) for row in rows), default=1)
    return np.array([[*row, *[0] * (length - len(row))] for row in rows], dtype=np.int64).reshape(len(rows), length)
