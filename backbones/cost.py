"""What a structure costs: arithmetic on a table made once by the trace. No module is built.

One multiply-add is one MAC. Convolutions, linear layers, matrix products and attention count; normalisation,
activations, pooling and biases do not. All figures are for one sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from backbones.graph import ChannelGraph
from backbones.structure import Structure

Ints = NDArray[np.int64]


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


def cost(graph: ChannelGraph, structure: Structure) -> Cost:
    """MACs and parameters of `structure`, for one sample, without building it.

    Equal to a recount on the pruned module by `torch.utils.flop_counter` (halved).

    Raises:
        SecateurError: when the structure belongs to another graph.
    """
    structure.check(graph)
    if structure.removed:
        from backbones.removal import reduced

        reduction = reduced(graph, structure.removed)
        graph, structure = reduction.graph, reduction.translate(structure)
    return graph.costs.evaluate(np.fromiter((len(channels) for _, channels in structure.kept), np.int64))
